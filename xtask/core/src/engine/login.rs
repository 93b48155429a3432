//! The commands that sign in to a registry and out of it, and the meaning of its errors.

use crate::{
    base::engine_kind::EngineKind,
    engine::Engine,
    plan::{Cmd, Stdin},
};

/// Why signing in failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The registry rejects the user name or the token.
    InvalidToken,
    /// The registry's address does not answer, or its host name is unknown.
    Unreachable,
    /// The registry uses plain HTTP, but the engine requires TLS.
    PlainHttp,
    /// The engine does not trust the registry's certificate.
    UntrustedCertificate,
    /// The credential helper failed.
    CredentialHelper,
}

impl Engine {
    /// Signs in. The engine reads the token from standard input. Docker takes from its daemon's
    /// configuration whether a registry is insecure.
    pub fn login(&self, registry: &str, user: &str, token: Stdin, is_insecure: bool) -> Cmd {
        let mut cmd = self.cmd().arg("login");
        match self.kind {
            EngineKind::Podman if is_insecure => cmd = cmd.arg("--tls-verify=false"),
            EngineKind::Podman | EngineKind::Docker => {}
        }
        cmd = cmd.args(["--username", user, "--password-stdin", registry]);
        cmd.stdin = Some(token);
        cmd
    }

    /// Removes the login that the engine keeps for a registry. Podman fails if it keeps none.
    pub fn logout(&self, registry: &str) -> Cmd {
        self.cmd().args(["logout", registry])
    }

    /// The hint that explains how to permit plain HTTP for a registry.
    pub fn allow_plain_http(&self, registry: &str) -> String {
        match self.kind {
            EngineKind::Docker => format!(
                "permit plain HTTP: add `{{\"insecure-registries\": [\"{registry}\"]}}` to /etc/docker/daemon.json and restart Docker"
            ),
            EngineKind::Podman => format!(
                "permit plain HTTP: add `[[registry]]`, `location = \"{registry}\"`, `insecure = true` to a file in /etc/containers/registries.conf.d/"
            ),
        }
    }
}

impl LoginFailure {
    #[cfg(test)]
    pub const ALL: [Self; 5] = [
        Self::InvalidToken,
        Self::Unreachable,
        Self::PlainHttp,
        Self::UntrustedCertificate,
        Self::CredentialHelper,
    ];

    /// The code of the failure's catalogue entry.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidToken => "token-refused",
            Self::Unreachable => "registry-unreachable",
            Self::PlainHttp => "plain-http",
            Self::UntrustedCertificate => "proxy-ca",
            Self::CredentialHelper => "credential-helper",
        }
    }
}

/// Recognises a failure in an engine's output. It accepts more texts than the catalogue: a text such as
/// `connection refused` is ambiguous elsewhere, but a login connects only to the registry.
pub fn login_failure(output: &str) -> Option<LoginFailure> {
    let output = output.to_lowercase();
    let contains_any = |texts: &[&str]| texts.iter().any(|text| output.contains(text));
    if contains_any(&[
        "docker-credential-",
        "error storing credentials",
        "error saving credentials",
    ]) {
        Some(LoginFailure::CredentialHelper)
    } else if contains_any(&["http response to https client"]) {
        Some(LoginFailure::PlainHttp)
    } else if contains_any(&["x509:", "certificate signed by unknown authority"]) {
        Some(LoginFailure::UntrustedCertificate)
    } else if contains_any(&[
        "401 unauthorized",
        "invalid username/password",
        "unauthorized:",
        "denied:",
        "403 forbidden",
    ]) {
        Some(LoginFailure::InvalidToken)
    } else if contains_any(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "network is unreachable",
        "dial tcp",
        "deadline exceeded",
    ]) {
        Some(LoginFailure::Unreachable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_login_failures_are_recognised() {
        let is = |text: &str, failure| assert_eq!(login_failure(text), Some(failure), "{text}");
        is(
            "Error response from daemon: login attempt to http://127.0.0.1:5001/v2/ failed with status: 401 Unauthorized",
            LoginFailure::InvalidToken,
        );
        is(
            "Error: logging into \"127.0.0.1:5001\": invalid username/password",
            LoginFailure::InvalidToken,
        );
        is(
            "Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied",
            LoginFailure::InvalidToken,
        );
        is(
            "Error response from daemon: Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            LoginFailure::Unreachable,
        );
        is(
            "Error: authenticating creds for \"x.invalid\": pinging container registry x.invalid: Get \"https://x.invalid/v2/\": dial tcp: lookup x.invalid: no such host",
            LoginFailure::Unreachable,
        );
        is(
            "Error: pinging container registry 127.0.0.1:5001: Get \"https://127.0.0.1:5001/v2/\": http: server gave HTTP response to HTTPS client",
            LoginFailure::PlainHttp,
        );
        is(
            "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``",
            LoginFailure::CredentialHelper,
        );
        assert_eq!(login_failure("something else"), None);
    }
}
