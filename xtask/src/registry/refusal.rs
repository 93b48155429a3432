//! What a registry's refusal means, and what to do about it.

use super::response::{NoResponse, Response};
use crate::{
    base::error::Failure,
    catalogue,
    credentials::{environment::GITHUB_REGISTRY, found::Found, login::Credentials},
};

/// What was refused, as a verb to be followed by a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    SignIn,
    Read,
    ListTags,
    Push,
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::SignIn => "sign in to",
            Self::Read => "read",
            Self::ListTags => "list the tags of",
            Self::Push => "push to",
        }
    }
}

/// The failure of a request that the registry refused.
pub fn refused(
    registry: &str,
    repository_path: &str,
    login: &Found,
    action: Action,
    response: &Response,
) -> Failure {
    let repository = format!("{registry}/{repository_path}");
    let verb = action.verb();
    let why = response.error_text();
    match (response.status, &login.credentials) {
        (401, None) => Failure::new(login.not_signed_in(registry, verb, &repository))
        .hints(login.fixes())
        .hint(format!("sign in: `{}`", login.sign_in))
        .hint(login.in_ci)
        .hint(catalogue::explain_hint(if login.problems.is_empty() {
            "not-signed-in"
        } else {
            "login-unreadable"
        })),
        (401, Some(Credentials { source, .. })) => Failure::new(format!(
            "{registry} rejects the credentials from {source}: {why}"
        ))
        .hint(login.renewal())
        .hint(catalogue::explain_hint("token-refused")),
        (403, found) => {
            let login = found.as_ref().map(|it| format!(" with the login from {}", it.source));
            let login = login.unwrap_or_default();
            forbidden(registry, &format!("you may not {verb} {repository}{login}: {why}"))
        }
        (429, _) => Failure::new(format!("too many requests to {registry}: {why}"))
            .hint("wait a few minutes, then run the same command again: it continues where it stopped")
            .hint(catalogue::explain_hint("too-many-requests")),
        (500.., _) => {
            Failure::new(format!("{registry} fails: {why}")).hints(catalogue::hints_for_code("registry-fails"))
        }
        _ => Failure::new(format!("cannot {verb} {repository}: {why}")),
    }
}

fn forbidden(registry: &str, message: &str) -> Failure {
    let failure = Failure::new(message);
    let failure = if registry == GITHUB_REGISTRY {
        failure
            .hint("get a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`")
            .hint("in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access)")
    } else {
        failure.hint("ask the repository's owner for the right to push, or set `image.repository` to one of yours")
    };
    failure.hint(catalogue::explain_hint("push-denied"))
}

/// The failure of a request that got no response.
pub fn no_response(registry: &str, why: NoResponse) -> Failure {
    match why {
        NoResponse::Network(why) if why.contains("certificate") => {
            Failure::new(format!("{registry} cannot be reached: {why}"))
                .hint("add the CA of that certificate to those that this machine trusts, or name a bundle: `CURL_CA_BUNDLE=/path/to/ca.pem` in front of the command")
                .hint(catalogue::explain_hint("proxy-ca"))
        }
        NoResponse::Network(why) => Failure::new(format!("{registry} cannot be reached: {why}"))
            .hints(catalogue::hints_for_code("registry-unreachable")),
        NoResponse::CurlMissing => {
            Failure::new(format!("{registry} cannot be reached: curl is not installed"))
                .hints(catalogue::hints_for_code("curl-missing"))
        }
        NoResponse::Interrupted(signal) => Failure::signal(signal),
    }
}
