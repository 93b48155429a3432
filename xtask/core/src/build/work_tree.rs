//! Whether the work tree is in the state that a channel requires for publishing.

use crate::{
    base::{error::Failure, version::Version},
    cli::PublishingOptions,
    facts::git::WorkTree,
    plan::quote_for_shell,
    settings::{Settings, WorkTreeRequirement},
};

/// Whether uncommitted changes may be published although the channel requires a clean work tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncommitted {
    Refused,
    /// The user passed `--allow-dirty`.
    Allowed,
}

impl PublishingOptions {
    pub fn uncommitted(self) -> Uncommitted {
        if self.allow_dirty {
            Uncommitted::Allowed
        } else {
            Uncommitted::Refused
        }
    }
}

/// Checks that the image of this work tree may be published.
///
/// # Errors
/// Why it may not, and how to bring the work tree into the state that the channel requires.
pub fn check(settings: &Settings, git: &WorkTree, uncommitted: Uncommitted) -> Result<(), Failure> {
    let version = &settings.version.value;
    let channel = &settings.channel.name;
    let (state, needs_tag) = match settings.channel.work_tree {
        WorkTreeRequirement::Any => return Ok(()),
        WorkTreeRequirement::Clean => ("clean", false),
        WorkTreeRequirement::Tagged => ("clean and tagged", true),
    };
    let failure = |why: &str| {
        Failure::new(format!(
            "not fit to publish: the channel `{channel}` requires a {state} work tree, and {why}"
        ))
    };
    let required = format!("(`work-tree` of the channel `{channel}` in xtask.toml requires it)");
    if let Some((why, fix)) = untrusted(settings, git) {
        return Err(failure(&why).hint(fix));
    }
    if git.values.sha.is_none() {
        return Err(failure("this is not a git work tree")
            .hint(format!("publish from a clone of the repository {required}")));
    }
    if git.dirty && uncommitted == Uncommitted::Refused {
        let tag = if needs_tag {
            format!(", then tag the commit: `git tag {}`", version.git_tag())
        } else {
            String::new()
        };
        return Err(failure("there are uncommitted changes")
            .hint(format!("commit them{tag} {required}"))
            .hint("publish them without a commit: pass `--allow-dirty`"));
    }
    if needs_tag && tag_of(settings, &git.tags).is_none() {
        let tag = version.git_tag();
        return Err(failure(&format!("HEAD has no tag `{tag}`")).hint(format!(
            "commit, then tag the commit: `git tag {tag}` {required}"
        )));
    }
    Ok(())
}

/// Why git does not read the repository, if that is because another user owns it, and the fix.
pub fn untrusted(settings: &Settings, git: &WorkTree) -> Option<(String, String)> {
    let owner = git.untrusted?;
    let root = quote_for_shell(&settings.root.to_string_lossy());
    Some((
        format!("git does not trust the checkout, which belongs to the user with the id {owner}"),
        format!("let git trust it: `git config --global --add safe.directory {root}`"),
    ))
}

/// The git tag that names the version: `v1.2.3` or `1.2.3`, in a repository with several projects also
/// `agent-runner/v1.2.3`, with the last part of the image's name.
pub fn tag_of<'a>(settings: &Settings, tags: &'a [String]) -> Option<&'a String> {
    let version = &settings.version.value;
    let names_version =
        |tag: &&String| version_of_tag(settings, tag).is_some_and(|tagged| tagged == *version);
    let usual = version.git_tag();
    let exact = tags.iter().find(|tag| **tag == usual);
    exact.or_else(|| tags.iter().find(names_version))
}

/// The version that a git tag names; none for the tag of another project.
pub fn version_of_tag(settings: &Settings, tag: &str) -> Option<Version> {
    let image = settings.image.repository.path();
    let image = image.rsplit('/').next().unwrap_or(image);
    let bare = match tag.rsplit_once('/') {
        Some((project, bare)) if project == image => bare,
        Some(_) => return None,
        None => tag,
    };
    Version::parse(bare).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env,
        config::files::Files,
        settings::{GitValues, resolve::Arguments},
    };

    fn settings(version: &str) -> Settings {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src/my checkout".into(),
            project: "schema = 1\n[image]\nrepository = 'ghcr.io/x/agent-runner'\n".to_owned(),
            local: None,
        };
        Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap()
    }

    fn clean(tags: &[&str]) -> WorkTree {
        WorkTree {
            values: GitValues {
                sha: Some("0123".to_owned()),
                branch: None,
            },
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..WorkTree::default()
        }
    }

    #[test]
    fn the_tag_of_the_version_is_found() {
        let fits = |version: &str, tag: &str| {
            check(&settings(version), &clean(&[tag]), Uncommitted::Refused).is_ok()
        };
        assert!(fits("1.2.3", "v1.2.3"));
        assert!(fits("1.2.3", "1.2.3"));
        assert!(fits("1.2.3", "agent-runner/v1.2.3"));
        assert!(!fits("1.2.3", "server/v1.2.3"));
        assert!(!fits("1.2.3", "v1.2.4"));
        assert!(fits("2.0.0+1", "v2.0.0+1"));
        assert!(
            !fits("2.0.0+1", "v2.0.0-1"),
            "a pre-release with the same image tag"
        );
        let tags = ["1.2.3", "v1.2.3"].map(str::to_owned);
        assert_eq!(tag_of(&settings("1.2.3"), &tags).unwrap(), "v1.2.3");
    }

    #[test]
    fn uncommitted_changes_are_published_only_if_the_user_allows_it() {
        let mut git = clean(&["v1.2.3"]);
        git.dirty = true;
        let check = |version: &str, git: &WorkTree, uncommitted| {
            super::check(&settings(version), git, uncommitted).map_err(|why| why.to_string())
        };
        let refused = check("1.2.3", &git, Uncommitted::Refused).unwrap_err();
        assert!(
            refused.ends_with("and there are uncommitted changes"),
            "{refused}"
        );
        assert!(check("1.2.3-rc.1", &git, Uncommitted::Refused).is_err());
        assert_eq!(check("1.2.3", &git, Uncommitted::Allowed), Ok(()));
        assert_eq!(check("dev-me", &git, Uncommitted::Refused), Ok(()));
        // The tag is still required.
        git.tags.clear();
        let refused = check("1.2.3", &git, Uncommitted::Allowed).unwrap_err();
        assert!(
            refused.ends_with("and HEAD has no tag `v1.2.3`"),
            "{refused}"
        );
    }

    #[test]
    fn a_checkout_that_git_does_not_trust_is_named() {
        let git = WorkTree {
            untrusted: Some(1001),
            ..WorkTree::default()
        };
        let refused = check(&settings("1.2.3"), &git, Uncommitted::Allowed).unwrap_err();
        assert!(
            refused.to_string().ends_with(
                "and git does not trust the checkout, which belongs to the user with the id 1001"
            ),
            "{refused}"
        );
        assert_eq!(
            refused.hint_lines(),
            ["let git trust it: `git config --global --add safe.directory '/src/my checkout'`"]
        );
    }
}
