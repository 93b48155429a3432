//! `verify-image`: verifies what the registry, or an archive, holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    base::error::Failure,
    cli::{FlavourOption, JsonOption, PlatformOption, RepositoryOption, VersionOption},
    commands::{command::Command, json},
    facts::{context::Context, git::WorkTree},
    oci::{
        archive::Archive,
        verify::{Depth, Verified},
    },
    registry::{authentication::Access, client::RegistryClient},
    release::{
        attest::{self, Kind},
        client, destination,
        expected::expected,
        mirror, paths,
        sign::{Place, Signed, Signer, access::RegistryAccess},
        verify,
    },
    settings::{GitValues, Settings},
};

/// Check what the registry, or an archive, holds
#[derive(Args, Clone, Debug)]
pub struct VerifyImage {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    platform: PlatformOption,
    #[command(flatten)]
    repository: RepositoryOption,
    /// Verify an archive, not the registry
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    archive: Option<PathBuf>,
    /// Do not verify the signature and the attestations
    #[arg(long)]
    no_signature: bool,
    #[command(flatten)]
    json: JsonOption,
}

impl Command for VerifyImage {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let settings = &destination::with_repository(cx.settings, &self.repository)?;
        let built_for = cx.settings;
        let cx = &Context { settings, ..*cx };
        if cx.dry_run {
            return self.dry_run(cx);
        }
        let found = self.verify(cx, built_for);
        if self.json.json {
            let report = Report {
                ok: found.is_ok(),
                image: found.as_ref().ok(),
                error: found.as_ref().err().map(|error| format!("{error:#}")),
            };
            json::print(cx.ui, &report)?;
            return found.map(|_| ());
        }
        let Found {
            image: verified,
            signature,
        } = found?;
        let mut text = format!("{}\n", verified.digest);
        for platform in &verified.platforms {
            text.push_str(&format!(
                "{}  {}  {}\n",
                platform.platform,
                platform.digest,
                platform.summary()
            ));
        }
        cx.ui.print(&text)?;
        if let Some(signature) = signature {
            let kinds = signature.attestations.join(", ");
            let kinds = if kinds.is_empty() {
                "none".to_owned()
            } else {
                kinds
            };
            cx.ui
                .status("Signed", &format!("with attestations: {kinds}"));
            cx.ui
                .hint(&format!("verify it without xtask: `{}`", signature.command));
        }
        Ok(())
    }
}

/// What was verified.
#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    image: Verified,
    /// Null if the channel does not sign, and for an archive.
    signature: Option<Signature>,
}

#[derive(Serialize)]
struct Signature {
    /// The kinds of attestations that the image has.
    attestations: Vec<&'static str>,
    /// The command with which anybody verifies the signature.
    command: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    /// Null if the image is not as expected.
    #[serde(flatten)]
    image: Option<&'a Found>,
    error: Option<String>,
}

impl VerifyImage {
    fn dry_run(&self, cx: &Context) -> Result<()> {
        if let Some(path) = &self.archive {
            let path = cx.env.cwd.join(path);
            return Ok(cx.ui.print_plan(&format!("# read {}\n", path.display()))?);
        }
        let git = cx.git_values();
        let reference = cx
            .settings
            .image
            .repository
            .tagged(&tag(cx.settings, &git)?);
        let mut text = format!("# read {reference}\n");
        if !self.no_signature
            && let Some(signer) = Signer::for_dry_run(cx, &git)?
        {
            let registry = client::open(cx, Access::Pull)?;
            let access = &RegistryAccess::gather(cx, &registry)?;
            let reference = &reference;
            let image = Signed { reference, access };
            text.push_str(&signer.verification(cx, image).render());
        }
        Ok(cx.ui.print_plan(&text)?)
    }

    /// Verifies the archive, or what the registry holds. The image's labels name the repository that it was
    /// built for.
    fn verify(&self, cx: &Context, built_for: &Settings) -> Result<Found> {
        // The image may be of any commit: only publishing requires the current one.
        let mut expected = expected(built_for, &WorkTree::default());
        if let Some(platform) = self.platform.parse()? {
            expected.platforms = vec![platform];
        }
        if let Some(path) = &self.archive {
            let archive = Archive::open(&cx.env.cwd.join(path))?;
            return Ok(Found {
                image: verify::archive(cx, &archive, &expected)?,
                signature: None,
            });
        }
        let git = cx.git_values();
        let signer = if self.no_signature {
            None
        } else {
            Signer::for_verifying(cx, &git)?
        };
        let registry = client::open(cx, Access::Pull)?;
        let tag = tag(cx.settings, &git)?;
        let found = registry.manifest(&tag)?.ok_or_else(|| {
            let reference = cx.settings.image.repository.tagged(&tag);
            Failure::new(format!("there is no `{reference}`"))
                .hint("the registry's page of the image lists the published versions; name one with `--version`")
        })?;
        let hint = "publish the version again, or verify another one: `--version`";
        let image =
            verify::in_registry(cx, &registry, &found.digest(), &expected, Depth::Deep, hint)?;
        let signature = match &signer {
            Some(signer) => Some(verify_signature(cx, built_for, &registry, signer, &image)?),
            None => None,
        };
        Ok(Found { image, signature })
    }
}

/// The tag whose image is verified: the version's own, because the others can name a newer version. If the channel
/// does not give the version a tag of its own, it is the first tag.
fn tag(settings: &Settings, git: &GitValues) -> Result<String, Failure> {
    let (own, tags) = (settings.own_tag(), settings.tags(git)?);
    Ok(if tags.contains(&own) {
        own
    } else {
        tags[0].clone()
    })
}

fn verify_signature(
    cx: &Context,
    built_for: &Settings,
    registry: &RegistryClient,
    signer: &Signer,
    verified: &Verified,
) -> Result<Signature> {
    let repository = cx.settings.image.repository.as_str();
    let reference = format!("{repository}@{}", verified.digest);
    let image = Signed {
        reference: &reference,
        access: &RegistryAccess::gather(cx, registry)?,
    };
    cx.ui
        .status("Verifying", "the signature and the attestations");
    if let Err(why) = signer.verify(cx, image, verified) {
        cx.exec.fail_if_interrupted()?;
        let is_mirror = Place::of(cx.settings, built_for) == Place::Mirror;
        // If the mirror cannot be asked, cosign's own reason is shown.
        let has_none =
            is_mirror && matches!(mirror::has_any(registry, &verified.digest), Ok(false));
        return Err(if has_none {
            nothing_copied(cx.settings, built_for, &reference).into()
        } else {
            not_signed(cx, &reference, why)
        });
    }
    Ok(Signature {
        attestations: attest::kinds(cx.settings)
            .into_iter()
            .map(Kind::cosign_type)
            .collect(),
        command: signer.command(cx, image),
    })
}

/// The refusal of an image at a mirror to which nothing was copied.
fn nothing_copied(settings: &Settings, built_for: &Settings, reference: &str) -> Failure {
    let source = built_for.image.repository.as_str();
    let version = settings.version_options();
    let archive = paths::display(built_for, &paths::archive(built_for, None));
    Failure::new(format!(
        "{reference} has no signatures: those of {source} were not copied there"
    ))
    .hint(format!(
        "copy them: `cargo xtask push-archive {version} --repository {} {archive}`, where {source} can be read",
        settings.image.repository.as_str()
    ))
    .hint(format!(
        "verify the image of the release: `cargo xtask verify-image {version}`"
    ))
    .hint(without_signature(settings))
}

/// The refusal of an image whose signatures are missing or wrong.
fn not_signed(cx: &Context, reference: &str, why: anyhow::Error) -> anyhow::Error {
    let channel = &cx.settings.channel.name;
    let why = match why.downcast::<Failure>() {
        Ok(failure) => failure.hint(without_signature(cx.settings)).into(),
        Err(why) => why,
    };
    why.context(format!(
        "{reference} is not signed as the channel `{channel}` requires"
    ))
}

fn without_signature(settings: &Settings) -> String {
    let repository = settings.image.repository.as_str();
    let mirror = if repository == settings.configured_repository.as_str() {
        String::new()
    } else {
        format!(" --repository {repository}")
    };
    format!(
        "look at the image without its signature: `cargo xtask verify-image {}{mirror} --no-signature`",
        settings.version_options()
    )
}

#[cfg(test)]
impl crate::commands::testing::Examples for VerifyImage {}
