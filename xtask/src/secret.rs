//! What looks like a secret, and what is shown in its place.

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

/// Whether a text looks like a secret by its form: the prefixes by which providers mark
/// their keys, or a password within an address.
pub fn looks_like_secret(text: &str) -> bool {
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
        ("-----BEGIN", 0),
    ];
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let marked = MARKS.iter().any(|(mark, more)| {
        text.match_indices(mark).any(|(at, _)| {
            let fresh = !text[..at].ends_with(is_word);
            fresh
                && text[at + mark.len()..]
                    .chars()
                    .take_while(|&c| is_word(c))
                    .count()
                    >= *more
        })
    });
    marked || has_url_password(text)
}

/// `scheme://user:password@host`
fn has_url_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let authority = rest.split(['/', ' ', '"', '\'']).next().unwrap_or(rest);
        authority.rsplit_once('@').is_some_and(|(user, _)| {
            user.split_once(':')
                .is_some_and(|(_, password)| !password.is_empty())
        })
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
