//! The key or identity with which the images of a channel are signed and verified. Pure, except
//! [`Trust::check_key`].

use crate::{
    base::error::Failure,
    facts::context::Context,
    settings::{GitValues, Settings, Sign},
};

/// Where cosign takes a private key from, if it is an environment variable.
const ENV_SCHEME: &str = "env://";

/// With what the images of a channel are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A key pair.
    Key { private: String, public: String },
    /// The identity of a CI's job, in a certificate of a short life.
    Keyless { issuer: String, identity: String },
}

/// With what the settings' channel signs; none if it does not sign.
///
/// # Errors
/// When a setting is missing.
pub fn of(settings: &Settings, git: &GitValues) -> Result<Option<Trust>, Failure> {
    match settings.channel.sign {
        Sign::No => Ok(None),
        Sign::Key => key_pair(settings).map(Some),
        Sign::Keyless => keyless(settings, git).map(Some),
    }
}

fn key_pair(settings: &Settings) -> Result<Trust, Failure> {
    let (private, public) = (&settings.sign.key, &settings.sign.public_key);
    if private.is_empty() {
        return Err(Failure::usage(format!(
            "the channel `{}` signs with a key, and `sign.key` is not set",
            settings.channel.name
        ))
        .hint("make one: `cosign generate-key-pair`, and set `sign.key` or `XTASK_SIGN_KEY`"));
    }
    let public = if public.is_empty() {
        public_part(private).ok_or_else(|| {
            Failure::usage(format!(
                "`sign.public-key` is not set, and the public key of `{private}` is unknown: signatures could \
                 not be verified"
            ))
            .hint(format!(
                "write the public key to a file: `cosign public-key --key {private} --outfile cosign.pub`"
            ))
            .hint("commit that file, and set `sign.public-key = \"cosign.pub\"` in xtask.toml")
        })?
    } else {
        public.clone()
    };
    Ok(Trust::Key {
        private: private.clone(),
        public,
    })
}

/// The public key of a private one: `x.pub` beside the file `x.key`, or the key's URI in a KMS. None if only
/// the private key is known, which cosign would take for the public one.
fn public_part(private: &str) -> Option<String> {
    if let Some(name) = private.strip_suffix(".key")
        && is_file(private)
    {
        return Some(format!("{name}.pub"));
    }
    let is_in_kms = !is_file(private) && !private.starts_with(ENV_SCHEME);
    is_in_kms.then(|| private.to_owned())
}

fn is_file(key: &str) -> bool {
    !key.contains("://") && !key.starts_with("pkcs11:")
}

fn keyless(settings: &Settings, git: &GitValues) -> Result<Trust, Failure> {
    let sign = &settings.sign;
    for (name, value) in [
        ("sign.issuer", &sign.issuer),
        ("sign.identity", &sign.identity),
    ] {
        if value.is_empty() {
            return Err(Failure::usage(format!(
                "the channel `{}` signs with the identity of a job, and `{name}` is not set: signatures could \
                 not be verified",
                settings.channel.name
            ))
            .hint("in GitHub Actions set `sign.issuer = \"https://token.actions.githubusercontent.com\"` and `sign.identity = \"https://github.com/OWNER/NAME/.github/workflows/FILE@refs/tags/v{version}\"`")
            .hint("find those of another CI: https://docs.sigstore.dev/certificate_authority/oidc-in-fulcio/"));
        }
    }
    Ok(Trust::Keyless {
        issuer: sign.issuer.clone(),
        identity: settings.fill(&sign.identity, git)?,
    })
}

impl Trust {
    /// Checks that cosign can read the private key: the file or the variable is there, and so is its
    /// password.
    ///
    /// # Errors
    /// When something is missing.
    pub fn check_key(&self, cx: &Context) -> Result<(), Failure> {
        let Self::Key { private, public } = self else {
            return Ok(());
        };
        let missing = |key: &str| is_file(key) && !cx.env.cwd.join(key).is_file();
        if missing(private) {
            return Err(Failure::new(format!("there is no key file `{private}`"))
                .hint("write it from the job's secrets in an earlier step, or set `sign.key`"));
        }
        if let Some(name) = private.strip_prefix(ENV_SCHEME)
            && cx.env.get(name).is_none()
        {
            return Err(Failure::new(format!(
                "`sign.key` is `{private}`, and the variable {name} is not set"
            ))
            .hint("set it from the job's secrets"));
        }
        if missing(public) {
            return Err(
                Failure::new(format!("there is no file `{public}` with the public key")).hint(
                    "write it: `cosign public-key --key FILE --outfile FILE`, or set `sign.public-key`",
                ),
            );
        }
        let has_password = is_file(private) || private.starts_with(ENV_SCHEME);
        if has_password && !cx.env.has("COSIGN_PASSWORD") && !cx.env.stdin_tty {
            return Err(Failure::new(
                "COSIGN_PASSWORD is not set, and cosign cannot ask for it without a terminal",
            )
            .hint("set it from the job's secrets; for a key without a password, set it empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_beside_the_file_or_in_the_kms() {
        for (private, public) in [
            ("keys/cosign.key", Some("keys/cosign.pub")),
            ("awskms:///alias/sign", Some("awskms:///alias/sign")),
            ("k8s://ns/secret.key", Some("k8s://ns/secret.key")),
            ("pkcs11:token=x", Some("pkcs11:token=x")),
            ("env://COSIGN_PRIVATE_KEY", None),
            ("env://COSIGN.key", None),
            ("key.pem", None),
        ] {
            assert_eq!(public_part(private).as_deref(), public, "{private}");
        }
    }
}
