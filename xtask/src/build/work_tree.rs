//! Whether the work tree is in the state that a channel requires for publishing.

use crate::{
    facts::git::WorkTree,
    settings::{Settings, WorkTreeRequirement},
};

/// Why the image of this work tree must not be published; none if it may be.
pub fn problem(settings: &Settings, git: &WorkTree) -> Option<String> {
    let version = &settings.version.value;
    let required = settings.channel.work_tree;
    let why = match required {
        WorkTreeRequirement::Any => return None,
        WorkTreeRequirement::Clean | WorkTreeRequirement::Tagged if git.values.sha.is_none() => {
            "this is not a git work tree".to_owned()
        }
        WorkTreeRequirement::Clean | WorkTreeRequirement::Tagged if git.dirty => {
            "there are uncommitted changes".to_owned()
        }
        WorkTreeRequirement::Clean => return None,
        WorkTreeRequirement::Tagged => {
            let tag = format!("v{version}");
            if git.tags.contains(&tag) || git.tags.iter().any(|tag| tag == version.as_str()) {
                return None;
            }
            format!("HEAD has no tag `{tag}`")
        }
    };
    Some(format!(
        "not fit to publish: the channel `{}` requires a {} work tree, and {why}",
        settings.channel.name,
        match required {
            WorkTreeRequirement::Tagged => "clean and tagged",
            WorkTreeRequirement::Any | WorkTreeRequirement::Clean => "clean",
        }
    ))
}

/// How to bring the work tree into the state that the channel requires.
pub fn hint(settings: &Settings) -> String {
    let version = &settings.version.value;
    format!(
        "commit, then tag the commit: `git tag v{version}` (`work-tree` of the channel `{}` in xtask.toml requires it)",
        settings.channel.name
    )
}
