//! Signing with cosign, by digest, before any tag names the image.
//! <https://docs.sigstore.dev/cosign/signing/signing_with_containers/>

use anyhow::Result;

use crate::{
    base::error::Failure,
    facts::context::Context,
    plan::{Cmd, Output, Plan, Step},
    settings::{Settings, Sign},
};

/// The issuer in the certificate of a keyless signature made in GitHub Actions.
const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";

/// The plan that signs a reference and verifies the signature; empty if the channel does not sign.
///
/// # Errors
/// When the channel signs with a key and none is configured.
pub fn plan(settings: &Settings, reference: &str, plain_http: bool) -> Result<Plan, Failure> {
    let sign = &settings.sign;
    let mut signing = Cmd::new("cosign").args(["sign", "--yes"]);
    let mut verifying = Cmd::new("cosign").arg("verify");
    match settings.channel.sign {
        Sign::No => return Ok(Plan::default()),
        Sign::Key if sign.key.is_empty() => {
            return Err(Failure::usage(format!(
                "the channel `{}` signs with a key, and `sign.key` is not set",
                settings.channel.name
            ))
            .hint("make one: `cosign generate-key-pair`, and set `sign.key` or `XTASK_SIGN_KEY`"));
        }
        Sign::Key => {
            signing = signing.args(["--key", &sign.key]);
            let public = match sign.public_key.as_str() {
                "" => sign
                    .key
                    .strip_suffix(".key")
                    .map_or(sign.key.clone(), |name| format!("{name}.pub")),
                key => key.to_owned(),
            };
            verifying = verifying.args(["--key", &public]);
        }
        Sign::Keyless => {
            let identity = format!("^{}/", settings.image.source);
            verifying = verifying.args([
                "--certificate-oidc-issuer",
                GITHUB_ISSUER,
                "--certificate-identity-regexp",
                &identity,
            ]);
        }
    }
    if !sign.transparency_log {
        signing = signing.arg("--tlog-upload=false");
        verifying = verifying.arg("--insecure-ignore-tlog=true");
    }
    if plain_http {
        signing = signing.arg("--allow-http-registry");
        verifying = verifying.arg("--allow-http-registry");
    }
    Ok(vec![
        Step::new(signing.arg(reference), Output::Progress).status("Signing", reference),
        Step::new(verifying.arg(reference), Output::Quiet),
    ]
    .into())
}

/// Checks that cosign is installed if the channel signs.
///
/// # Errors
/// When it is not.
pub fn check_installed(cx: &Context) -> Result<()> {
    if cx.settings.channel.sign == Sign::No || cx.find_program("cosign").is_some() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the channel `{}` signs what it publishes, and cosign is not installed",
        cx.settings.channel.name
    ))
    .hint("install it: https://docs.sigstore.dev/cosign/system_config/installation/ (in GitHub Actions: sigstore/cosign-installer)")
    .hint("publish unsigned: `sign = \"no\"` in the channel")
    .into())
}
