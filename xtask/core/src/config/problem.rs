//! Problems of a configuration, with their positions.

use std::{fmt, ops::Range};

use crate::base::secret;

/// A text, and its name in messages.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// The line and column of a byte offset. Both begin with 1. Columns count characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..floor_char_boundary(self.text, at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// One problem, formatted like a compiler's message: text, position, the line with carets, and help.
/// Secrets in the line and in the message are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem at a position in a file.
    pub fn at(source: Source, span: Range<usize>, message: &str, help: &str) -> Self {
        let (line, column) = source.position(span.start);
        let text = source.text.lines().nth(line - 1).unwrap_or("");
        // A tab stays a tab, so that the carets are below the right characters.
        let indent: String = text
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let rest_of_line = text.chars().count().saturating_sub(column - 1);
        let spanned = source.text.get(span).map_or(1, |spanned| {
            spanned
                .lines()
                .next()
                .map_or(0, |first| first.chars().count())
        });
        let carets = "^".repeat(spanned.min(rest_of_line).max(1));
        let redacted = secret::redact_line(text);
        // In a redacted line, the carets would be below the wrong characters.
        let carets = if redacted == text {
            format!(" {indent}{carets}")
        } else {
            String::new()
        };
        let gutter = " ".repeat(line.to_string().len());
        Self(format!(
            "{message}\n{gutter}--> {name}:{line}:{column}\n{gutter} |\n{line} | {redacted}\n{gutter} |{carets}\n{gutter} = help: {help}",
            message = secret::redact(message),
            name = source.name,
        ))
    }

    /// A problem without a position in a file, such as one with an environment variable.
    pub fn without_position(message: &str) -> Self {
        Self(secret::redact(message))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_are_below_the_spanned_characters() {
        let source = Source {
            name: "xtask.toml",
            text: "a = 1\n\tä = \"x\"\n",
        };
        let at = source.text.find("\"x\"").unwrap();
        let problem = Problem::at(source, at..at + 3, "must be a number", "drop the quotes");
        assert_eq!(
            problem.to_string(),
            "must be a number\n --> xtask.toml:2:6\n  |\n2 | \tä = \"x\"\n  | \t    ^^^\n  = help: drop the quotes"
        );
    }

    #[test]
    fn a_position_after_the_end_does_not_panic() {
        let source = Source {
            name: "f",
            text: "ä",
        };
        for at in 0..5 {
            let _ = Problem::at(source, at..at + 1, "m", "h");
        }
        let _ = Problem::at(
            Source {
                name: "f",
                text: "",
            },
            0..0,
            "m",
            "h",
        );
    }
}
