//! Recognises texts that look like secrets, and masks them.

use std::ops::Range;

/// The text that is printed instead of a secret.
pub const MASK: &str = "***";

/// Words that end with KEY, like names of secrets, but name none.
const ORDINARY_WORDS: &[&str] = &[
    "MONKEY",
    "DONKEY",
    "TURKEY",
    "HOCKEY",
    "JOCKEY",
    "WHISKEY",
    "LACKEY",
    "HOTKEY",
    "PUBKEY",
    "PUBLICKEY",
];

/// Whether the value of a variable or key with this name is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    let words = words_of(name);
    // A variable with such a name describes a secret, but its value is not one: `PASSWORD_MIN_LENGTH`.
    let about_secrets = ["LENGTH", "ALIAS", "FILE", "PATH", "NAME"];
    let (last, before) = match &words[..] {
        [.., before, last] => (last.as_str(), before.as_str()),
        [last] => (last.as_str(), ""),
        [] => return false,
    };
    if about_secrets.contains(&last) || (last == "KEY" && matches!(before, "PUBLIC" | "PUB")) {
        return false;
    }
    if ORDINARY_WORDS.contains(&last) {
        return false;
    }
    let ends = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIALS",
        "CREDS",
    ];
    let holds = ["SECRET", "PASSWORD"];
    ends.iter().any(|end| last.ends_with(end))
        || (last == "PWD" && !before.is_empty()) // alone, it is the shell's working folder
        || words
            .iter()
            .any(|word| holds.iter().any(|held| word.ends_with(held)))
}

/// The words of a name such as `API_KEY`, `api-key` or `apiKey`, in upper case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if matches!(c, '_' | '-') || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && !matches!(c, '_' | '-')
        {
            word.extend(c.to_uppercase());
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The prefixes of keys and tokens, each with the minimum number of characters that follow it.
// OpenAI and Anthropic, Stripe, GitHub, Slack, AWS, Google, GitLab, npm, PyPI, private keys.
const KEY_PREFIXES: &[(&str, usize)] = &[
    ("sk-", 16),
    ("sk_live_", 10),
    ("rk_live_", 10),
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
    (PEM_BEGIN, 0),
];

/// The beginning of a key in PEM format. Everything up to the end of its line is masked.
const PEM_BEGIN: &str = "-----BEGIN";

/// Whether a text has the form of a secret: it contains a key with a known prefix, or a password in a URL.
pub fn looks_like_secret(text: &str) -> bool {
    find_secret(text).is_some()
}

/// Masks everything in a text that has the form of a secret.
pub fn redact(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(secret) = find_secret(&out) {
        out.replace_range(secret, MASK);
    }
    out
}

/// Masks secrets in a line of a configuration file. After a name that [`is_secret_name`] recognises, the
/// rest of the line is masked.
pub fn redact_line(line: &str) -> String {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let end = line.match_indices('=').find_map(|(at, _)| {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let name = before.rsplit(|c| !in_name(c)).next()?;
        is_secret_name(name).then_some(at + 1)
    });
    match end {
        Some(end) => format!("{} {MASK}", redact(&line[..end])),
        None => redact(line),
    }
}

/// The position of a text that has the form of a secret.
fn find_secret(text: &str) -> Option<Range<usize>> {
    KEY_PREFIXES
        .iter()
        .find_map(|(prefix, min_length)| find_key(text, prefix, *min_length))
        .or_else(|| find_url_password(text))
        .or_else(|| find_bearer_token(text))
        .or_else(|| find_connection_password(text))
}

fn find_key(text: &str, prefix: &str, min_length: usize) -> Option<Range<usize>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(prefix).find_map(|(at, _)| {
        let rest = &text[at + prefix.len()..];
        let end = if prefix == PEM_BEGIN {
            rest.find('\n')
        } else {
            rest.find(|c| !is_word(c))
        };
        let length = end.unwrap_or(rest.len());
        let found = !text[..at].ends_with(is_word) && length >= min_length;
        found.then_some(at..at + prefix.len() + length)
    })
}

/// Finds the password in `scheme://user:password@host`.
fn find_url_password(text: &str) -> Option<Range<usize>> {
    text.match_indices("://").find_map(|(at, separator)| {
        let begin = at + separator.len();
        let ends = |c: char| c.is_whitespace() || "/\"'".contains(c);
        let authority = text[begin..].split(ends).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        let found = !password.is_empty() && password != MASK;
        found.then(|| begin + name.len() + 1..begin + user.len())
    })
}

/// Finds the token in `Bearer TOKEN`. The words of a sentence, and `Bearer realm=…` of a challenge, are none.
fn find_bearer_token(text: &str) -> Option<Range<usize>> {
    text.match_indices("Bearer ").find_map(|(at, prefix)| {
        let begin = at + prefix.len();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let rest = &text[begin..];
        let length = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        let token = &rest[..length];
        let found = length >= 8 && token.contains(|c: char| c.is_ascii_digit());
        found.then_some(begin..begin + length)
    })
}

/// Finds the password in a connection string such as `Server=db;Password=…;Encrypt=yes`. It ends with its line.
fn find_connection_password(text: &str) -> Option<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    ["password=", "pwd="].iter().find_map(|name| {
        lower.match_indices(name).find_map(|(at, name)| {
            let begin = at + name.len();
            let rest = text[begin..].split(['\n', '\r']).next()?;
            let before = text[..at].trim_end_matches([' ', '\t']);
            let is_in_list = before.ends_with(';') || rest.contains(';');
            let password = rest.split(';').next()?;
            let found = is_in_list && !password.is_empty() && password != MASK;
            found.then_some(begin..begin + password.len())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_values() {
        for (text, masked) in [
            ("Server=x;Password=hunter2zz", "Server=x;Password=***"),
            ("PWD=a b;Server=x;pwd=c", "PWD=***;Server=x;pwd=***"),
            (
                "Server=x; Password=hunter2zz\nb",
                "Server=x; Password=***\nb",
            ),
            ("Bearer eyJhbGci.eyJ1.x-_1", "Bearer ***"),
            ("STRIPE=sk_live_hunter2zzz", "STRIPE=***"),
        ] {
            assert_eq!(redact(text), masked);
            assert!(looks_like_secret(text), "{text}");
        }
        for text in [
            "Bearer authentication is needed",
            "Bearer realm=\"https://r.io/token\",service=\"r.io\"",
            "the option password=VALUE",
            "PWD=/home/me",
            "PWD=/home/me\nLIST=a;b",
            "LIST=a;\nPWD=/home/me",
        ] {
            assert!(!looks_like_secret(text), "{text}");
        }
    }

    #[test]
    fn secret_names() {
        for name in [
            "OPENAI_API_KEY",
            "run.env.STIGMER_API_KEY",
            "GITHUB_TOKEN",
            "db-password",
            "APIKEY",
            "apiKey",
            "myKey",
            "STRIPEKEY",
            "mytoken",
            "KEY",
            "SECRET_KEY_BASE",
            "DB_PASSWORD_PROD",
            "SIGNING_PRIVATE_KEY",
            "GPG_PASSPHRASE",
            "DB_PWD",
            "AWS_CREDS",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "STIGMER_LLM_MODEL",
            "KEYBOARD",
            "TOKENIZER_PATH",
            "run.env.MODE",
            "MONKEY",
            "PUBLIC_KEY",
            "sshPubKey",
            "SIGNING_PUBLIC_KEY",
            "KEY_MIN_LENGTH",
            "PASSWORD_MIN_LENGTH",
            "KMS_KEY_ALIAS",
            "SECRET_FILE",
            "PWD",
            "",
            "__",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn lines_are_printed_without_their_secrets() {
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
    fn texts_that_look_like_secrets() {
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
