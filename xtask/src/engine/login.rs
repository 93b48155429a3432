//! Signing in to a registry: the command, and what its errors mean.

use crate::{
    base::engine_kind::EngineKind,
    engine::Engine,
    plan::{Cmd, Stdin},
};

/// Why a registry or an engine refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The registry does not take the user and token.
    WrongToken,
    /// Nothing answers at the registry's address, or its name is unknown.
    Unreachable,
    /// It speaks plain HTTP, and the engine wants TLS.
    PlainHttp,
    /// The registry's certificate is not trusted.
    Certificate,
    /// The program that should keep the credentials does not work.
    Helper,
}

impl Engine {
    /// Signs in. The token is passed on standard input only.
    pub fn login(&self, registry: &str, user: &str, token: Stdin) -> Cmd {
        let mut cmd = self
            .cmd()
            .args(["login", "--username", user, "--password-stdin", registry]);
        cmd.stdin = Some(token);
        cmd
    }

    /// How to allow the engine plain HTTP to a registry.
    pub fn allow_plain_http(&self, registry: &str) -> String {
        match self.kind {
            EngineKind::Docker => format!(
                "tell the daemon: `{{\"insecure-registries\": [\"{registry}\"]}}` in /etc/docker/daemon.json"
            ),
            EngineKind::Podman => format!(
                "tell Podman: `[[registry]]`, `location = \"{registry}\"`, `insecure = true` in a file in /etc/containers/registries.conf.d/"
            ),
        }
    }
}

impl Refusal {
    #[cfg(test)]
    pub const ALL: [Self; 5] = [
        Self::WrongToken,
        Self::Unreachable,
        Self::PlainHttp,
        Self::Certificate,
        Self::Helper,
    ];

    /// The code of the catalogue's entry.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongToken => "token-refused",
            Self::Unreachable => "registry-unreachable",
            Self::PlainHttp => "plain-http",
            Self::Certificate => "proxy-ca",
            Self::Helper => "credential-helper",
        }
    }
}

/// What a failed sign-in says, in either engine's words. More words than in the catalogue: what
/// `connection refused` means is certain only where nothing else was tried.
pub fn refusal(output: &str) -> Option<Refusal> {
    let output = output.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| output.contains(part));
    if says(&[
        "docker-credential-",
        "error storing credentials",
        "error saving credentials",
    ]) {
        Some(Refusal::Helper)
    } else if says(&["http response to https client"]) {
        Some(Refusal::PlainHttp)
    } else if says(&["x509:", "certificate signed by unknown authority"]) {
        Some(Refusal::Certificate)
    } else if says(&[
        "401 unauthorized",
        "invalid username/password",
        "unauthorized:",
        "denied:",
        "403 forbidden",
    ]) {
        Some(Refusal::WrongToken)
    } else if says(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "network is unreachable",
        "dial tcp",
        "deadline exceeded",
    ]) {
        Some(Refusal::Unreachable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_refusals_are_understood() {
        let is = |text: &str, wanted| assert_eq!(refusal(text), Some(wanted), "{text}");
        is(
            "Error response from daemon: login attempt to http://127.0.0.1:5001/v2/ failed with status: 401 Unauthorized",
            Refusal::WrongToken,
        );
        is(
            "Error: logging into \"127.0.0.1:5001\": invalid username/password",
            Refusal::WrongToken,
        );
        is(
            "Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied",
            Refusal::WrongToken,
        );
        is(
            "Error response from daemon: Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            Refusal::Unreachable,
        );
        is(
            "Error: authenticating creds for \"x.invalid\": pinging container registry x.invalid: Get \"https://x.invalid/v2/\": dial tcp: lookup x.invalid: no such host",
            Refusal::Unreachable,
        );
        is(
            "Error: pinging container registry 127.0.0.1:5001: Get \"https://127.0.0.1:5001/v2/\": http: server gave HTTP response to HTTPS client",
            Refusal::PlainHttp,
        );
        is(
            "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``",
            Refusal::Helper,
        );
        assert_eq!(refusal("something else"), None);
    }
}
