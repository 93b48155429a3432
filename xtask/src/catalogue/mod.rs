//! The catalogue of known failures: recognised by what is printed, told in a line under it, and at
//! length by `cargo xtask explain`. docs/troubleshooting.md is made of it.

mod entries;
#[cfg(test)]
mod page;

use std::fmt::Write as _;

pub use crate::catalogue::entries::{ENTRIES, Entry, Part, Retry};

/// The known failure that a text tells of.
pub fn find(said: &str) -> Option<&'static Entry> {
    let said = said.to_lowercase();
    ENTRIES.iter().find(|entry| {
        let mut ways = entry.says.iter();
        ways.any(|way| way.iter().all(|part| said.contains(part)))
    })
}

/// The entry of a code.
pub fn of_code(code: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.code == code)
}

/// What is told under a failure that we know: what to do, and where there is more.
pub fn hints_for(said: &str) -> Vec<String> {
    find(said).map(Entry::hints).unwrap_or_default()
}

/// The same of a failure whose code is known.
pub fn hints_of(code: &str) -> Vec<String> {
    debug_assert!(of_code(code).is_some(), "no entry `{code}`");
    of_code(code).map(Entry::hints).unwrap_or_default()
}

/// What is told where an engine printed on the terminal itself, so that nobody else read it.
pub const UNSEEN_OUTPUT: &str =
    "what it printed may be known: `cargo xtask explain \"its last line\"`";

/// The line that leads to an entry's long form.
pub fn more(code: &str) -> String {
    debug_assert!(of_code(code).is_some(), "no entry `{code}`");
    format!("more: `cargo xtask explain {code}`")
}

impl Entry {
    pub fn hints(&self) -> Vec<String> {
        let first = self.fix.first().map(|&fix| fix.to_owned());
        first.into_iter().chain([more(self.code)]).collect()
    }

    /// What is printed, as it is shown to people: one of the ways a line.
    fn seen(&self) -> Vec<String> {
        self.says
            .iter()
            .map(|way| way.iter().map(|part| part.trim()).collect::<Vec<_>>())
            .map(|parts| parts.join(" … "))
            .collect()
    }

    /// The long form.
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
        section("It is printed as (in any case of letters)", &self.seen());
        section("Why", &owned(&[self.cause]));
        section("What to do", &owned(self.fix));
        section("Does trying again help?", &owned(&[self.retry.describe()]));
        section("See also", &owned(self.links));
        out
    }
}

fn of_part(part: Part) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| entry.part == part)
}

/// All codes, with a line each.
pub fn list() -> String {
    let width = ENTRIES.iter().map(|entry| entry.code.len()).max();
    let width = width.unwrap_or_default();
    let mut out = String::new();
    for part in Part::ALL {
        let _ = writeln!(out, "{}:", part.heading());
        for entry in of_part(*part) {
            let _ = writeln!(out, "  {:<width$}  {}", entry.code, entry.title);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::login::Refusal;

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
                "{code} is there twice"
            );
            for part in entry.says.iter().copied().flatten() {
                assert_eq!(*part, part.to_lowercase(), "compared in lower case");
            }
            assert!(entry.says.iter().all(|way| !way.is_empty()), "{code}");
            assert!(!entry.fix.is_empty(), "{code}: what is to be done?");
            assert!(entry.cause.ends_with('.'), "{code}: a whole sentence");
            assert!(!entry.title.ends_with('.'), "{code}: no sentence");
        }
    }

    #[test]
    fn each_way_leads_to_its_own_entry() {
        // One that stands before it, and is more general, would hide it.
        for entry in ENTRIES {
            for way in entry.says {
                let found = find(&way.join(" and ")).map(|found| found.code);
                assert_eq!(found, Some(entry.code), "{way:?}");
            }
        }
    }

    #[test]
    fn a_refused_sign_in_leads_to_an_entry() {
        for code in Refusal::ALL.map(Refusal::code) {
            assert!(of_code(code).is_some(), "{code}");
        }
    }

    #[test]
    fn failures_are_found_in_the_engines_words() {
        let hints = hints_for(
            "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component",
        );
        assert!(
            hints[0].starts_with("install the buildx plugin"),
            "{hints:?}"
        );
        assert_eq!(hints[1], "more: `cargo xtask explain buildx-missing`");
        assert_eq!(hints.len(), 2);
        assert!(hints_for("all is well").is_empty());
    }
}
