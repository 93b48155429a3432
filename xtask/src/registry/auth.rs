//! What a registry wants to see before it answers.

use serde_json::Value;

use super::http::{Auth, Body, Request};

/// What a registry wants to see, from the `WWW-Authenticate` header of its refusal.
/// <https://distribution.github.io/distribution/spec/auth/token/>
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token that another address gives out.
    Token {
        realm: String,
        service: String,
    },
}

impl Challenge {
    pub fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| {
            let (_, rest) = rest.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        scheme.eq_ignore_ascii_case("bearer").then_some(())?;
        Some(Self::Token {
            realm: value("realm").filter(|realm| is_address(realm))?,
            service: value("service").unwrap_or_default(),
        })
    }
}

/// Whether a registry's word is an address of the web: curl would also take it for an option, or for
/// a file of this machine.
pub fn is_address(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
        && !text.contains(bad)
}

/// Asks for a token that may pull and push.
pub fn token_request(realm: &str, service: &str, path: &str, auth: Auth) -> Request {
    let scope = format!("repository:{path}:pull,push");
    if let Auth::Identity(token) = auth {
        let mut request = Request::new("POST", realm);
        request.body = Body::Form(vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", "agent-runner-xtask".to_owned()),
            ("service", service.to_owned()),
            ("scope", scope),
            ("refresh_token", token),
        ]);
        return request;
    }
    let mark = if realm.contains('?') { '&' } else { '?' };
    let (service, scope) = (percent_encoded(service), percent_encoded(&scope));
    let mut request = Request::new(
        "GET",
        format!("{realm}{mark}service={service}&scope={scope}"),
    );
    request.auth = auth;
    request
}

/// A value as a part of an address. <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
fn percent_encoded(text: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    text.bytes().fold(String::new(), |out, c| {
        if plain(c) {
            out + &char::from(c).to_string()
        } else {
            out + &format!("%{c:02X}")
        }
    })
}

/// The token in the answer.
pub fn read_token(body: &str) -> Option<Auth> {
    let said: Value = serde_json::from_str(body).ok()?;
    let token = said["token"].as_str().or(said["access_token"].as_str())?;
    // It becomes a header's value.
    (!token.contains(char::is_control)).then_some(())?;
    Some(Auth::Header(format!("Bearer {token}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(
            Challenge::read(
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull""#
            ),
            Some(Challenge::Token {
                realm: "https://ghcr.io/token".into(),
                service: "ghcr.io".into()
            })
        );
        assert_eq!(
            Challenge::read(r#"Basic realm="x""#),
            Some(Challenge::Basic)
        );
        assert_eq!(Challenge::read("Negotiate"), None);
        let request = token_request("https://ghcr.io/token", "ghcr.io", "a/b", Auth::Nobody);
        assert_eq!(
            request.url,
            "https://ghcr.io/token?service=ghcr.io&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }

    #[test]
    fn an_identity_token_is_exchanged_in_secret() {
        let found = Auth::Identity("marked&token".into());
        let request = token_request("https://r.io/token", "r.io", "a/b", found);
        let cmd = request.cmd();
        assert!(!format!("{:?}", cmd.args).contains("marked"), "{cmd:?}");
        assert!(!format!("{:?}", request.auth).contains("marked"));
        let asked = cmd.stdin.unwrap().secret;
        assert!(asked.contains("data-urlencode = \"grant_type=refresh_token\"\n"));
        assert!(asked.contains("data-urlencode = \"scope=repository:a/b:pull,push\"\n"));
        assert!(asked.contains("data-urlencode = \"refresh_token=marked&token\"\n"));
        assert!(!asked.contains("user ="), "{asked}");
    }
}
