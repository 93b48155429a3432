//! What git knows of the repository and its work tree.

use std::{os::unix::fs::MetadataExt as _, path::Path, thread};

use crate::{exec::Exec, settings::GitValues};

/// The state of the work tree. Empty outside of a git repository, where images can be built too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkTree {
    pub values: GitValues,
    /// When HEAD was committed, in seconds since 1970.
    pub commit_time: Option<u64>,
    /// The tags on HEAD.
    pub tags: Vec<String>,
    /// Whether files are changed or untracked.
    pub dirty: bool,
    /// The id of the user to whom the folder belongs, if git does not read it for that reason.
    pub untrusted: Option<u32>,
}

/// The variables that git sets for its hooks, for example for one that calls xtask in another repository. They
/// would take precedence over the folder. `git rev-parse --local-env-vars` lists them.
const HOOK_VARIABLES: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
];

/// In every language, git's refusal to read another user's repository has the command that allows it.
/// <https://git-scm.com/docs/git-config#Documentation/git-config.txt-safedirectory>
const UNTRUSTED: &str = "safe.directory";

/// Git's answer about the repository in a folder, or what it wrote to standard error.
fn ask(exec: &Exec, root: &Path, args: &[&str]) -> Result<String, String> {
    exec.read("git", root, args, HOOK_VARIABLES)
}

/// All tags of the repository. In a shallow clone some may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub names: Vec<String>,
    pub shallow: bool,
}

/// Lists the repository's tags.
pub fn tags(exec: &Exec, root: &Path) -> Tags {
    let git = |args: &[&str]| ask(exec, root, args).unwrap_or_default();
    Tags {
        shallow: git(&["rev-parse", "--is-shallow-repository"]).trim() == "true",
        names: git(&["tag", "--list"]).lines().map(str::to_owned).collect(),
    }
}

/// Asks git for the state of the work tree. Without git, without a repository or without a commit
/// the answer is empty.
pub fn work_tree(exec: &Exec, root: &Path) -> WorkTree {
    let git = |args: &[&str]| ask(exec, root, args);
    thread::scope(|scope| {
        let status = scope.spawn(|| git(&["status", "--porcelain", "--untracked-files=normal"]));
        let head = git(&[
            "log",
            "-1",
            "--no-show-signature",
            "--decorate=full",
            "--format=%H%n%ct%n%D",
        ]);
        let status = status.join().ok().and_then(Result::ok);
        match head {
            Ok(head) => read_work_tree(&head, status.as_deref()),
            Err(why) => WorkTree {
                untrusted: owner(root).filter(|_| why.contains(UNTRUSTED)),
                ..WorkTree::default()
            },
        }
    })
}

/// The id of the user to whom the repository, or else the folder, belongs.
fn owner(root: &Path) -> Option<u32> {
    let of = |path: &Path| Some(path.metadata().ok()?.uid());
    of(&root.join(".git")).or_else(|| of(root))
}

/// Reads the output of `git log -1 --format=%H%n%ct%n%D` and of `git status --porcelain`. A work tree
/// whose status is unknown counts as dirty.
pub fn read_work_tree(head: &str, status: Option<&str>) -> WorkTree {
    let mut lines = head.lines();
    let hex = |sha: &&str| !sha.is_empty() && sha.bytes().all(|c| b"0123456789abcdef".contains(&c));
    let Some(sha) = lines.next().filter(hex).map(str::to_owned) else {
        return WorkTree {
            dirty: true,
            ..WorkTree::default()
        };
    };
    let commit_time = lines.next().and_then(|time| time.parse().ok());
    let refs = lines.next().unwrap_or("");
    let of = |prefix: &str| {
        refs.split(", ")
            .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
            .collect()
    };
    let branch: Vec<String> = of("HEAD -> refs/heads/");
    WorkTree {
        values: GitValues {
            sha: Some(sha),
            branch: branch.into_iter().next(),
        },
        commit_time,
        tags: of("tag: refs/tags/"),
        dirty: status.is_none_or(|status| !status.trim().is_empty()),
        untrusted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_git_is_parsed() {
        let git = read_work_tree(
            "0123\n1700000000\nHEAD -> refs/heads/main, tag: refs/tags/v1.2.3, refs/remotes/origin/main\n",
            Some(""),
        );
        assert_eq!(git.values.sha.as_deref(), Some("0123"));
        assert_eq!(git.values.branch.as_deref(), Some("main"));
        assert_eq!(
            (git.tags, git.commit_time, git.dirty),
            (vec!["v1.2.3".to_owned()], Some(1_700_000_000), false)
        );

        let detached = read_work_tree(
            "0123\n1700000000\nHEAD, tag: refs/tags/v1\n",
            Some("?? x\n"),
        );
        assert_eq!(detached.values.branch, None);
        assert!(detached.dirty);
        assert!(
            read_work_tree("0123\n", None).dirty,
            "an unknown status counts as dirty"
        );
    }
}
