//! Answers of registries, and credential files.

use super::text;
use crate::{
    credentials::{config_file::ConfigFile, login::Login},
    registry::{
        address::next_page,
        authentication::{Challenge, parse_token, token_request},
        request::{Authorization, quote_for_curl},
        response::Response,
    },
};

/// A response's body is the exact end of the output. Its error text is one line that begins with the status.
pub fn answer(input: &[u8]) {
    let text = text(input);
    if let Some(response) = Response::parse(&text) {
        assert!(text.starts_with("HTTP/") && text.ends_with(&response.body));
        assert!(text.contains(&response.status.to_string()) || response.status == 0);
        let message = response.error_text();
        assert!(message.starts_with(&format!("status {}", response.status)));
        assert!(!message.contains(char::is_control), "{message:?}");
        for name in ["location", "LINK", "Www-Authenticate"] {
            let value = response.header(name);
            assert!(value.is_none_or(|value| !value.contains('\n')));
            assert_eq!(value, response.header(&name.to_lowercase()));
        }
    }
    let whole = format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{text}");
    if !text.starts_with("HTTP/") {
        let response = Response::parse(&whole).unwrap();
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, text.as_ref())
        );
    }
}

/// Tokens are requested only from HTTP URLs. A registry's answer never becomes an option of curl or the name
/// of a file.
pub fn challenge(input: &[u8]) {
    let text = text(input);
    if let Some(Challenge::Bearer { realm, service }) = Challenge::parse(&text) {
        assert_http_url(&realm);
        let request = token_request(&realm, &service, "a/b", None);
        assert_http_url(&request.url);
        assert!(request.url.starts_with(&realm));
    }
    if let Some(authorization) = parse_token(&text) {
        let Authorization::Header(value) = authorization else {
            panic!("a token is a header's value")
        };
        assert!(value.starts_with("Bearer ") && !value.contains(['\r', '\n']));
    }
}

#[track_caller]
fn assert_http_url(url: &str) {
    assert!(
        url.starts_with("https://") || url.starts_with("http://"),
        "{url:?}"
    );
    let bad = |c: char| c.is_whitespace() || c.is_control();
    assert!(!url.contains(bad), "{url:?}");
}

/// A login in a credential file is not empty, and belongs to the requested registry.
pub fn login(input: &[u8]) {
    let Ok(file) = ConfigFile::parse(input) else {
        return;
    };
    for (registry, path) in [("ghcr.io", "stigmer/agent-runner"), ("docker.io", "a/b")] {
        match file.login(registry, path) {
            Some(Login::EncodedPassword(text) | Login::IdentityToken(text)) => {
                assert!(!text.is_empty());
            }
            Some(Login::Password { user, password }) => {
                assert!(!user.is_empty() && !password.is_empty());
            }
            None => {}
        }
    }
    // An escape sequence can also encode the name.
    if !input.contains(&b'\\') && !text(input).contains("other.example.com") {
        assert_eq!(file.login("other.example.com", ""), None);
    }
}

/// The next page is a path or an HTTP URL.
pub fn page(input: &[u8]) {
    let text = text(input);
    if let Some(page) = next_page(&text) {
        assert!(text.contains(page) && text.contains("next"));
        assert!(
            page.starts_with('/') || page.starts_with("http"),
            "{page:?}"
        );
        let bad = |c: char| c.is_whitespace() || c.is_control();
        assert!(!page.contains(bad), "{page:?}");
    }
}

/// A quoted text is one line for curl, which reads it as the same text. A line of a secret cannot become an
/// option. <https://curl.se/docs/manpage.html#-K>
pub fn curl_config(input: &[u8]) {
    let text = text(input);
    let line = quote_for_curl(&text);
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    let inner = line
        .strip_prefix('"')
        .and_then(|line| line.strip_suffix('"'));
    let mut chars = inner.expect("quotes").chars();
    let mut read = String::new();
    while let Some(c) = chars.next() {
        assert_ne!(c, '"', "the quotes end early");
        read.push(match c {
            '\\' => match chars.next().expect("what is escaped") {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                other => other,
            },
            c => c,
        });
    }
    assert_eq!(read, text);
}
