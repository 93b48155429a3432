//! Which files of the context an engine sends to its builder: `.dockerignore`'s patterns, the
//! last that matches decides.
//! <https://docs.docker.com/build/concepts/context/#dockerignore-files>

use std::path::{Component, Path};

use glob::{MatchOptions, Pattern};

/// The patterns of a `.dockerignore`.
#[derive(Debug, Default)]
pub struct Ignore {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    /// Whether the pattern is an exception (`!`).
    is_exception: bool,
    text: String,
    /// None for a pattern that we cannot read. A pattern that is not understood leaves out nothing.
    pattern: Option<Pattern>,
}

const AS_DOCKER: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Ignore {
    pub fn parse(text: &str) -> Self {
        let lines = text
            .trim_start_matches('\u{feff}')
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let line = line.trim();
                let is_exception = line.starts_with('!');
                let text = line.trim_start_matches('!').trim();
                let text = text.trim_start_matches("./").trim_matches('/');
                (!text.is_empty() && text != ".").then(|| Line {
                    is_exception,
                    // Go negates a class with `^`.
                    pattern: Pattern::new(&text.replace("[^", "[!")).ok(),
                    text: text.to_owned(),
                })
            });
        Self {
            lines: lines.collect(),
        }
    }

    /// Whether a file, relative to the context, is left out. A pattern that matches a folder
    /// matches all that is below it.
    pub fn excludes(&self, path: &Path) -> bool {
        let line = self.lines.iter().rev().find(|line| line.matches(path));
        line.is_some_and(|line| !line.is_exception)
    }

    /// Whether a folder is left out with all that could be in it.
    pub fn excludes_everything_below(&self, folder: &Path) -> bool {
        self.excludes(folder) && !self.lines.iter().any(|line| line.may_let_in_below(folder))
    }
}

impl Line {
    fn matches(&self, path: &Path) -> bool {
        match &self.pattern {
            Some(pattern) => path
                .ancestors()
                .filter(|part| part.components().next().is_some())
                .any(|part| pattern.matches_path_with(part, AS_DOCKER)),
            None => self.is_exception,
        }
    }

    /// Compares component by component; a wildcard matches any component.
    fn may_let_in_below(&self, folder: &Path) -> bool {
        let wild = |text: &str| text.contains(['*', '?', '[', '\\']);
        let known = self.text.split('/').take_while(|part| !wild(part));
        let folder = folder.components().map(Component::as_os_str);
        self.is_exception && known.zip(folder).all(|(known, part)| part == known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(ignore: &str, path: &str) -> bool {
        Ignore::parse(ignore).excludes(Path::new(path))
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let text = "# all\n*\n!app\n**/.*\n**/__pycache__\n**/*.pyc\n";
        for (path, out) in [
            ("app/main.py", false),
            ("app/deep/er/main.py", false),
            ("app/.main.py.swp", true),
            ("app/.venv/lib/x.py", true),
            ("app/deep/__pycache__/x", true),
            ("app/deep/x.pyc", true),
            (".git/HEAD", true),
            ("target/debug/x", true),
            ("apple", true),
        ] {
            assert_eq!(left_out(text, path), out, "{path}");
        }
        assert!(!left_out("*.md\n!README.md\n", "README.md"));
        assert!(left_out("!README.md\n*.md\n", "README.md"));
        assert!(left_out("/a/\n", "a/b"), "slashes at the ends mean nothing");
        assert!(!left_out("*.md", "docs/a.md"), "`*` stays in its folder");
        assert!(left_out("**/*.md", "a.md"), "`**` may be no folder");
        assert!(left_out("x[^a]", "xb") && !left_out("x[^a]", "xa"));
        assert!(!left_out("#x\n", "#x"), "a comment");
        assert!(!left_out("", "x"));
    }

    #[test]
    fn an_invalid_pattern_excludes_nothing() {
        assert!(!left_out("a***b\n", "a/b"));
        assert!(!left_out("*\n!a***b\n", "x"));
    }

    #[test]
    fn a_folder_is_skipped_when_nothing_in_it_can_come_in() {
        let ignore = Ignore::parse("*\n!app/lib\n!docs/*/x\n**/.*\n");
        let excludes_everything_below =
            |folder: &str| ignore.excludes_everything_below(Path::new(folder));
        assert!(
            excludes_everything_below("target")
                && excludes_everything_below(".git")
                && excludes_everything_below("app/other")
        );
        assert!(
            !excludes_everything_below("app")
                && !excludes_everything_below("app/lib")
                && !excludes_everything_below("app/lib/deep")
        );
        assert!(!excludes_everything_below("docs") && !excludes_everything_below("docs/a"));
        let wild = Ignore::parse("*\n!**/x\n");
        assert!(!wild.excludes_everything_below(Path::new("target")));
    }
}
