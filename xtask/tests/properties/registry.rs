//! Answers of registries, and credential files.

use super::text;
use crate::{
    credentials::{config_file::ConfigFile, login::Login},
    registry::{
        address::{Origin, next_link, resolve},
        authentication::{Access, Challenge, parse_token, token_request},
        request::Authorization,
        response::Response,
    },
};

/// The error text of any answer is one line that begins with the status.
pub fn answer(input: &[u8]) {
    let response = Response {
        status: 403,
        body: input.to_vec(),
        ..Response::default()
    };
    let message = response.error_text();
    assert!(message.starts_with("status 403"));
    assert!(!message.contains(char::is_control), "{message:?}");
}

/// Tokens are requested only from HTTP URLs. A token is one line of a header.
pub fn challenge(input: &[u8]) {
    let text = text(input);
    if let Some(Challenge::Bearer { realm, service }) = Challenge::parse(&text) {
        assert_http_url(&realm);
        let request = token_request(&realm, &service, "a/b", Access::Push, None, None);
        assert_http_url(&request.url);
        assert!(request.url.starts_with(&realm));
    }
    if let Some(Authorization(value)) = parse_token(input) {
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
            // It becomes a part of a header.
            Ok(Some(Login::EncodedPassword(text))) => {
                assert!(!text.is_empty() && !text.contains(char::is_control));
            }
            Ok(Some(Login::IdentityToken(text))) => assert!(!text.is_empty()),
            Ok(Some(Login::Password { user, password })) => {
                assert!(!user.is_empty() && !password.is_empty());
            }
            Ok(None) | Err(_) => {}
        }
    }
    // An escape sequence can also encode the name.
    if !input.contains(&b'\\') && !text(input).contains("other.example.com") {
        assert_eq!(file.login("other.example.com", ""), Ok(None));
    }
}

/// The next page is an HTTP URL.
pub fn page(input: &[u8]) {
    let text = text(input);
    if let Ok(Some(link)) = next_link([text.as_ref()]) {
        assert!(text.contains(link) && text.to_lowercase().contains("next"));
        if let Some(page) = resolve("https://r.io/v2/a/tags/list", link) {
            assert_http_url(&page);
        }
    }
}

/// An address from a registry is used only as an HTTP URL.
pub fn location(input: &[u8]) {
    for base in ["https://r.io:5000/v2/a/", "http://127.0.0.1/v2/a/?b=c"] {
        if let Some(url) = resolve(base, &text(input)) {
            assert_http_url(&url);
            assert!(
                !base.starts_with("https://")
                    || url.starts_with("https://")
                    || Origin::of(&url) != Origin::of("http://r.io:5000")
            );
        }
    }
}
