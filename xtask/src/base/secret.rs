//! What looks like a secret, and what is shown in its place.

use std::ops::Range;

/// What is printed for a secret.
pub const MASK: &str = "***";

/// Whether a variable's or key's name says that its value is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name
        .rsplit('.')
        .next()
        .unwrap_or(name)
        .to_uppercase()
        .replace('-', "_");
    let ends = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIALS",
    ];
    ends.iter().any(|end| name.ends_with(end))
        || name.contains("SECRET_")
        || name.contains("PASSWORD_")
}

/// The prefixes by which providers mark their keys, and how many characters are behind it at least.
// OpenAI and Anthropic, GitHub, Slack, AWS, Google, GitLab, npm, PyPI, private keys.
const MARKS: &[(&str, usize)] = &[
    ("sk-", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("github_pat_", 20),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("AKIA", 16),
    ("AIza", 30),
    ("glpat-", 16),
    ("npm_", 30),
    ("pypi-", 30),
    (PEM, 0),
];

/// How a key begins in a file. It goes on to the end of its line at least.
const PEM: &str = "-----BEGIN";

/// Whether a text looks like a secret by its form: the prefixes by which providers mark
/// their keys, or a password within an address.
pub fn looks_like_secret(text: &str) -> bool {
    find(text).is_some()
}

/// The text with `***` for all in it that looks like a secret.
pub fn redact(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(secret) = find(&out) {
        out.replace_range(secret, MASK);
    }
    out
}

/// A line of a configuration, to be shown: without what looks like a secret, and without what is
/// given a name that says so, to the line's end.
pub fn redact_line(line: &str) -> String {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let end = line.match_indices('=').find_map(|(at, _)| {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let name = before.rsplit(|c| !of_name(c)).next()?;
        is_secret_name(name).then_some(at + 1)
    });
    match end {
        Some(end) => format!("{} {MASK}", redact(&line[..end])),
        None => redact(line),
    }
}

/// Where the first thing is that looks like a secret.
fn find(text: &str) -> Option<Range<usize>> {
    MARKS
        .iter()
        .find_map(|(mark, more)| find_marked(text, mark, *more))
        .or_else(|| find_url_password(text))
}

fn find_marked(text: &str, mark: &str, more: usize) -> Option<Range<usize>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(mark).find_map(|(at, _)| {
        let rest = &text[at + mark.len()..];
        let word = if mark == PEM {
            rest.find('\n')
        } else {
            rest.find(|c| !is_word(c))
        };
        let word = word.unwrap_or(rest.len());
        let found = !text[..at].ends_with(is_word) && word >= more;
        found.then_some(at..at + mark.len() + word)
    })
}

/// `scheme://user:password@host`
fn find_url_password(text: &str) -> Option<Range<usize>> {
    text.match_indices("://").find_map(|(at, mark)| {
        let begin = at + mark.len();
        let ends = |c: char| c.is_whitespace() || "/\"'".contains(c);
        let authority = text[begin..].split(ends).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        let found = !password.is_empty() && password != MASK;
        found.then(|| begin + name.len() + 1..begin + user.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [
            "OPENAI_API_KEY",
            "run.env.STIGMER_API_KEY",
            "GITHUB_TOKEN",
            "db-password",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "STIGMER_LLM_MODEL",
            "KEYBOARD",
            "TOKENIZER_PATH",
            "run.env.MODE",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn lines_are_shown_without_their_secrets() {
        for (line, shown) in [
            ("API_KEY = \"hunter2\" oops", "API_KEY = ***"),
            (
                "env = { A = 1, \"MY_TOKEN\" = 'x' }",
                "env = { A = 1, \"MY_TOKEN\" = ***",
            ),
            (
                "proxy = \"http://me:pw@box:1\"",
                "proxy = \"http://me:***@box:1\"",
            ),
            ("key sk-abcdefghijklmnop1234, and more", "key ***, and more"),
            ("container = \"a\"", "container = \"a\""),
        ] {
            assert_eq!(redact_line(line), shown);
        }
    }

    #[test]
    fn forms() {
        for text in [
            "sk-abcdefghijklmnop1234",
            "KEY=ghp_abcdefghijklmnopqrst",
            "http://me:pw@proxy:3128",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(looks_like_secret(text), "{text}");
        }
        for text in [
            "task-queue",
            "risk-assessment-of-long-things",
            "http://localhost:7234",
            "sk-1",
        ] {
            assert!(!looks_like_secret(text), "{text}");
        }
    }
}
