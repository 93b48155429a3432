//! The pipeline of a publication. `push-image`, `push-multiarch` and `push-archive` differ in what
//! makes the archive; all else is the same.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    base::ui::{Clock, human_time},
    cli::{PublishingOptions, VerifyDepth},
    facts::{context::Context, git::WorkTree},
    oci::{
        archive::Archive,
        verify::{Depth, Expected, Verified},
    },
    registry::{
        authentication::Access,
        client::{RawManifest, RegistryClient},
    },
    release::{
        destination,
        github::{self, Group},
        paths,
        preflight::{self, Existing},
        promote, push,
        receipt::Receipt,
        sign, verify,
    },
    settings::{Settings, SmokeFirst},
};

/// What is published, and how.
pub struct PublishRequest {
    pub git: WorkTree,
    pub options: PublishingOptions,
    pub expected: Expected,
    /// The image's digest, if it is known before the archive is made.
    pub digest: Option<String>,
    /// Whether the image goes to another repository than the one it was built for.
    pub is_mirror: bool,
}

/// A publication in progress.
pub struct Publication<'a> {
    cx: &'a Context<'a>,
    registry: &'a RegistryClient<'a>,
    request: PublishRequest,
    /// The phases so far, each with its duration in seconds.
    phases: Vec<(String, f64)>,
}

/// Publishes an image. `make` makes its archive. It is not called if the registry has the image of
/// this commit already: then only what an interrupted run left undone is done.
///
/// # Errors
/// When a phase fails. Its message says whether a tag has moved.
pub fn publish(
    cx: &Context,
    request: PublishRequest,
    make: impl FnOnce(&mut Publication) -> Result<Archive>,
) -> Result<()> {
    let registry = destination::registry(cx, Access::Push);
    let mut publication = Publication {
        cx,
        registry: &registry,
        request,
        phases: Vec::new(),
    };
    let existing = publication.preflight()?;
    let overwrite = publication.confirm_overwrite(&existing)?;
    if let Existing::SameCommit(published) = &existing
        && publication.has_expected_digest(published)
    {
        cx.ui.status(
            "Resuming",
            "this commit's image is in the registry already: nothing is built or pushed",
        );
        return publication.finish(published, None, false);
    }
    let archive = make(&mut publication)?;
    let verified = publication.phase("check", |it| {
        verify::archive(it.cx, &archive, &it.request.expected)
    })?;
    let pushed = publication.push(&archive)?;
    publication.finish(&pushed, Some(verified), overwrite)
}

impl Publication<'_> {
    /// Runs a part of the publication, and notes how long it took.
    ///
    /// # Errors
    /// Those of the part.
    pub fn phase<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let clock = Clock::start();
        let group = Group::begin(self.cx, name);
        let done = work(self);
        drop(group);
        self.phases
            .push((name.to_owned(), clock.elapsed().as_secs_f64()));
        done
    }

    fn preflight(&mut self) -> Result<Existing> {
        sign::check_installed(self.cx)?;
        if self.request.options.no_preflight {
            return Ok(Existing::None);
        }
        self.phase("preflight", |it| {
            it.cx.ui.status(
                "Asking",
                &format!("{} whether this may be pushed", it.registry.host()),
            );
            preflight::run(it.cx, it.registry, &it.request.git, it.request.options)
        })
    }

    /// Whether a released version is to be overwritten. The user confirms it.
    fn confirm_overwrite(&self, existing: &Existing) -> Result<bool> {
        match existing {
            Existing::Different(description) if self.request.options.force => {
                preflight::confirm_overwrite(self.cx, description)?;
                Ok(true)
            }
            Existing::None | Existing::SameCommit(_) | Existing::Different(_) => Ok(false),
        }
    }

    fn has_expected_digest(&self, published: &RawManifest) -> bool {
        let digest = self.request.digest.as_ref();
        digest.is_none_or(|digest| *digest == published.digest())
    }

    fn push(&mut self, archive: &Archive) -> Result<RawManifest> {
        self.phase("push", |it| push::push(it.cx, it.registry, archive))
            .context("the push failed; no tag was moved")
    }

    /// Verifies what the registry holds, signs it, gives it its tags, and writes the receipt. The archive
    /// is the one that was pushed, if this run did.
    fn finish(
        mut self,
        image: &RawManifest,
        archive: Option<Verified>,
        overwrite: bool,
    ) -> Result<()> {
        let cx = self.cx;
        let digest = image.digest();
        let verified = self.phase("verify", |it| {
            let hint = "run the same command again; if it fails again, build with `--no-cache` (no tag was moved)";
            let depth = match it.request.options.verify {
                VerifyDepth::Shallow => Depth::Shallow,
                VerifyDepth::Deep => Depth::Deep,
            };
            verify::in_registry(it.cx, it.registry, &digest, &it.request.expected, depth, hint)
        })?;
        // The layers of the archive were read when it was verified.
        let verified = archive.unwrap_or(verified);
        let reference = format!("{}@{digest}", cx.settings.image.repository.as_str());
        let signing = sign::plan(cx.settings, &reference, self.registry.is_plain_http())?;
        let signed = !signing.steps.is_empty();
        if signed {
            self.phase("sign", |it| it.cx.exec.run(&signing))?;
        }
        let tags = self.phase("promote", |it| {
            promote::promote(it.cx, it.registry, &it.request.git, image, overwrite)
        })?;
        let receipt = Receipt::new(cx, &self.request.git, verified, tags, signed, self.phases);
        let path = receipt.write(cx, self.request.is_mirror)?;
        github::report(cx, &receipt)?;
        let phases: Vec<_> = receipt
            .seconds
            .iter()
            .map(|(name, seconds)| {
                format!("{name} {}", human_time(Duration::from_secs_f64(*seconds)))
            })
            .collect();
        cx.ui
            .status("Published", &format!("{reference} ({})", phases.join(", ")));
        cx.ui.status("Receipt", &paths::display(cx.settings, &path));
        Ok(cx.ui.print(&format!("{reference}\n"))?)
    }
}

/// The line of a dry run that publishes an archive: requests to a registry are not shell commands.
pub fn push_line(
    settings: &Settings,
    archive: &std::path::Path,
    platform: Option<&crate::base::image::Platform>,
    options: PublishingOptions,
) -> String {
    let mut line = "cargo xtask push-archive".to_owned();
    if let Some(platform) = platform {
        line.push_str(&format!(" --platform {platform}"));
    }
    line.push_str(&format!(" --version {}", settings.version.value));
    if options.force {
        line.push_str(" --force");
    }
    if options.no_preflight {
        line.push_str(" --no-preflight");
    }
    let archive = crate::plan::quote_for_shell(&archive.to_string_lossy());
    format!("{line} {archive}\n")
}

/// The line of a dry run that tries the image before it is published; empty if the channel does not
/// ask for it.
pub fn smoke_line(settings: &Settings) -> String {
    match settings.channel.smoke {
        SmokeFirst::Yes => format!("cargo xtask smoke --version {}\n", settings.version.value),
        SmokeFirst::No => String::new(),
    }
}
