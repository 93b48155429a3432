//! `push-archive`: publishes an archive that was built before, here or to another repository.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{
    base::image::Platform,
    cli::{FlavourOption, PlatformOption, PublishingOptions, RepositoryOption, VersionOption},
    commands::command::Command,
    facts::{
        context::Context,
        git::{self, WorkTree},
    },
    oci::archive::Archive,
    registry::authentication::Access,
    release::{
        attest, client, destination, dist,
        expected::expected,
        paths,
        pipeline::{PublishRequest, publish, warn_of_refusal},
        preflight,
        sign::{Place, Signed, Signer, access::RegistryAccess, signs},
    },
};

/// Publish an archive that was built before
#[derive(Args, Clone, Debug)]
pub struct PushArchive {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    publishing: PublishingOptions,
    #[command(flatten)]
    platform: PlatformOption,
    #[command(flatten)]
    repository: RepositoryOption,
    /// An archive of build-multiarch or pack-archive
    archive: PathBuf,
}

impl Command for PushArchive {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let options = self.publishing;
        preflight::may_publish(cx.settings)?;
        let path = cx.env.cwd.join(&self.archive);
        let settings = destination::with_repository(cx.settings, &self.repository)?;
        // The labels name the repository that the image was built for, also at a mirror.
        let built_for = cx.settings;
        let cx = &Context {
            settings: &settings,
            ..*cx
        };
        let _lock = dist::lock_for_reading(&settings.root, std::slice::from_ref(&path));
        let archive = Archive::open(&path)?;
        let git = git::work_tree(cx.exec, &settings.root);
        let mut expected = expected(built_for, &git);
        if let Some(platform) = self.platform.parse()? {
            expected.platforms = vec![platform];
        }
        if cx.dry_run {
            let place = Place::of(&settings, built_for);
            dry_run(cx, &git, &archive, &path, &expected.platforms, place)?;
            warn_of_refusal(cx, &git, options);
            return Ok(());
        }
        let request = PublishRequest {
            git,
            options,
            expected,
            digest: Some(archive.root.digest.clone()),
        };
        publish(cx, request, |_| Ok(archive))
    }
}

/// Requests to a registry are not shell commands, so they are printed as comments.
fn dry_run(
    cx: &Context,
    git: &WorkTree,
    archive: &Archive,
    path: &Path,
    platforms: &[Platform],
    place: Place,
) -> Result<()> {
    let settings = cx.settings;
    let repository = settings.image.repository.as_str();
    let mut text = format!(
        "# push {} to {repository} by digest: {}\n",
        paths::display(settings, path),
        archive.root.digest
    );
    for tag in settings.tags(&git.values)? {
        text.push_str(&format!(
            "# tag it {repository}:{tag}, unless a newer version has that tag\n"
        ));
    }
    let reference = format!("{repository}@{}", archive.root.digest);
    if signs(settings, place)
        && let Some(signer) = Signer::for_dry_run(cx, &git.values)?
    {
        let platforms: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        let attestations = attest::planned(settings, &platforms, std::process::id());
        let registry = client::open(cx, Access::Pull)?;
        let access = &RegistryAccess::gather(cx, &registry)?;
        let reference = &reference;
        let image = Signed { reference, access };
        text.push_str(&signer.plan(cx, image, &attestations).render());
    }
    Ok(cx.ui.print_plan(&text)?)
}

#[cfg(test)]
impl crate::commands::testing::Examples for PushArchive {}
