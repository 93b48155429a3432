//! What a registry answers, and the files of those who sign in.

use super::text;
use crate::{
    credentials::{config_file::ConfigFile, login::Login},
    registry::{
        auth::{self, Challenge},
        http::{Answer, Auth, quoted},
        next_page,
    },
};

/// An answer's body is the end of what was read, byte by byte, and its complaint is one line that
/// says the status.
pub fn answer(input: &[u8]) {
    let text = text(input);
    if let Some(answer) = Answer::read(&text) {
        assert!(text.starts_with("HTTP/") && text.ends_with(&answer.body));
        assert!(text.contains(&answer.status.to_string()) || answer.status == 0);
        let complaint = answer.complaint();
        assert!(complaint.starts_with(&format!("status {}", answer.status)));
        assert!(!complaint.contains(char::is_control), "{complaint:?}");
        for name in ["location", "LINK", "Www-Authenticate"] {
            let value = answer.header(name);
            assert!(value.is_none_or(|value| !value.contains('\n')));
            assert_eq!(value, answer.header(&name.to_lowercase()));
        }
    }
    let whole = format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{text}");
    if !text.starts_with("HTTP/") {
        let answer = Answer::read(&whole).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, text.as_ref()));
    }
}

/// Only the web is asked for tokens: what a registry says is never an option of curl's, nor a file
/// of this machine.
pub fn challenge(input: &[u8]) {
    let text = text(input);
    if let Some(Challenge::Token { realm, service }) = Challenge::read(&text) {
        is_address(&realm);
        let request = auth::token_request(&realm, &service, "a/b", Auth::Nobody);
        is_address(&request.url);
        assert!(request.url.starts_with(&realm));
    }
    if let Some(auth) = auth::read_token(&text) {
        let Auth::Header(value) = auth else {
            panic!("a token is a header's value")
        };
        assert!(value.starts_with("Bearer ") && !value.contains(['\r', '\n']));
    }
}

#[track_caller]
fn is_address(url: &str) {
    assert!(
        url.starts_with("https://") || url.starts_with("http://"),
        "{url:?}"
    );
    let bad = |c: char| c.is_whitespace() || c.is_control();
    assert!(!url.contains(bad), "{url:?}");
}

/// A login in a credential file is never empty, and is found for its own registry only.
pub fn login(input: &[u8]) {
    let Some(file) = ConfigFile::parse(input) else {
        return;
    };
    for (registry, path) in [("ghcr.io", "stigmer/agent-runner"), ("docker.io", "a/b")] {
        match file.login(registry, path) {
            Some(Login::EncodedPassword(text) | Login::IdentityToken(text)) => {
                assert!(!text.is_empty());
            }
            Some(other @ Login::Password { .. }) => panic!("{other:?}"),
            None => {}
        }
    }
    // An escape could spell the name in another way.
    if !input.contains(&b'\\') && !text(input).contains("other.example.com") {
        assert_eq!(file.login("other.example.com", ""), None);
    }
}

/// The next page is at a place of a registry's.
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

/// A text is one line for curl, in quotes, and reads back by its rules: no line of a secret is an
/// option. <https://curl.se/docs/manpage.html#-K>
pub fn curl_config(input: &[u8]) {
    let text = text(input);
    let line = quoted(&text);
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
