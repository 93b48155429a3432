//! The pipeline of a publication. `push-image`, `push-multiarch` and `push-archive` differ in what
//! makes the archive; all else is the same.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    base::{
        error::Failure,
        ui::{Clock, human_time},
    },
    build::work_tree,
    cli::{PublishingOptions, RepositoryOption, VerifyDepth},
    engine::label,
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
        attest::{self, Attestation},
        destination,
        github::{self, Group},
        mirror, paths,
        preflight::{self, Decision, Released},
        promote, push,
        receipt::{Receipt, Signatures},
        sign::{Place, Signed, Signer},
        verify,
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
}

impl PublishRequest {
    /// The labels name the repository that the image was built for.
    fn place(&self, settings: &Settings) -> Place {
        let built_for = self.expected.labels.get(label::IMAGE);
        if built_for.map(String::as_str) == Some(settings.image.repository.as_str()) {
            Place::Own
        } else {
            Place::Mirror
        }
    }
}

/// A publication in progress.
pub struct Publication<'a> {
    cx: &'a Context<'a>,
    registry: &'a RegistryClient<'a>,
    request: PublishRequest,
    /// The digest of the released image that the user agreed to replace.
    replaces: Option<String>,
    /// None if the channel does not sign.
    signer: Option<Signer>,
    /// The phases so far, each with its duration in seconds.
    phases: Vec<(String, f64)>,
}

/// Publishes an image to the repository of the settings. `make` makes its archive. It is not called if the
/// registry has the image of this commit already: then only what an interrupted run left undone is done.
///
/// # Errors
/// When a phase fails. Its message says whether a tag has moved.
pub fn publish(
    cx: &Context,
    request: PublishRequest,
    make: impl FnOnce(&mut Publication) -> Result<Archive>,
) -> Result<()> {
    work_tree::check(cx.settings, &request.git, request.options.uncommitted())?;
    let signer = Signer::for_signing(cx, &request.git.values, request.place(cx.settings))?;
    let registry = destination::registry(cx, Access::Push);
    let mut publication = Publication {
        cx,
        registry: &registry,
        request,
        replaces: None,
        signer,
        phases: Vec::new(),
    };
    let released = publication.preflight()?;
    let digest = publication.request.digest.clone();
    let existing = publication.existing(released.as_ref(), digest.as_deref())?;
    if let Existing::Complete(published) = existing {
        cx.ui.status(
            "Resuming",
            "this commit's image is in the registry already: nothing is built or pushed",
        );
        let hint = if digest.is_some() {
            "build an archive that is as the settings say, and release it under a new version (no tag was moved)"
        } else {
            "release under a new version, or build the image again and overwrite the tag: pass `--force` (no tag was moved)"
        };
        return publication.finish(published, None, hint);
    }
    let archive = make(&mut publication)?;
    let made = publication.phase("check", |it| {
        let image = verify::archive(it.cx, &archive, &it.request.expected)?;
        let attestations = attest::write(it.cx, &archive, &image)?;
        Ok(Made {
            image,
            attestations,
        })
    })?;
    let pushed = publication.push(&archive)?;
    let hint =
        "run the same command again; if it fails again, build with `--no-cache` (no tag was moved)";
    publication.finish(&pushed, Some(made), hint)
}

/// What this run made.
struct Made {
    image: Verified,
    attestations: Vec<Attestation>,
}

/// What the registry has of the version.
enum Existing<'a> {
    /// Nothing, or an image that the user agreed to replace.
    Nothing,
    /// The image itself. At most its tags are missing.
    Complete(&'a RawManifest),
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

    fn preflight(&mut self) -> Result<Option<Released>> {
        if self.request.options.no_preflight {
            return Ok(None);
        }
        self.phase("preflight", |it| {
            it.cx.ui.status(
                "Asking",
                &format!("{} whether this may be pushed", it.registry.host()),
            );
            preflight::run(it.cx, it.registry, &it.request.git)
        })
    }

    /// What the registry has of the version. If that is another image, the user agrees to replace it.
    fn existing<'a>(
        &mut self,
        released: Option<&'a Released>,
        digest: Option<&str>,
    ) -> Result<Existing<'a>, Failure> {
        match preflight::decide(released, digest, self.request.options.force) {
            Decision::Publish => Ok(Existing::Nothing),
            Decision::Resume(released) => Ok(Existing::Complete(&released.manifest)),
            Decision::Refuse(released) => Err(preflight::already_released_failure(
                self.cx.settings,
                released,
                digest,
            )),
            Decision::Replace(released) => {
                let replaced = released.manifest.digest();
                if self.replaces.as_ref() != Some(&replaced) {
                    preflight::confirm_overwrite(self.cx, released)?;
                    self.replaces = Some(replaced);
                }
                Ok(Existing::Nothing)
            }
        }
    }

    fn push(&mut self, archive: &Archive) -> Result<RawManifest> {
        self.phase("push", |it| push::push(it.cx, it.registry, archive))
            .context("the push failed; no tag was moved")
    }

    /// Signs the image and its attestations. What an interrupted run signed is not signed again.
    fn sign(
        &mut self,
        signer: &Signer,
        image: Signed,
        verified: &Verified,
        made: Option<&[Attestation]>,
    ) -> Result<Signatures> {
        // A mirror has got the signatures of the repository that it mirrors.
        let attestations = match made {
            Some(made) if self.request.place(self.cx.settings) == Place::Own => made.to_vec(),
            Some(_) | None if signer.has_signed(self.cx, image)? => {
                let platforms = verified.platform_names();
                return Ok(Signatures {
                    verify: Some(signer.command(self.cx, image)),
                    attestations: attest::planned(self.cx.settings, &platforms).len(),
                });
            }
            Some(made) => made.to_vec(),
            None => attest::write(self.cx, self.registry, verified)?,
        };
        self.cx
            .exec
            .run(&signer.plan(self.cx, image, &attestations))?;
        Ok(Signatures {
            verify: Some(signer.command(self.cx, image)),
            attestations: attestations.len(),
        })
    }

    /// Verifies what the registry holds, signs it, gives it its tags, and writes the receipt. `made` is what this
    /// run pushed; none if the registry had the image. `hint` says what to do if the registry holds something else.
    fn finish(mut self, image: &RawManifest, made: Option<Made>, hint: &str) -> Result<()> {
        let cx = self.cx;
        let digest = image.digest();
        let verified = self.phase("verify", |it| {
            let depth = match it.request.options.verify {
                VerifyDepth::Shallow => Depth::Shallow,
                VerifyDepth::Deep => Depth::Deep,
            };
            verify::in_registry(
                it.cx,
                it.registry,
                &digest,
                &it.request.expected,
                depth,
                hint,
            )
        })?;
        // The layers of the archive were read when it was verified.
        let (verified, attestations) = match made {
            Some(made) => (made.image, Some(made.attestations)),
            None => (verified, None),
        };
        // An image that will get no tag is not signed.
        let released =
            preflight::released(cx.settings, self.registry, &self.request.git, Some(&digest))?;
        self.existing(released.as_ref(), Some(&digest))?;
        let reference = format!("{}@{digest}", cx.settings.image.repository.as_str());
        let is_mirror = self.request.place(cx.settings) == Place::Mirror;
        if is_mirror {
            self.phase("copy", |it| {
                mirror::copy_from_source(it.cx, it.registry, &digest)
            })?;
        }
        let signatures = match self.signer.take() {
            Some(signer) => {
                let image = Signed {
                    reference: &reference,
                    plain_http: self.registry.is_plain_http(),
                };
                self.phase("sign", |it| {
                    it.sign(&signer, image, &verified, attestations.as_deref())
                })
                .context("the image is not signed; no tag was moved")?
            }
            None => Signatures::default(),
        };
        let tags = self.phase("promote", |it| {
            let replaces = it.replaces.as_deref();
            promote::promote(it.cx, it.registry, &it.request.git, image, replaces)
        })?;
        let receipt = Receipt::new(
            cx,
            &self.request.git,
            verified,
            tags,
            signatures,
            self.phases,
        );
        let path = receipt.write(cx, is_mirror).map_err(|why| {
            Failure::new(format!(
                "{reference} is published, and its receipt cannot be written: {why:#}"
            ))
            .hint("remove the cause, then run the same command again: it only writes the receipt, without building or pushing")
        })?;
        // The image is published, so a failure would only make the job publish it again.
        for why in github::report(cx.env, &receipt) {
            cx.ui.warn(&format!("the image is published, but {why:#}"));
        }
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
    repository: &RepositoryOption,
) -> String {
    let mut line = "cargo xtask push-archive".to_owned();
    if let Some(platform) = platform {
        line.push_str(&format!(" --platform {platform}"));
    }
    line.push_str(&format!(" --version {}", settings.version.value.argument()));
    if let Some(repository) = &repository.repository {
        line.push_str(&format!(" --repository {repository}"));
    }
    for (is_set, flag) in [
        (options.force, " --force"),
        (options.no_preflight, " --no-preflight"),
        (options.allow_dirty, " --allow-dirty"),
        (options.verify == VerifyDepth::Deep, " --verify deep"),
    ] {
        if is_set {
            line.push_str(flag);
        }
    }
    let archive = crate::plan::quote_for_shell(&archive.to_string_lossy());
    format!("{line} {archive}\n")
}

/// Says after a dry run that the same command would refuse this work tree.
pub fn warn_of_refusal(cx: &Context, git: &WorkTree, options: PublishingOptions) {
    if let Err(why) = work_tree::check(cx.settings, git, options.uncommitted()) {
        cx.ui
            .warn(&format!("without `--dry-run` this is refused: {why}"));
        for hint in why.hint_lines() {
            cx.ui.hint(hint);
        }
    }
}

/// The line of a dry run that tries the image before it is published; empty if the channel does not
/// ask for it.
pub fn smoke_line(settings: &Settings) -> String {
    match settings.channel.smoke {
        SmokeFirst::Yes => {
            let version = settings.version.value.argument();
            format!("cargo xtask smoke --version {version}\n")
        }
        SmokeFirst::No => String::new(),
    }
}
