//! Proving to a registry who we are.
//! <https://distribution.github.io/distribution/spec/auth/token/>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    address::{is_http_url, with_parameter},
    request::{Authorization, Body, Form, Request},
};
use crate::credentials::login::Login;

/// The name by which token servers know this program.
const CLIENT_ID: &str = "agent-runner-xtask";

/// How a registry wants us to authenticate: the `WWW-Authenticate` header of its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With user and password.
    Basic,
    /// With a token from the token server at `realm`.
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// What the headers ask for. A token is preferred: it can be had without a login too.
    pub fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found: Vec<_> = headers.filter_map(Self::parse).collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.into_iter().next()
    }

    /// `None` if the header is malformed, or asks for something else.
    /// <https://www.rfc-editor.org/rfc/rfc9110#name-www-authenticate>
    pub fn parse(header: &str) -> Option<Self> {
        let lower = header.to_ascii_lowercase();
        let is_start = |at: usize| at == 0 || header[..at].trim_end().ends_with(',');
        let after = |scheme: &str| {
            let mut places = lower.match_indices(scheme);
            let (at, _) = places.find(|(at, _)| is_start(*at))?;
            Some(&header[at + scheme.len()..])
        };
        if let Some(parameters) = after("bearer ") {
            return Some(Self::Bearer {
                realm: parameter(parameters, "realm").filter(|realm| is_http_url(realm))?,
                service: parameter(parameters, "service").unwrap_or_default(),
            });
        }
        after("basic").map(|_| Self::Basic)
    }
}

/// The value of `name=value` or `name="value"`.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let lower = parameters.to_ascii_lowercase();
    let mut places = lower.match_indices(name);
    let value = places.find_map(|(at, _)| {
        let is_start = at == 0 || parameters[..at].ends_with([' ', ',', '\t']);
        let rest = parameters[at + name.len()..].trim_start();
        rest.strip_prefix('=').filter(|_| is_start)
    })?;
    let value = value.trim_start();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?.0,
        None => value.split([',', ' ']).next()?,
    };
    Some(value.to_owned())
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// Asks a token server for a token for a repository, and for reading the related one.
pub fn token_request(
    realm: &str,
    service: &str,
    repository_path: &str,
    access: Access,
    related: Option<&str>,
    login: Option<&Login>,
) -> Request<'static> {
    let actions = match access {
        Access::Pull => "pull",
        Access::Push => "pull,push",
    };
    let mut scopes = vec![format!("repository:{repository_path}:{actions}")];
    scopes.extend(related.map(|path| format!("repository:{path}:pull")));
    if let Some(Login::IdentityToken(token)) = login {
        // https://distribution.github.io/distribution/spec/auth/oauth/
        let mut request = Request::new("POST", realm);
        request.body = Body::Form(Form(vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("service", service.to_owned()),
            ("scope", scopes.join(" ")),
            ("refresh_token", token.clone()),
        ]));
        return request;
    }
    let url = with_parameter(realm, "service", service);
    let url = scopes
        .iter()
        .fold(url, |url, scope| with_parameter(&url, "scope", scope));
    let mut request = Request::new("GET", url);
    request.authorization = login.and_then(basic);
    request
}

/// HTTP's basic authentication. An identity token cannot be used as a password.
pub fn basic(login: &Login) -> Option<Authorization> {
    let encoded = match login {
        Login::Password { user, password } => BASE64_STANDARD.encode(format!("{user}:{password}")),
        Login::EncodedPassword(encoded) => encoded.clone(),
        Login::IdentityToken(_) => return None,
    };
    Some(Authorization(format!("Basic {encoded}")))
}

/// The token in a token server's response.
pub fn parse_token(body: &[u8]) -> Option<Authorization> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let token = body["token"].as_str().or(body["access_token"].as_str())?;
    // It becomes a part of a header.
    (!token.contains(char::is_control)).then_some(())?;
    Some(Authorization(format!("Bearer {token}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let header =
            r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull""#;
        let bearer = Challenge::Bearer {
            realm: "https://ghcr.io/token".into(),
            service: "ghcr.io".into(),
        };
        assert_eq!(Challenge::parse(header), Some(bearer));
        assert_eq!(
            Challenge::parse(r#"Basic realm="x""#),
            Some(Challenge::Basic)
        );
        assert_eq!(Challenge::parse("Negotiate"), None);
        let plain = Some(Challenge::Bearer {
            realm: "http://t/x".into(),
            service: "s".into(),
        });
        for header in [
            "Negotiate, Bearer realm=\"http://t/x\", service=s",
            "bearer Realm = \"http://t/x\",service=\"s\"",
            "Bearer service=s,realm=http://t/x",
        ] {
            assert_eq!(Challenge::parse(header), plain, "{header}");
        }
        let both = ["Basic realm=\"x\"", "Bearer realm=http://t/x,service=s"];
        assert_eq!(Challenge::of(both.into_iter()), plain);
        assert_eq!(Challenge::parse(r#"Bearer realm="--output""#), None);
    }

    #[test]
    fn a_token_is_asked_for_what_is_needed() {
        let url = |access, related| {
            let realm = "https://ghcr.io/token";
            let request = token_request(realm, "ghcr.io", "a/b", access, related, None);
            assert_eq!(request.authorization, None);
            request.url
        };
        let begin = "https://ghcr.io/token?service=ghcr.io&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(url(Access::Pull, None), begin);
        assert_eq!(
            url(Access::Push, Some("c")),
            format!("{begin}%2Cpush&scope=repository%3Ac%3Apull")
        );
    }

    #[test]
    fn a_password_is_encoded() {
        let login = Login::Password {
            user: "me".into(),
            password: "a:b".into(),
        };
        assert_eq!(
            basic(&login),
            Some(Authorization("Basic bWU6YTpi".to_owned()))
        );
    }

    #[test]
    fn an_identity_token_is_sent_in_the_form() {
        let login = Login::IdentityToken("marked&token".into());
        assert_eq!(basic(&login), None);
        let realm = "https://r.io/token";
        let request = token_request(realm, "r.io", "a/b", Access::Push, None, Some(&login));
        assert!(!format!("{request:?}").contains("marked"), "{request:?}");
        assert_eq!(request.url, realm);
        let Body::Form(form) = request.body else {
            panic!("{request:?}")
        };
        let form = form.encode();
        assert!(form.starts_with("grant_type=refresh_token&"), "{form}");
        assert!(form.contains("&scope=repository%3Aa%2Fb%3Apull%2Cpush&"));
        assert!(form.ends_with("&refresh_token=marked%26token"), "{form}");
    }
}
