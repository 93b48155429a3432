//! The configuration files.

use std::path::{Path, PathBuf};

use crate::base::error::Failure;

/// The project's configuration, in the root of the checkout.
pub const FILE: &str = "xtask.toml";
/// The personal configuration, in the same folder. Git ignores it.
pub const LOCAL_FILE: &str = "xtask.local.toml";

/// The texts of the configuration files of a checkout.
#[derive(Clone, Debug)]
pub struct Files {
    pub root: PathBuf,
    pub project: String,
    pub local: Option<String>,
}

/// Finds the checkout that contains a folder, and reads its configuration files.
///
/// # Errors
/// When no parent folder has an xtask.toml, or a file cannot be read.
pub fn find(from: &Path) -> anyhow::Result<Files> {
    let root = from
        .ancestors()
        .find(|folder| folder.join(FILE).is_file())
        .ok_or_else(|| {
            Failure::usage(format!(
                "there is no `{FILE}` in `{}` or its parent folders",
                from.display()
            ))
            .hint("run xtask in a checkout of the agent-runner repository")
        })?;
    if root.to_str().is_none() {
        return Err(Failure::usage(format!(
            "the checkout's path `{}` is not UTF-8, which engines require",
            root.display()
        ))
        .hint("move the checkout to another folder")
        .into());
    }
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).map_err(|error| {
            Failure::new(format!(
                "cannot read `{}`: {error}",
                root.join(name).display()
            ))
        })
    };
    let local = root
        .join(LOCAL_FILE)
        .exists()
        .then(|| read(LOCAL_FILE))
        .transpose()?;
    Ok(Files {
        root: root.to_owned(),
        project: read(FILE)?,
        local,
    })
}
