//! What a registry's refusal means, and what to do about it.

use super::{
    response::{NoResponse, Response},
    retry::cannot_resolve,
};
use crate::{
    base::{error::Failure, image::human_bytes},
    catalogue,
    credentials::{environment::GITHUB_REGISTRY, found::Found, login::Credentials},
};

/// What was refused, as a verb to be followed by a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    SignIn,
    Read,
    ListTags,
    Push,
    /// Of a size in bytes.
    PushBlob(u64),
    /// Of a media type.
    PushManifest(&'a str),
}

impl Action<'_> {
    fn verb(self) -> &'static str {
        match self {
            Self::SignIn => "sign in to",
            Self::Read => "read",
            Self::ListTags => "list the tags of",
            Self::Push | Self::PushBlob(_) | Self::PushManifest(_) => "push to",
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
    // Without a login, 401 says nothing more.
    let refused = if response.status == 401 {
        repository.clone()
    } else {
        format!("{repository} ({why})")
    };
    match (response.status, &login.credentials, action) {
        // Artifact Registry gives a token to everybody, and then answers 403.
        (401, None, _)
        | (
            403,
            None,
            Action::SignIn | Action::Push | Action::PushBlob(_) | Action::PushManifest(_),
        ) => Failure::new(login.not_signed_in(registry, verb, &refused))
        .hints(login.fixes())
        .hint(format!("sign in: `{}`", login.sign_in))
        .hint(login.in_ci)
        .hint(catalogue::explain_hint(if login.problems.is_empty() {
            "not-signed-in"
        } else {
            "login-unreadable"
        })),
        (401, Some(Credentials { source, .. }), _) => Failure::new(format!(
            "{registry} rejects the credentials from {source}: {why}"
        ))
        .hint(login.renewal())
        .hint(catalogue::explain_hint("token-refused")),
        (403, found, _) => {
            let login = found.as_ref().map(|it| format!(" with the login from {}", it.source));
            let login = login.unwrap_or_default();
            let message = format!("you may not {verb} {repository}{login}: {why}");
            match action {
                Action::Read | Action::ListTags => Failure::new(message)
                    .hint("ask the repository's owner for the right to read it, or sign in as somebody who may: `cargo xtask docker-login`"),
                Action::SignIn | Action::Push | Action::PushBlob(_) | Action::PushManifest(_) => {
                    forbidden(registry, &message)
                }
            }
        }
        (404, ..) if response.error_code() == "NAME_UNKNOWN" => {
            Failure::new(format!("{registry} has no repository `{repository_path}`: {why}"))
                .hints(catalogue::hints_for_code("repository-missing"))
        }
        (413, _, Action::PushBlob(size)) => Failure::new(format!(
            "{registry} does not accept an upload of {}: {why}",
            human_bytes(size)
        ))
        .hints(catalogue::hints_for_code("upload-too-large")),
        (429, ..) => Failure::new(format!("too many requests to {registry}: {why}"))
            .hint("wait a few minutes, then run the same command again: it continues where it stopped")
            .hint(catalogue::explain_hint("too-many-requests")),
        (500.., ..) => {
            Failure::new(format!("{registry} fails: {why}")).hints(catalogue::hints_for_code("registry-fails"))
        }
        (_, _, Action::PushManifest(media_type))
            if media_type.contains("docker") && is_about_media_type(response) =>
        {
            Failure::new(format!(
                "{registry} does not accept manifests of the type `{media_type}`: {why}"
            ))
            .hints(catalogue::hints_for_code("docker-media-types"))
        }
        _ => Failure::new(format!("cannot {verb} {repository}: {why}")),
    }
}

fn is_about_media_type(response: &Response) -> bool {
    let code = response.error_code();
    response.status == 415 || matches!(code.as_str(), "MANIFEST_INVALID" | "UNSUPPORTED")
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

/// The failure of a request to a host that got no response.
pub fn no_response(host: &str, why: NoResponse) -> Failure {
    let unreachable = |why: &str| Failure::new(format!("{host} cannot be reached: {why}"));
    match why {
        NoResponse::Network(why) => {
            unreachable(&why).hints(catalogue::hints_for_code("registry-unreachable"))
        }
        NoResponse::UnknownHost(name) => unreachable(&cannot_resolve(&name))
            .hints(catalogue::hints_for_code("registry-unreachable")),
        NoResponse::Certificate(why) => unreachable(&why)
            .hint(format!("trust its authority: copy the CA's certificate to `/etc/docker/certs.d/{host}/ca.crt` or `~/.config/containers/certs.d/{host}/ca.crt`"))
            .hint("behind a proxy with a CA of its own: name a file with all authorities to trust, `SSL_CERT_FILE=/path/to/ca.pem` in front of the command")
            .hint(catalogue::explain_hint("proxy-ca")),
        NoResponse::NoTls => unreachable("it does not speak TLS").hint(format!(
            "if that is intended, set `registry.insecure = [\"{host}\"]` in xtask.local.toml"
        )),
        NoResponse::Proxy { address, why, .. } => Failure::new(format!(
            "{host} cannot be reached through the proxy {address}: {why}"
        ))
        .hint(format!(
            "correct HTTPS_PROXY (or HTTP_PROXY), or reach {host} directly: add it to NO_PROXY"
        )),
        NoResponse::Request(why) => {
            Failure::new(format!("a request to {host} cannot be made: {why}"))
        }
        NoResponse::Content(why) => Failure::new(format!("cannot read what is uploaded: {why}")),
        NoResponse::Interrupted(signal) => Failure::signal(signal),
    }
}
