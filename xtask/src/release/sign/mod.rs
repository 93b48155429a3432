//! Signing with cosign, by digest, before any tag names the image.
//! <https://docs.sigstore.dev/cosign/signing/signing_with_containers/>

pub mod cosign;
pub mod trust;

use std::time::Duration;

use anyhow::Result;

use self::{cosign::Cosign, trust::Trust};
use crate::{
    base::error::Failure,
    facts::context::Context,
    oci::verify::Verified,
    plan::{Output, Plan, Step},
    release::{
        attest::{self, Attestation},
        paths,
    },
    settings::{GitValues, Settings, Sign},
};

/// How long cosign may take to answer whether an image is signed.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// An image that is or will be signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The repository and the digest.
    pub reference: &'a str,
    /// Whether the registry has no TLS.
    pub plain_http: bool,
}

impl<'a> Signed<'a> {
    /// An image in a registry with TLS.
    pub fn new(reference: &'a str) -> Self {
        Self {
            reference,
            plain_http: false,
        }
    }
}

/// Where an image is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the repository that its labels name.
    Own,
    Mirror,
}

impl Place {
    /// The place of an image that was built for the settings `built_for`.
    pub fn of(settings: &Settings, built_for: &Settings) -> Self {
        if settings.image.repository == built_for.image.repository {
            Self::Own
        } else {
            Self::Mirror
        }
    }
}

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
    pub fn for_signing(cx: &Context, git: &GitValues, place: Place) -> Result<Option<Self>> {
        let Some(signer) = Self::for_verifying(cx, git, place)? else {
            return Ok(None);
        };
        signer.trust.check_key(cx)?;
        Ok(Some(signer))
    }

    /// As [`Self::for_signing`], but only the public part of the key is needed.
    ///
    /// # Errors
    /// When a setting is missing, and when cosign is not installed.
    pub fn for_verifying(cx: &Context, git: &GitValues, place: Place) -> Result<Option<Self>> {
        if signs(cx.settings, place) && cx.find_program(cosign::PROGRAM).is_none() {
            return Err(not_installed(cx).into());
        }
        Self::for_dry_run(cx, git, place)
    }

    /// The signer for a dry run, which shows what the installed cosign would get.
    ///
    /// # Errors
    /// When a setting is missing.
    pub fn for_dry_run(cx: &Context, git: &GitValues, place: Place) -> Result<Option<Self>> {
        if !signs(cx.settings, place) {
            return Ok(None);
        }
        let Some(trust) = trust::of(cx.settings, git)? else {
            return Ok(None);
        };
        let cosign = Cosign::ask(cx)?;
        Ok(Some(Self { cosign, trust }))
    }

    /// The plan that signs an image and its attestations, and verifies them.
    pub fn plan(&self, cx: &Context, image: Signed, attestations: &[Attestation]) -> Plan {
        let options = options(cx, image);
        let reference = image.reference;
        let sign = self.cosign.sign(&self.trust, options, reference);
        let mut plan = Plan::default();
        plan.push(Step::new(sign, Output::Progress).status("Signing", reference));
        for one in attestations {
            let attest = self.cosign.attest(&self.trust, options, one, reference);
            let file = paths::display(cx.settings, &one.file);
            plan.push(Step::new(attest, Output::Progress).status("Attesting", file));
        }
        plan.steps.extend(self.verification(cx, image).steps);
        plan
    }

    /// The plan that verifies the signature of an image, and that it has the attestations of the channel.
    pub fn verification(&self, cx: &Context, image: Signed) -> Plan {
        let options = options(cx, image);
        let reference = image.reference;
        let mut plan = Plan::default();
        let verify = self.cosign.verify(&self.trust, options, reference);
        plan.push(Step::new(verify, Output::Quiet));
        for kind in attest::kinds(cx.settings) {
            let cmd = self
                .cosign
                .verify_attestation(&self.trust, options, kind, reference);
            plan.push(Step::new(cmd, Output::Quiet));
        }
        plan
    }

    /// The command with which anybody verifies the signature.
    pub fn command(&self, cx: &Context, image: Signed) -> String {
        let options = options(cx, image);
        let cmd = self.cosign.verify(&self.trust, options, image.reference);
        cmd.render()
    }

    /// Whether an image has its signature and attestations already.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn has_signed(&self, cx: &Context, image: Signed, verified: &Verified) -> Result<bool> {
        let mut answers = Vec::new();
        for step in self.verification(cx, image).steps {
            let answer = cx.exec.capture(&step.cmd, ANSWER_LIMIT);
            cx.exec.fail_if_interrupted()?;
            match answer {
                Ok(answer) if answer.ok() => answers.push(answer.stdout),
                Ok(_) | Err(_) => return Ok(false),
            }
        }
        Ok(missing_attestations(cx.settings, &answers, verified).is_empty())
    }

    /// Verifies the signature of an image, and that it has the attestations of the channel, for each platform.
    ///
    /// # Errors
    /// When one is missing, or not by whom the settings name.
    pub fn verify(&self, cx: &Context, image: Signed, verified: &Verified) -> Result<()> {
        let answers = cx.exec.outputs(&self.verification(cx, image))?;
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.stdout).collect();
        let missing = missing_attestations(cx.settings, &answers, verified);
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Failure::new(format!("it has no attestation {missing}"))
            .hint("sign it again: run the command that published it once more")
            .into())
    }
}

/// What [`Signer::verification`] did not find, of its answers.
fn missing_attestations(
    settings: &Settings,
    answers: &[String],
    verified: &Verified,
) -> Vec<String> {
    // The first answer is about the signature.
    let of_kinds = attest::kinds(settings)
        .into_iter()
        .zip(answers.iter().skip(1));
    let missing = of_kinds.flat_map(|(kind, answer)| {
        let platforms = attest::platforms_without(kind, answer, verified);
        platforms
            .into_iter()
            .map(move |platform| format!("`{}` for {platform}", kind.cosign_type()))
    });
    missing.collect()
}

/// Whether the channel signs at this place. An image at a mirror is signed only with a key: the identity of the
/// job that built it is not that of whoever copies it.
fn signs(settings: &Settings, place: Place) -> bool {
    match (settings.channel.sign, place) {
        (Sign::No, _) | (Sign::Keyless, Place::Mirror) => false,
        (Sign::Key, _) | (Sign::Keyless, Place::Own) => true,
    }
}

fn options(cx: &Context, image: Signed) -> cosign::Options {
    cosign::Options {
        transparency_log: cx.settings.sign.transparency_log,
        plain_http: image.plain_http,
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
