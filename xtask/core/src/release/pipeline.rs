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
        attest::{self, Attestations},
        client,
        github::{self, Group},
        mirror, paths,
        preflight::{self, Decision, Released},
        promote, push,
        receipt::{Receipt, Signatures},
        sign::{Place, Signed, Signer, access::RegistryAccess},
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

/// Makes the archive of an image.
pub type Make<'a> = Box<dyn FnOnce(&mut Publication) -> Result<Archive> + 'a>;

/// One image of a release.
pub struct Part<'a> {
    /// With the settings of this image, and the repository that it is published to.
    pub cx: &'a Context<'a>,
    pub request: PublishRequest,
    pub make: Make<'a>,
}

/// The publication of an image in progress.
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
pub fn publish<'a>(
    cx: &'a Context<'a>,
    request: PublishRequest,
    make: impl FnOnce(&mut Publication) -> Result<Archive> + 'a,
) -> Result<()> {
    let make = Box::new(make);
    publish_all(vec![Part { cx, request, make }])
}

/// Publishes the images of a release, to one repository. No tag moves before the registry holds all images, as
/// they should be, and all are signed.
///
/// # Errors
/// As [`publish`].
pub fn publish_all(parts: Vec<Part>) -> Result<()> {
    let Some(first) = parts.first() else {
        return Ok(());
    };
    for part in &parts {
        let uncommitted = part.request.options.uncommitted();
        work_tree::check(part.cx.settings, &part.request.git, uncommitted)?;
    }
    let registry = client::open(first.cx, Access::Push)?;
    let mut begun = Vec::new();
    for part in parts {
        let mut publication = Publication::new(part.cx, &registry, part.request)?;
        let existing = publication.begin()?;
        begun.push((publication, existing, part.make));
    }
    let mut held = Vec::new();
    for (publication, existing, make) in begun {
        held.push(publication.bring(existing, make)?);
    }
    let mut signed = Vec::new();
    for one in held {
        signed.push(one.sign()?);
    }
    let count = signed.len();
    for (number, one) in signed.into_iter().enumerate() {
        let done = one.promote(number == 0);
        if number > 0 {
            done.with_context(|| {
                format!("{number} of {count} images have their tags; run the same command again to continue")
            })?;
        } else {
            done?;
        }
    }
    Ok(())
}

/// What this run made.
struct Made {
    image: Verified,
    attestations: Attestations,
}

/// What the registry has of the version.
enum Existing {
    /// Nothing, or an image that the user agreed to replace.
    Nothing,
    /// The image itself. At most its tags are missing.
    Complete(RawManifest),
}

/// An image that the registry holds as it should be.
struct Held<'a> {
    publication: Publication<'a>,
    image: RawManifest,
    verified: Verified,
    /// Those that this run made; none if the version's tag named the image already.
    attestations: Option<Attestations>,
    /// Whether the registry had the image before this run: then it may be signed already.
    was_there: bool,
}

/// An image that is complete but for its tags.
struct Complete<'a> {
    publication: Publication<'a>,
    image: RawManifest,
    verified: Verified,
    signatures: Signatures,
    attestations: Option<Attestations>,
}

impl<'a> Publication<'a> {
    fn new(
        cx: &'a Context<'a>,
        registry: &'a RegistryClient<'a>,
        request: PublishRequest,
    ) -> Result<Self> {
        let place = request.place(cx.settings);
        Ok(Self {
            cx,
            registry,
            replaces: None,
            signer: Signer::for_signing(cx, &request.git.values, place)?,
            request,
            phases: Vec::new(),
        })
    }

    /// Checks what can be checked before anything is built, and finds what the registry already has.
    fn begin(&mut self) -> Result<Existing> {
        let released = self.preflight()?;
        let digest = self.request.digest.clone();
        Ok(self.existing(released.as_ref(), digest.as_deref())?)
    }

    /// Makes the image and pushes it by digest, unless the registry has it; then verifies what the registry
    /// holds.
    fn bring(mut self, existing: Existing, make: Make) -> Result<Held<'a>> {
        let (image, made, was_there, hint) = match existing {
            Existing::Complete(image) => {
                self.cx.ui.status(
                    "Resuming",
                    "this commit's image is in the registry already: nothing is built or pushed",
                );
                let hint = if self.request.digest.is_some() {
                    "if a part is missing, push it again: pass `--force`; otherwise build an archive that matches the settings, and release it under a new version (no tag was moved)"
                } else {
                    "release under a new version, or build the image again and overwrite the tag: pass `--force` (no tag was moved)"
                };
                (image, None, true, hint)
            }
            Existing::Nothing => {
                let archive = make(&mut self)?;
                let made = self.phase("check", |it| {
                    let image = verify::archive(it.cx, &archive, &it.request.expected)?;
                    let attestations = attest::write(it.cx, &archive, &image)?;
                    Ok(Made {
                        image,
                        attestations,
                    })
                })?;
                let was_there = self.signer.is_some() && {
                    let found = self.registry.manifest(&archive.root.digest);
                    found.is_ok_and(|found| found.is_some())
                };
                let image = self.push(&archive)?;
                let hint = "run the same command again; if it fails again, build with `--no-cache` (no tag was moved)";
                (image, Some(made), was_there, hint)
            }
        };
        let digest = image.digest();
        let verified = self.phase("verify", |it| {
            let depth = match it.request.options.verify {
                VerifyDepth::Shallow => Depth::Shallow,
                VerifyDepth::Deep => Depth::Deep,
            };
            let expected = &it.request.expected;
            verify::in_registry(it.cx, it.registry, &digest, expected, depth, hint)
        })?;
        // The layers of the archive were read when it was verified.
        let (verified, attestations) = match made {
            Some(made) => (made.image, Some(made.attestations)),
            None => (verified, None),
        };
        Ok(Held {
            publication: self,
            image,
            verified,
            attestations,
            was_there,
        })
    }

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
    fn existing(
        &mut self,
        released: Option<&Released>,
        digest: Option<&str>,
    ) -> Result<Existing, Failure> {
        match preflight::decide(released, digest, self.request.options.force) {
            Decision::Publish => Ok(Existing::Nothing),
            Decision::Resume(released) => Ok(Existing::Complete(released.manifest.clone())),
            Decision::Refuse(released) => {
                let why = preflight::already_released_failure(self.cx.settings, released, digest);
                Err(match self.continuation(released) {
                    Some(line) => {
                        why.hint(format!("continue the run that built this image: `{line}`"))
                    }
                    None => why,
                })
            }
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

    /// The signatures of the image and its attestations. `made` are the attestations that this run made. What an
    /// interrupted run signed is not signed again; that can only be if the registry had the image before this run.
    fn signatures(
        &mut self,
        signer: &Signer,
        image: Signed,
        verified: &Verified,
        made: &mut Option<Attestations>,
        was_there: bool,
    ) -> Result<Signatures> {
        // A mirror has got the signatures of the repository that it mirrors.
        let may_be_signed = was_there || self.request.place(self.cx.settings) == Place::Mirror;
        let count = if may_be_signed && signer.has_signed(self.cx, image, verified)? {
            attest::wanted(self.cx.settings, &verified.platform_names()).len()
        } else {
            let attestations = match made.take() {
                Some(made) => made,
                None => attest::write(self.cx, self.registry, verified)?,
            };
            let list = &made.insert(attestations).list;
            signer.plan(self.cx, image, list).run(self.cx)?;
            list.len()
        };
        Ok(Signatures {
            verify: Some(signer.command(self.cx, image)),
            attestations: count,
        })
    }

    /// The command that continues with the archive of an earlier run, if that has the released image. With
    /// uncommitted changes, the commit does not show that an image is the same.
    fn continuation(&self, released: &Released) -> Option<String> {
        if !self.request.git.dirty {
            return None;
        }
        let mut settings = self.cx.settings.clone();
        let there = settings.image.repository.clone();
        settings.image.repository = settings.configured_repository.clone();
        let repository = RepositoryOption {
            repository: (there != settings.image.repository).then(|| there.as_str().to_owned()),
        };
        let platforms = &self.request.expected.platforms;
        let of_one = |platform| (paths::archive(&settings, Some(platform)), Some(platform));
        let mut archives = vec![(paths::archive(&settings, None), None)];
        archives.extend(platforms.iter().map(of_one));
        let digest = released.manifest.digest();
        let (path, platform) = archives.into_iter().find(|(path, _)| {
            Archive::open(path).is_ok_and(|archive| archive.root.digest == digest)
        })?;
        let options = self.request.options;
        let line = push_line(&settings, &path, platform, options, &repository);
        Some(line.trim_end().to_owned())
    }
}

impl<'a> Held<'a> {
    /// Signs the image.
    fn sign(self) -> Result<Complete<'a>> {
        let Self {
            mut publication,
            image,
            verified,
            mut attestations,
            was_there,
        } = self;
        let cx = publication.cx;
        let digest = image.digest();
        // An image that will get no tag is not signed.
        let git = &publication.request.git;
        let released = preflight::released(cx.settings, publication.registry, git, Some(&digest))?;
        publication.existing(released.as_ref(), Some(&digest))?;
        // Without it, only the version's own tag could be set. A warning comes with the promotion.
        preflight::released_versions(cx, publication.registry, &publication.request.git)?;
        if publication.request.place(cx.settings) == Place::Mirror {
            publication.phase("copy", |it| {
                mirror::copy_from_source(it.cx, it.registry, &digest)
            })?;
        }
        let reference = format!("{}@{digest}", cx.settings.image.repository.as_str());
        let signatures = match publication.signer.take() {
            Some(signer) => {
                let signed = Signed {
                    reference: &reference,
                    access: &RegistryAccess::gather(cx, publication.registry)?,
                };
                publication
                    .phase("sign", |it| {
                        it.signatures(&signer, signed, &verified, &mut attestations, was_there)
                    })
                    .context("the image is not signed; no tag was moved")?
            }
            None => Signatures::default(),
        };
        Ok(Complete {
            publication,
            image,
            verified,
            signatures,
            attestations,
        })
    }
}

impl Complete<'_> {
    /// Gives the image its tags, and writes the receipt. The outputs of the job are set for the first image of a
    /// release only.
    fn promote(self, is_first: bool) -> Result<()> {
        let Self {
            mut publication,
            image,
            verified,
            signatures,
            attestations,
        } = self;
        let cx = publication.cx;
        let is_mirror = publication.request.place(cx.settings) == Place::Mirror;
        let reference = format!(
            "{}@{}",
            cx.settings.image.repository.as_str(),
            image.digest()
        );
        let tags = publication.phase("promote", |it| {
            let replaces = it.replaces.as_deref();
            promote::promote(it.cx, it.registry, &it.request.git, &image, replaces)
        })?;
        let receipt = Receipt::new(
            cx,
            &publication.request.git,
            verified.clone(),
            tags,
            signatures,
            publication.phases,
        );
        // An interrupted run has not left its files.
        let finish = || -> Result<_> {
            if let Some(made) = attestations {
                made.finish(cx)?;
            } else if attest::lacks_files(cx.settings, &verified.platform_names()) {
                attest::write(cx, publication.registry, &verified)?.finish(cx)?;
            }
            receipt.write(cx, is_mirror)
        };
        let path = finish().map_err(|why| {
            Failure::new(format!(
                "{reference} is published, and the files about it cannot be written: {why:#}"
            ))
            .hint("remove the cause, then run the same command again: it only writes the receipt and the attestations, without building or pushing")
        })?;
        // The image is published, so a failure would only make the job publish it again.
        for why in github::report(cx.env, &receipt, is_first) {
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
    line.push_str(&format!(" {}", settings.version_options()));
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
            format!("cargo xtask smoke {}\n", settings.version_options())
        }
        SmokeFirst::No => String::new(),
    }
}
