//! The files of the configuration.

use std::path::{Path, PathBuf};

use crate::base::error::Failure;

/// The project's file, in the workspace's root.
pub const FILE: &str = "xtask.toml";
/// A person's own file beside it, which git ignores.
pub const LOCAL_FILE: &str = "xtask.local.toml";

/// The texts of a workspace's files, not parsed yet.
#[derive(Clone, Debug)]
pub struct Files {
    pub root: PathBuf,
    pub project: String,
    pub local: Option<String>,
}

/// Finds the workspace above a folder and reads its files.
///
/// # Errors
/// When there is no xtask.toml above, or a file cannot be read.
pub fn find(from: &Path) -> anyhow::Result<Files> {
    let root = from
        .ancestors()
        .find(|folder| folder.join(FILE).is_file())
        .ok_or_else(|| {
            Failure::usage(format!(
                "there is no `{FILE}` in `{}` or above",
                from.display()
            ))
            .hint("run xtask in a checkout of the agent-runner repository")
        })?;
    if root.to_str().is_none() {
        return Err(Failure::usage(format!(
            "the workspace's path `{}` is not UTF-8, and engines take no such path",
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
