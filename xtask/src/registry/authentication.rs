//! Proving to a registry who we are.
//! <https://distribution.github.io/distribution/spec/auth/token/>

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

/// Asks a token server for a token that may pull from a repository and push to it.
pub fn token_request(
    realm: &str,
    service: &str,
    repository_path: &str,
    login: Option<&Login>,
) -> Request {
    let scope = format!("repository:{repository_path}:pull,push");
    if let Some(Login::IdentityToken(token)) = login {
        // https://distribution.github.io/distribution/spec/auth/oauth/
        let mut request = Request::new("POST", realm);
        request.body = Body::Form(Form(vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("service", service.to_owned()),
            ("scope", scope),
            ("refresh_token", token.clone()),
        ]));
        return request;
    }
    let url = with_parameter(realm, "service", service);
    let mut request = Request::new("GET", with_parameter(&url, "scope", &scope));
    request.authorization = login.map_or(Authorization::None, basic);
    request
}

/// HTTP's basic authentication. An identity token cannot be used as a password.
pub fn basic(login: &Login) -> Authorization {
    match login {
        Login::Password { user, password } => Authorization::Basic {
            user: user.clone(),
            password: password.clone(),
        },
        Login::EncodedPassword(encoded) => Authorization::Header(format!("Basic {encoded}")),
        Login::IdentityToken(_) => Authorization::None,
    }
}

/// The token in a token server's response.
pub fn parse_token(body: &str) -> Option<Authorization> {
    let body: Value = serde_json::from_str(body).ok()?;
    let token = body["token"].as_str().or(body["access_token"].as_str())?;
    // It becomes a part of a header.
    (!token.contains(char::is_control)).then_some(())?;
    Some(Authorization::Header(format!("Bearer {token}")))
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
    fn a_token_is_asked_for_one_repository() {
        let request = token_request("https://ghcr.io/token", "ghcr.io", "a/b", None);
        assert_eq!(
            request.url,
            "https://ghcr.io/token?service=ghcr.io&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
        assert_eq!(request.authorization, Authorization::None);
    }

    #[test]
    fn an_identity_token_is_sent_in_the_form_and_is_no_argument() {
        let login = Login::IdentityToken("marked&token".into());
        assert_eq!(basic(&login), Authorization::None);
        let request = token_request("https://r.io/token", "r.io", "a/b", Some(&login));
        let cmd = request.cmd();
        assert!(!format!("{:?}", cmd.args).contains("marked"), "{cmd:?}");
        assert!(!format!("{request:?}").contains("marked"), "{request:?}");
        let config = cmd.stdin.unwrap().secret;
        assert!(config.contains("data-urlencode = \"grant_type=refresh_token\"\n"));
        assert!(config.contains("data-urlencode = \"scope=repository:a/b:pull,push\"\n"));
        assert!(config.contains("data-urlencode = \"refresh_token=marked&token\"\n"));
        assert!(!config.contains("user ="), "{config}");
    }
}
