//! The command lines of cosign, which differ between its major versions.

use anyhow::Result;

use crate::{
    facts::context::Context,
    plan::Cmd,
    release::{
        attest::{Attestation, Kind},
        sign::{access::Tls, trust::Trust},
    },
};

pub const PROGRAM: &str = "cosign";

/// An installed cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosign {
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// It knows no signing configurations, or does not use one unless it is told to.
    V2,
    /// It uses a signing configuration, which includes a transparency log, unless it is told not to. It refuses
    /// `--tlog-upload=false` together with one. <https://github.com/sigstore/cosign/issues/4503>
    V3,
}

/// What a call depends on besides the key or identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    pub transparency_log: bool,
    pub tls: &'a Tls,
}

impl Cosign {
    /// Asks cosign for its version. One that does not tell it is taken for the current one.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn ask(cx: &Context) -> Result<Self> {
        let answer = cx.ask(&Cmd::new(PROGRAM).arg("version"));
        cx.exec.fail_if_interrupted()?;
        let text = answer.map(|it| it.stdout + &it.stderr).unwrap_or_default();
        Ok(Self::read(&text))
    }

    /// Reads the answer to `cosign version`.
    fn read(answer: &str) -> Self {
        let version = answer
            .lines()
            .find_map(|line| line.strip_prefix("GitVersion:"))
            .map_or("", str::trim);
        let major = version.trim_start_matches('v').split('.').next();
        let version = match major.and_then(|major| major.parse::<u32>().ok()) {
            Some(..=2) => Version::V2,
            Some(3..) | None => Version::V3,
        };
        Self { version }
    }

    /// Signs a reference.
    pub fn sign(self, trust: &Trust, options: Options, reference: &str) -> Cmd {
        let cmd = Cmd::new(PROGRAM).args(["sign", "--yes"]);
        self.add_private(cmd, trust, options).arg(reference)
    }

    /// Verifies the signature of a reference.
    pub fn verify(self, trust: &Trust, options: Options, reference: &str) -> Cmd {
        add_public(Cmd::new(PROGRAM).arg("verify"), trust, options).arg(reference)
    }

    /// Stores an attestation of a reference.
    pub fn attest(
        self,
        trust: &Trust,
        options: Options,
        attestation: &Attestation,
        reference: &str,
    ) -> Cmd {
        let cmd = Cmd::new(PROGRAM).args(["attest", "--yes"]);
        self.add_private(cmd, trust, options)
            .args(["--type", attestation.kind.cosign_type(), "--predicate"])
            .arg(attestation.file.to_string_lossy())
            .arg(reference)
    }

    /// Verifies the attestations of a kind.
    pub fn verify_attestation(
        self,
        trust: &Trust,
        options: Options,
        kind: Kind,
        reference: &str,
    ) -> Cmd {
        let cmd = Cmd::new(PROGRAM).args(["verify-attestation", "--type", kind.cosign_type()]);
        add_public(cmd, trust, options).arg(reference)
    }

    fn add_private(self, mut cmd: Cmd, trust: &Trust, options: Options) -> Cmd {
        if let Trust::Key { private, .. } = trust {
            cmd = cmd.args(["--key", private]);
        }
        if !options.transparency_log {
            match self.version {
                Version::V2 => {}
                Version::V3 => cmd = cmd.arg("--use-signing-config=false"),
            }
            cmd = cmd.arg("--tlog-upload=false");
        }
        add_registry(cmd, options)
    }
}

fn add_public(mut cmd: Cmd, trust: &Trust, options: Options) -> Cmd {
    cmd = match trust {
        Trust::Key { public, .. } => cmd.args(["--key", public]),
        Trust::Keyless { issuer, identity } => cmd.args([
            "--certificate-oidc-issuer",
            issuer,
            "--certificate-identity",
            identity,
        ]),
    };
    if !options.transparency_log {
        cmd = cmd.arg("--insecure-ignore-tlog=true");
    }
    add_registry(cmd, options)
}

/// cosign 2 and 3 have the same options for this.
fn add_registry(mut cmd: Cmd, options: Options) -> Cmd {
    match options.tls {
        Tls::PlainHttp => cmd = cmd.arg("--allow-http-registry"),
        Tls::Unchecked => cmd = cmd.arg("--allow-insecure-registry"),
        Tls::Checked {
            authorities,
            client,
        } => {
            if let Some(file) = authorities {
                cmd = cmd.arg("--registry-cacert").arg(file.to_string_lossy());
            }
            if let Some((certificate, key)) = client {
                cmd = cmd
                    .arg("--registry-client-cert")
                    .arg(certificate.to_string_lossy())
                    .arg("--registry-client-key")
                    .arg(key.to_string_lossy());
            }
        }
    }
    cmd
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "  ______\ncosign: A tool for Container Signing\n\nGitVersion:    v2.5.3\nGitCommit:     unknown\n";
    const V3: &str = "GitVersion:    v3.0.4\n";

    fn key() -> Trust {
        Trust::Key {
            private: "a.key".to_owned(),
            public: "a.pub".to_owned(),
        }
    }

    #[test]
    fn without_a_transparency_log_cosign_3_needs_one_more_option() {
        let options = Options {
            transparency_log: false,
            tls: &Tls::PlainHttp,
        };
        let sign = |answer| Cosign::read(answer).sign(&key(), options, "x@y").render();
        let rest = "--tlog-upload=false --allow-http-registry x@y";
        assert_eq!(sign(V2), format!("cosign sign --yes --key a.key {rest}"));
        for answer in [
            V3,
            "GitVersion:    devel\n",
            "GitVersion: v4.0.0-rc.1\n",
            "",
        ] {
            assert_eq!(
                sign(answer),
                format!("cosign sign --yes --key a.key --use-signing-config=false {rest}")
            );
        }
        assert_eq!(
            Cosign::read(V3).verify(&key(), options, "x@y").render(),
            "cosign verify --key a.pub --insecure-ignore-tlog=true --allow-http-registry x@y"
        );
    }

    #[test]
    fn with_a_transparency_log_both_get_the_same_options() {
        let options = Options {
            transparency_log: true,
            tls: &Tls::SYSTEM,
        };
        for answer in [V2, V3] {
            assert_eq!(
                Cosign::read(answer).sign(&key(), options, "x@y").render(),
                "cosign sign --yes --key a.key x@y"
            );
        }
    }

    #[test]
    fn each_registry_is_reached_as_xtask_reaches_it() {
        let all = Tls::Checked {
            authorities: Some("/t/all.pem".into()),
            client: Some(("/c/me.cert".into(), "/c/me.key".into())),
        };
        let with_all = "--registry-cacert /t/all.pem --registry-client-cert /c/me.cert --registry-client-key /c/me.key ";
        for (tls, options) in [
            (Tls::PlainHttp, "--allow-http-registry "),
            (Tls::Unchecked, "--allow-insecure-registry "),
            (Tls::SYSTEM, ""),
            (all.elsewhere(), ""),
            (all, with_all),
        ] {
            let options_of = Options {
                transparency_log: true,
                tls: &tls,
            };
            assert_eq!(
                Cosign::read(V3).verify(&key(), options_of, "x@y").render(),
                format!("cosign verify --key a.pub {options}x@y")
            );
        }
    }

    /// The identity is a text, not a regular expression, so its dots match only dots.
    #[test]
    fn a_keyless_signature_has_exactly_the_configured_identity() {
        let trust = Trust::Keyless {
            issuer: "https://issuer.example.com".to_owned(),
            identity: "https://ci.example.com/x/y@refs/tags/v1.2.3".to_owned(),
        };
        let options = Options {
            transparency_log: true,
            tls: &Tls::SYSTEM,
        };
        let cosign = Cosign::read(V3);
        assert_eq!(
            cosign.sign(&trust, options, "x@y").render(),
            "cosign sign --yes x@y"
        );
        assert_eq!(
            cosign.verify(&trust, options, "x@y").render(),
            "cosign verify --certificate-oidc-issuer https://issuer.example.com --certificate-identity https://ci.example.com/x/y@refs/tags/v1.2.3 x@y"
        );
    }
}
