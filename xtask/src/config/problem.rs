//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range};

use crate::base::secret;

/// A text and the name it goes by in messages.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// Line and column, both from 1, of a byte; columns count characters.
    pub fn place(&self, at: usize) -> (usize, usize) {
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

/// One problem, rendered as compilers do: message, place, the line with carets, help. What looks
/// like a secret is not shown, be it in the line or in the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem at a place in a file.
    pub fn at(source: Source, span: Range<usize>, message: &str, help: &str) -> Self {
        let (line, column) = source.place(span.start);
        let text = source.text.lines().nth(line - 1).unwrap_or("");
        // A tab stays a tab under the line, so that the caret stands where it should.
        let indent: String = text
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let in_line = text.chars().count().saturating_sub(column - 1);
        let wanted = source.text.get(span).map_or(1, |spanned| {
            spanned
                .lines()
                .next()
                .map_or(0, |first| first.chars().count())
        });
        let carets = "^".repeat(wanted.min(in_line).max(1));
        let shown = secret::redact_line(text);
        // Under another line the carets would stand in the wrong place.
        let carets = if shown == text {
            format!(" {indent}{carets}")
        } else {
            String::new()
        };
        let gutter = " ".repeat(line.to_string().len());
        Self(format!(
            "{message}\n{gutter}--> {name}:{line}:{column}\n{gutter} |\n{line} | {shown}\n{gutter} |{carets}\n{gutter} = help: {help}",
            message = secret::redact(message),
            name = source.name,
        ))
    }

    /// A problem with an environment variable.
    pub fn general(message: &str) -> Self {
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
    fn the_caret_stands_under_the_place() {
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
    fn a_place_past_the_end_is_no_panic() {
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
