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
    /// `None` if the header is malformed, or asks for something else.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| {
            let (_, rest) = rest.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        scheme.eq_ignore_ascii_case("bearer").then_some(())?;
        Some(Self::Bearer {
            realm: value("realm").filter(|realm| is_http_url(realm))?,
            service: value("service").unwrap_or_default(),
        })
    }
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
