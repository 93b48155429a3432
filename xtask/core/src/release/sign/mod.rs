//! Signing with cosign, by digest, before any tag names the image.
//! <https://docs.sigstore.dev/cosign/signing/signing_with_containers/>

pub mod access;
pub mod cosign;
mod private_files;
pub mod trust;

use std::time::Duration;

use anyhow::Result;

use self::{access::RegistryAccess, cosign::Cosign, trust::Trust};
use crate::{
    base::error::Failure,
    facts::context::Context,
    oci::verify::Verified,
    plan::{Output, Plan, Step},
    release::attest::{self, Attestation},
    settings::{GitValues, Settings, Sign},
};

/// How long cosign may take to answer whether an image is signed.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// An image that is or will be signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The repository and the digest.
    pub reference: &'a str,
    pub access: &'a RegistryAccess,
}

/// What cosign does with an image. Its private files exist while it runs.
pub struct CosignPlan<'a> {
    plan: Plan,
    access: &'a RegistryAccess,
}

impl CosignPlan<'_> {
    /// The lines of a dry run, without the contents of the private files.
    pub fn render(&self) -> String {
        let files = &self.access.files;
        files.describe() + &self.plan.render() + &files.describe_removal()
    }

    /// # Errors
    /// When a step fails.
    pub fn run(&self, cx: &Context) -> Result<()> {
        let _files = self.access.files.write()?;
        cx.exec.run(&self.plan)
    }

    /// As [`Self::run`], and returns what each step printed.
    fn answers(&self, cx: &Context) -> Result<Vec<String>> {
        let _files = self.access.files.write()?;
        let answers = cx.exec.outputs(&self.plan)?;
        Ok(answers.into_iter().map(|answer| answer.stdout).collect())
    }

    /// What each step printed; none if one fails. Nothing is shown.
    fn answers_if_all_succeed(&self, cx: &Context) -> Result<Option<Vec<String>>> {
        let _files = self.access.files.write()?;
        let mut answers = Vec::new();
        for step in &self.plan.steps {
            let answer = cx.exec.capture(&step.cmd, ANSWER_LIMIT);
            cx.exec.fail_if_interrupted()?;
            match answer {
                Ok(answer) if answer.ok() => answers.push(answer.stdout),
                Ok(_) | Err(_) => return Ok(None),
            }
        }
        Ok(Some(answers))
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
    /// What signs at this place; none if nothing does. Nothing is asked of a registry, so this can run before the
    /// build.
    ///
    /// # Errors
    /// When a setting is missing, when cosign is not installed, and when cosign could not read the key.
    pub fn for_signing(cx: &Context, git: &GitValues, place: Place) -> Result<Option<Self>> {
        if !signs(cx.settings, place) {
            return Ok(None);
        }
        let signer = Self::for_verifying(cx, git)?;
        if let Some(signer) = &signer {
            signer.trust.check_key(cx)?;
        }
        Ok(signer)
    }

    /// What verifies the signatures of the channel's images, at every place; none if the channel does not sign. Only the
    /// public part of the key is needed.
    ///
    /// # Errors
    /// When a setting is missing, and when cosign is not installed.
    pub fn for_verifying(cx: &Context, git: &GitValues) -> Result<Option<Self>> {
        if cx.settings.channel.sign != Sign::No && cx.find_program(cosign::PROGRAM).is_none() {
            return Err(not_installed(cx).into());
        }
        Self::for_dry_run(cx, git)
    }

    /// As [`Self::for_verifying`], for a dry run, which shows what the installed cosign would get.
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

    /// The plan that signs an image and its attestations, and verifies them.
    pub fn plan<'a>(
        &self,
        cx: &Context,
        image: Signed<'a>,
        attestations: &[Attestation],
    ) -> CosignPlan<'a> {
        let options = options(cx, image);
        let reference = image.reference;
        let sign = self.cosign.sign(&self.trust, options, reference);
        let mut plan = Plan::default();
        let sign = image.access.apply(sign);
        plan.push(Step::new(sign, Output::Progress).status("Signing", reference));
        for one in attestations {
            let attest = self.cosign.attest(&self.trust, options, one, reference);
            let attest = image.access.apply(attest);
            let file = one.file.file_name().unwrap_or_default();
            let file = file.to_string_lossy();
            plan.push(Step::new(attest, Output::Progress).status("Attesting", file));
        }
        let verification = self.verification(cx, image);
        plan.steps.extend(verification.plan.steps);
        CosignPlan {
            plan,
            ..verification
        }
    }

    /// The plan that verifies the signature of an image, and that it has the attestations of the channel.
    pub fn verification<'a>(&self, cx: &Context, image: Signed<'a>) -> CosignPlan<'a> {
        let options = options(cx, image);
        let reference = image.reference;
        let mut plan = Plan::default();
        let verify = self.cosign.verify(&self.trust, options, reference);
        plan.push(Step::new(image.access.apply(verify), Output::Quiet));
        for kind in attest::kinds(cx.settings) {
            let cmd = self
                .cosign
                .verify_attestation(&self.trust, options, kind, reference);
            plan.push(Step::new(image.access.apply(cmd), Output::Quiet));
        }
        let access = image.access;
        CosignPlan { plan, access }
    }

    /// The command with which anybody verifies the signature.
    pub fn command(&self, cx: &Context, image: Signed) -> String {
        let options = cosign::Options {
            tls: &image.access.tls.elsewhere(),
            ..options(cx, image)
        };
        let cmd = self.cosign.verify(&self.trust, options, image.reference);
        cmd.render()
    }

    /// Whether an image has its signature and attestations already.
    ///
    /// # Errors
    /// When a signal interrupts, and when a private file cannot be written.
    pub fn has_signed(&self, cx: &Context, image: Signed, verified: &Verified) -> Result<bool> {
        let answers = self.verification(cx, image).answers_if_all_succeed(cx)?;
        Ok(answers.is_some_and(|answers| {
            missing_attestations(cx.settings, &answers, verified).is_empty()
        }))
    }

    /// Verifies the signature of an image, and that it has the attestations of the channel, for each platform.
    ///
    /// # Errors
    /// When one is missing, or not by whom the settings name.
    pub fn verify(&self, cx: &Context, image: Signed, verified: &Verified) -> Result<()> {
        let answers = self.verification(cx, image).answers(cx)?;
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
/// job that built it is not that of whoever copies it. The signature of that job is copied and can be verified there.
pub fn signs(settings: &Settings, place: Place) -> bool {
    match (settings.channel.sign, place) {
        (Sign::No, _) | (Sign::Keyless, Place::Mirror) => false,
        (Sign::Key, _) | (Sign::Keyless, Place::Own) => true,
    }
}

fn options<'a>(cx: &Context, image: Signed<'a>) -> cosign::Options<'a> {
    cosign::Options {
        transparency_log: cx.settings.sign.transparency_log,
        tls: &image.access.tls,
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
