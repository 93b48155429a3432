//! The files of a work tree: `.dockerignore`, and git's output.

use std::path::Path;

use crate::{commands::watch::ignore::Ignore, facts::git::read_work_tree, properties::text};

/// A skipped folder contains no file of the build context.
pub fn dockerignore(input: &[u8]) {
    let text = text(input);
    let ignore = Ignore::parse(&text);
    for folder in ["app", "app/lib", ".git", "target/debug"] {
        if !ignore.excludes_everything_below(Path::new(folder)) {
            continue;
        }
        for file in [
            "x",
            "lib",
            "lib/main.py",
            ".hidden",
            "deep/er/a.md",
            "[a]",
            "a*b",
        ] {
            let path = Path::new(folder).join(file);
            assert!(ignore.excludes(&path), "{} is lost", path.display());
        }
        // This includes the paths in the patterns themselves.
        for line in text.lines() {
            let named = Path::new(line.trim_start_matches('!'));
            if named.starts_with(folder) && named != Path::new(folder) {
                assert!(ignore.excludes(named), "{} is lost", named.display());
            }
        }
    }
    // The last matching pattern decides.
    let everything = Ignore::parse(&format!("{text}\n**\n"));
    assert!(everything.excludes(Path::new("app/x")));
    let nothing = Ignore::parse(&format!("{text}\n!**\n"));
    assert!(
        !nothing.excludes(Path::new("app/x"))
            && !nothing.excludes_everything_below(Path::new("app"))
    );
}

/// The commit is valid or missing. Branch and tags are words of git's line. A work tree is clean only if git
/// reports it.
pub fn git_log(input: &[u8]) {
    let text = text(input);
    let git = read_work_tree(&text, None);
    assert!(git.dirty);
    if let Some(sha) = &git.values.sha {
        let hex = |c: u8| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
        assert!(!sha.is_empty() && sha.bytes().all(hex), "{sha:?}");
    }
    for name in git.values.branch.iter().chain(&git.tags) {
        assert!(
            text.contains(&format!("/{name}")) && !name.contains('\n'),
            "{name:?}"
        );
    }
    if git.values.sha.is_some() {
        assert!(
            read_work_tree(&text, Some(&text)).dirty && !read_work_tree(&text, Some("\n")).dirty
        );
    }
}
