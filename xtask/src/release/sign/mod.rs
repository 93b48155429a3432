//! Signing with cosign, by digest, before any tag names the image.
//! <https://docs.sigstore.dev/cosign/signing/signing_with_containers/>

pub mod cosign;
pub mod trust;

use anyhow::Result;

use self::{cosign::Cosign, trust::Trust};
use crate::{
    base::error::Failure,
    facts::context::Context,
    plan::{Output, Plan, Step},
    settings::GitValues,
};

/// What signs the images of a channel, and verifies their signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    cosign: Cosign,
    pub trust: Trust,
}

impl Signer {
    /// The signer of the channel; none if the channel does not sign. Nothing is asked of a registry, so this
    /// can run before the build.
    ///
    /// # Errors
    /// When a setting is missing, when cosign is not installed, and when cosign could not read the key.
    pub fn for_signing(cx: &Context, git: &GitValues) -> Result<Option<Self>> {
        let Some(signer) = Self::for_verifying(cx, git)? else {
            return Ok(None);
        };
        signer.trust.check_key(cx)?;
        Ok(Some(signer))
    }

    /// As [`Self::for_signing`], but only the public part of the key is needed.
    ///
    /// # Errors
    /// When a setting is missing, and when cosign is not installed.
    pub fn for_verifying(cx: &Context, git: &GitValues) -> Result<Option<Self>> {
        let Some(trust) = trust::of(cx.settings, git)? else {
            return Ok(None);
        };
        if cx.find_program(cosign::PROGRAM).is_none() {
            return Err(not_installed(cx).into());
        }
        let cosign = Cosign::ask(cx)?;
        Ok(Some(Self { cosign, trust }))
    }

    /// The signer for a dry run, which shows what the installed cosign would get.
    ///
    /// # Errors
    /// When a setting is missing.
    pub fn for_dry_run(cx: &Context, git: &GitValues) -> Result<Option<Self>> {
        let Some(trust) = trust::of(cx.settings, git)? else {
            return Ok(None);
        };
        let cosign = Cosign::ask(cx)?;
        Ok(Some(Self { cosign, trust }))
    }

    /// The plan that signs a reference and verifies the signature.
    pub fn plan(&self, cx: &Context, reference: &str, plain_http: bool) -> Plan {
        let options = self.options(cx, plain_http);
        let sign = self.cosign.sign(&self.trust, options, reference);
        let verify = self.cosign.verify(&self.trust, options, reference);
        vec![
            Step::new(sign, Output::Progress).status("Signing", reference),
            Step::new(verify, Output::Quiet),
        ]
        .into()
    }

    fn options(&self, cx: &Context, plain_http: bool) -> cosign::Options {
        cosign::Options {
            transparency_log: cx.settings.sign.transparency_log,
            plain_http,
        }
    }
}

fn not_installed(cx: &Context) -> Failure {
    Failure::new(format!(
        "the channel `{}` signs what it publishes, and cosign is not installed",
        cx.settings.channel.name
    ))
    .hint("install it: https://docs.sigstore.dev/cosign/system_config/installation/ (in GitHub Actions: sigstore/cosign-installer)")
    .hint("publish unsigned: `sign = \"no\"` in the channel")
}
