//! What is asked before anything is built: may it be published, may we push, is it released
//! already, and which tags would move.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Context, REVISION_LABEL};
use crate::{
    commands::build_image,
    config::Origin,
    error::Failure,
    image::VERSION_LABEL,
    oci::{image_config::ImageConfig, manifest::Manifest},
    probe::{self, Git},
    registry::client::{RawManifest, Registry},
    release::{self, TagPlan},
    settings::{Publish, Settings},
};

/// How the call wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Overwrite a released version, after its tag was typed.
    pub force: bool,
    pub preflight: bool,
}

/// What the version's own tag names today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    No,
    /// An image of the same version and commit: an earlier run got that far.
    Same(RawManifest),
    /// Another image; which, for people.
    Other(String),
}

/// Whether the channel lets the version out at all.
///
/// # Errors
/// Why not.
pub fn may_publish(settings: &Settings) -> Result<(), Failure> {
    let version = &settings.version;
    let channel = &settings.channel.name;
    match settings.channel.publish {
        Publish::Yes => Ok(()),
        Publish::No => Err(Failure::usage(format!(
            "the channel `{channel}` publishes nothing, and it takes `{}`",
            version.value
        ))
        .hint("see `publish` of the channel in xtask.toml")),
        Publish::ByName if version.origin == Origin::Flag("--version") => Ok(()),
        Publish::ByName => Err(Failure::usage(format!(
            "`{}` (from {}) is published only where it is asked for by name",
            version.value, version.origin
        ))
        .hint(format!("add `--version {}`", version.value))),
    }
}

/// Asks everything that can be asked before a build.
///
/// # Errors
/// The first thing that stands in the way.
pub fn run(cx: &Context, registry: &Registry, git: &Git, options: Options) -> Result<Released> {
    let settings = cx.settings;
    if let Some(why) = build_image::unpublishable(settings, git) {
        return Err(Failure::new(why).hint(work_tree_hint(settings)).into());
    }
    registry.check_push()?;
    let released = released(settings, registry, git)?;
    if let Released::Other(which) = &released
        && !options.force
    {
        return Err(refuse_overwrite(settings, which).into());
    }
    Ok(released)
}

/// How the work tree becomes as the channel wants it.
pub fn work_tree_hint(settings: &Settings) -> String {
    let version = &settings.version.value;
    format!(
        "commit, then tag the commit: `git tag v{version}` (`work-tree` of the channel `{}` in xtask.toml asks for it)",
        settings.channel.name
    )
}

/// The refusal of a version that is released otherwise.
pub fn refuse_overwrite(settings: &Settings, which: &str) -> Failure {
    let version = &settings.version.value;
    Failure::new(format!(
        "{} is released already, {which}",
        settings.image.repository.tagged(version.as_str())
    ))
    .hint("release the change under a new version")
    .hint("or overwrite it, for everybody who uses it: `--force` asks you to type the tag")
}

/// What the version's tag names today. Only `SemVer` versions are released for good.
///
/// # Errors
/// When the registry doesn't say.
pub fn released(settings: &Settings, registry: &Registry, git: &Git) -> Result<Released> {
    let version = &settings.version.value;
    if version.semver().is_none() {
        return Ok(Released::No);
    }
    let Some(found) = registry.manifest(version.as_str())? else {
        return Ok(Released::No);
    };
    let config = config_of(registry, &found)?;
    let revision = config.label(REVISION_LABEL);
    let same = config.label(VERSION_LABEL) == Some(version.as_str())
        && revision.is_some()
        && revision == git.values.sha.as_deref();
    if same {
        return Ok(Released::Same(found));
    }
    let mut which = format!("as {}", found.digest());
    if let Some(revision) = revision {
        let _ = write!(which, " from commit {revision}");
    }
    Ok(Released::Other(which))
}

/// The configuration of an image, or of the first image of an index.
fn config_of(registry: &Registry, found: &RawManifest) -> Result<ImageConfig> {
    let mut manifest: Manifest = serde_json::from_str(&found.content)?;
    if manifest.is_index()
        && let Some(first) = manifest.manifests.iter().find(|one| !one.is_attestation())
        && let Some(child) = registry.manifest(&first.digest)?
    {
        manifest = serde_json::from_str(&child.content)?;
    }
    let Some(config) = manifest.config else {
        return Ok(ImageConfig::default());
    };
    Ok(serde_json::from_reader(registry.blob(&config.digest)?)?)
}

/// Which tags move, by what is released now.
pub fn tags(cx: &Context, registry: &Registry, git: &Git) -> Result<TagPlan> {
    let settings = cx.settings;
    let tags = settings.tags(&git.values)?;
    let moving = tags
        .iter()
        .any(|tag| tag != settings.version.value.as_str());
    // A version with a single tag of its own goes back to nothing.
    let known = if moving {
        versions(cx, registry)?
    } else {
        Vec::new()
    };
    let version = &settings.version.value;
    Ok(release::plan_tags(
        &settings.channel,
        version,
        &tags,
        &known,
        &git.values,
    ))
}

/// The released versions: the registry's tags, else git's.
fn versions(cx: &Context, registry: &Registry) -> Result<Vec<String>> {
    let why = match registry.tags() {
        Ok(tags) => return Ok(tags),
        Err(why) => why,
    };
    cx.exec.check()?;
    let (tags, shallow) = probe::git_tags(cx.exec, &cx.settings.root);
    if tags.is_empty() || shallow {
        return Err(Failure::new(format!(
            "which versions are released cannot be found out: the registry's list of tags cannot be read ({why}), and this clone has {}",
            if shallow { "not all tags: it is shallow" } else { "no tags" }
        ))
        .hint("fetch them: `git fetch --tags --unshallow` (in GitHub Actions: `fetch-depth: 0` for actions/checkout)")
        .into());
    }
    cx.ui.warn(&format!(
        "the registry's list of tags cannot be read ({why}): git's tags say what is released"
    ));
    Ok(tags)
}

/// Asks for the tag that would be overwritten.
///
/// # Errors
/// When it is not typed.
pub fn confirm_overwrite(cx: &Context, which: &str) -> Result<(), Failure> {
    let version = cx.settings.version.value.as_str();
    if !cx.env.stdin_tty {
        return Err(refuse_overwrite(cx.settings, which)
            .hint("`--force` wants a terminal, for the tag to be typed"));
    }
    let reference = cx.settings.image.repository.tagged(version);
    let typed = cx.ui.ask(&format!(
        "{reference} is released already, {which}.\nWhoever uses it gets another image without notice. Type the tag to overwrite it:"
    ));
    if typed == version {
        Ok(())
    } else {
        Err(Failure::new("not overwritten: that was not the tag"))
    }
}
