//! The catalogue of known failures. xtask recognises them in the output of other programs and adds a hint to
//! the error. `cargo xtask explain` prints the whole entry. docs/troubleshooting.md is generated from the
//! catalogue.

mod entries;
#[cfg(test)]
mod page;

use std::fmt::Write as _;

pub use crate::catalogue::entries::{ENTRIES, Entry, Section};

/// Finds the known failure in the output of a program.
pub fn find_in_output(output: &str) -> Option<&'static Entry> {
    let output = output.to_lowercase();
    ENTRIES.iter().find(|entry| {
        let mut patterns = entry.patterns.iter();
        patterns.any(|pattern| pattern.iter().all(|text| output.contains(text)))
    })
}

pub fn find_by_code(code: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.code == code)
}

/// The hints for a failed program; empty if the failure is unknown.
pub fn hints_for_output(output: &str) -> Vec<String> {
    find_in_output(output).map(Entry::hints).unwrap_or_default()
}

/// The hints for a known failure.
pub fn hints_for_code(code: &str) -> Vec<String> {
    debug_assert!(find_by_code(code).is_some(), "no entry `{code}`");
    find_by_code(code).map(Entry::hints).unwrap_or_default()
}

/// The hint that names the command for an entry's explanation.
pub fn explain_hint(code: &str) -> String {
    debug_assert!(find_by_code(code).is_some(), "no entry `{code}`");
    format!("see `cargo xtask explain {code}`")
}

impl Entry {
    /// The first fix, and the command for the explanation.
    pub fn hints(&self) -> Vec<String> {
        let first = self.fixes.first().map(|&fix| fix.to_owned());
        first.into_iter().chain([explain_hint(self.code)]).collect()
    }

    /// The patterns for people: the texts of each, joined by `…`.
    fn pattern_texts(&self) -> Vec<String> {
        self.patterns
            .iter()
            .map(|pattern| pattern.iter().map(|text| text.trim()).collect::<Vec<_>>())
            .map(|texts| texts.join(" … "))
            .collect()
    }

    /// The text that `explain` prints.
    pub fn explain(&self) -> String {
        let mut out = format!("{}: {}\n", self.code, self.title);
        let mut section = |title: &str, lines: &[String]| {
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(out, "\n{title}");
            for line in lines {
                let _ = writeln!(out, "  {line}");
            }
        };
        let owned = |lines: &[&str]| {
            lines
                .iter()
                .map(|&line| line.to_owned())
                .collect::<Vec<_>>()
        };
        section("Message (in upper or lower case)", &self.pattern_texts());
        section("Cause", &owned(&[self.cause]));
        section("What to do", &owned(self.fixes));
        section("Retry", &owned(&[self.retry.describe()]));
        section("See also", &owned(self.links));
        out
    }
}

fn entries_in(section: Section) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| entry.section == section)
}

/// All codes and titles, one a line.
pub fn list() -> String {
    let width = ENTRIES.iter().map(|entry| entry.code.len()).max();
    let width = width.unwrap_or_default();
    let mut out = String::new();
    for section in Section::ALL {
        let _ = writeln!(out, "{}:", section.heading());
        for entry in entries_in(*section) {
            let _ = writeln!(out, "  {:<width$}  {}", entry.code, entry.title);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::login::LoginFailure;

    #[test]
    fn entries_are_well_formed() {
        for (number, entry) in ENTRIES.iter().enumerate() {
            let code = entry.code;
            assert!(
                code.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{code}"
            );
            assert!(
                !ENTRIES[..number].iter().any(|other| other.code == code),
                "two entries have the code {code}"
            );
            for text in entry.patterns.iter().copied().flatten() {
                assert_eq!(*text, text.to_lowercase(), "patterns are lower case");
            }
            assert!(
                entry.patterns.iter().all(|pattern| !pattern.is_empty()),
                "{code}: an empty pattern"
            );
            assert!(!entry.fixes.is_empty(), "{code}: no fix");
            assert!(
                entry.cause.ends_with('.'),
                "{code}: the cause is not a sentence"
            );
            assert!(
                !entry.title.ends_with('.'),
                "{code}: the title is a sentence"
            );
        }
    }

    #[test]
    fn each_pattern_finds_its_own_entry() {
        // An earlier, more general entry would hide a later one.
        for entry in ENTRIES {
            for pattern in entry.patterns {
                let found = find_in_output(&pattern.join(" and ")).map(|found| found.code);
                assert_eq!(found, Some(entry.code), "{pattern:?}");
            }
        }
    }

    #[test]
    fn each_login_failure_has_an_entry() {
        for code in LoginFailure::ALL.map(LoginFailure::code) {
            assert!(find_by_code(code).is_some(), "{code}");
        }
    }

    #[test]
    fn failures_are_found_in_an_engines_output() {
        let hints = hints_for_output(
            "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component",
        );
        assert!(
            hints[0].starts_with("install the buildx plugin"),
            "{hints:?}"
        );
        assert_eq!(hints[1], "see `cargo xtask explain buildx-missing`");
        assert_eq!(hints.len(), 2);
        assert!(hints_for_output("success").is_empty());
    }
}
