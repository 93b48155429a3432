//! The Dockerfile with all labels in one instruction.
//!
//! Podman makes a step of each option `--label`, and Buildah searches each step among all images of its
//! store: nine labels take more than a second, also if nothing has changed.

use std::collections::BTreeMap;

use crate::plan::{Stdin, quote_for_shell};

/// A Dockerfile that is passed on standard input, and the stage to build of it.
pub struct Labelled {
    pub dockerfile: Stdin,
    /// Empty for the last stage.
    pub target: String,
}

/// Appends the labels to a Dockerfile. None if there are no labels, or if an instruction cannot have them.
pub fn labelled(
    path: &str,
    text: &str,
    target: &str,
    labels: &BTreeMap<String, String>,
) -> Option<Labelled> {
    let is_one_line = |(name, value): (&String, &String)| !format!("{name}{value}").contains('\n');
    if labels.is_empty() || changes_the_escape(text) || !labels.iter().all(is_one_line) {
        return None;
    }
    let mut lines = Vec::new();
    // Labels after the last line belong to the last stage.
    let is_last = target.is_empty() || last_stage(text) == Some(target);
    if !is_last {
        lines.push(format!("FROM {target}"));
    }
    lines.push(instruction(labels));
    let words: Vec<_> = lines.iter().map(|line| quote_for_shell(line)).collect();
    Some(Labelled {
        dockerfile: Stdin {
            text: format!("{text}\n{}\n", lines.join("\n")),
            source_command: format!(
                "{{ cat {}; printf '\\n%s' {}; echo; }}",
                quote_for_shell(path),
                words.join(" ")
            ),
        },
        target: if is_last {
            target.to_owned()
        } else {
            String::new()
        },
    })
}

/// <https://docs.docker.com/reference/dockerfile/#label>
fn instruction(labels: &BTreeMap<String, String>) -> String {
    let mut out = "LABEL".to_owned();
    for (name, value) in labels {
        out += &format!(" {}={}", quoted(name), quoted(value));
    }
    out
}

fn quoted(word: &str) -> String {
    let mut out = "\"".to_owned();
    for c in word.chars() {
        // Without a backslash, `$` begins the name of a variable.
        if matches!(c, '\\' | '"' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out + "\""
}

/// Whether the Dockerfile has another escape character than the backslash.
/// <https://docs.docker.com/reference/dockerfile/#escape>
pub fn changes_the_escape(text: &str) -> bool {
    let mut directives = text.lines().take_while(|line| line.starts_with('#'));
    directives.any(|line| {
        let directive: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        directive.to_lowercase().starts_with("#escape=`")
    })
}

/// The name of the last stage: `FROM image AS name`.
fn last_stage(text: &str) -> Option<&str> {
    let mut stages = text.lines().rev().map(|line| line.split_whitespace());
    let mut words = stages.find_map(|mut words| {
        let is_from = words.next()?.eq_ignore_ascii_case("FROM");
        is_from.then_some(words)
    })?;
    words.find(|word| word.eq_ignore_ascii_case("AS"))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        labels.iter().map(owned).collect()
    }

    const TEXT: &str = "FROM a AS first\nRUN x\nFROM b as last\nCOPY . /\n";

    #[test]
    fn labels_of_the_last_stage_are_appended() {
        let some = labels(&[("a.b", "c d"), ("e", r#"\ " $x"#)]);
        for target in ["last", ""] {
            let labelled = labelled("/x y/Dockerfile", TEXT, target, &some).unwrap();
            assert_eq!(labelled.target, target);
            assert_eq!(
                labelled.dockerfile.text,
                format!("{TEXT}\nLABEL \"a.b\"=\"c d\" \"e\"=\"\\\\ \\\" \\$x\"\n")
            );
            assert_eq!(
                labelled.dockerfile.source_command,
                r#"{ cat '/x y/Dockerfile'; printf '\n%s' 'LABEL "a.b"="c d" "e"="\\ \" \$x"'; echo; }"#
            );
        }
    }

    #[test]
    fn labels_of_another_stage_get_a_stage_of_their_own() {
        let labelled = labelled("D", TEXT, "first", &labels(&[("a", "b")])).unwrap();
        assert_eq!(labelled.target, "");
        let end = "\nFROM first\nLABEL \"a\"=\"b\"\n";
        assert!(labelled.dockerfile.text.ends_with(end));
    }

    #[test]
    fn some_labels_cannot_be_in_an_instruction() {
        let none = |text, some: &[(&str, &str)]| labelled("D", text, "", &labels(some)).is_none();
        assert!(none(TEXT, &[]));
        assert!(none(TEXT, &[("a", "b\nc")]));
        assert!(none("# syntax=x\n# escape = `\nFROM a\n", &[("a", "b")]));
        assert!(!none("# escape=\\\nFROM a\n", &[("a", "b")]));
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // a test asks the shell itself
    fn the_rendered_command_prints_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dockerfile");
        std::fs::write(&path, TEXT).unwrap();
        let some = labels(&[("a", "b"), ("c", r"it's %s \n $HOME")]);
        let labelled = labelled(path.to_str().unwrap(), TEXT, "first", &some).unwrap();
        let printed = duct::cmd("sh", ["-c", &labelled.dockerfile.source_command]);
        assert_eq!(
            printed.stdout_capture().run().unwrap().stdout,
            labelled.dockerfile.text.as_bytes()
        );
    }
}
