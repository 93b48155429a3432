//! The checks before a build: whether this version may be published, whether we have permission to push,
//! and whether the version is released already.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{
    base::{
        error::Failure,
        image::VERSION_LABEL,
        version::{TemplateValues, Version, fill_template},
    },
    build::work_tree,
    cli::PublishingOptions,
    config::{
        layer::Origin,
        schema::{CHANNEL, Value},
    },
    facts::{
        context::Context,
        git::{self, WorkTree},
    },
    oci::{image_config::ImageConfig, manifest::Manifest},
    registry::client::{RawManifest, RegistryClient},
    release::{
        expected::REVISION_LABEL,
        tags::{self, TagPlan},
    },
    settings::{Publish, Settings},
};

/// The image that the version's own tag names in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    None,
    /// The image of the same version and commit: an earlier run pushed it.
    SameCommit(RawManifest),
    /// Any other image. Holds its description for people.
    Different(String),
}

/// Whether the channel allows publishing this version.
///
/// # Errors
/// When it does not, and when the version is a tag that another channel moves.
pub fn may_publish(settings: &Settings) -> Result<(), Failure> {
    let version = &settings.version;
    let channel = &settings.channel.name;
    if let Some(owner) = channel_that_moves_tag(settings, &version.value) {
        return Err(Failure::usage(format!(
            "the version `{}` is a tag that the channel `{owner}` moves from release to release",
            version.value
        ))
        .hint("publish under another version, such as `--version dev-me`"));
    }
    match settings.channel.publish {
        Publish::Yes => Ok(()),
        Publish::No => Err(Failure::usage(format!(
            "the channel `{channel}` publishes nothing, and the version `{}` is in it",
            version.value
        ))
        .hint("see `publish` of the channel in xtask.toml")),
        Publish::ByName if version.origin == Origin::Flag("--version") => Ok(()),
        Publish::ByName => Err(Failure::usage(format!(
            "`{}` (from {}) is published only if `--version` names it",
            version.value, version.origin
        ))
        .hint(format!("add `--version {}`", version.value))),
    }
}

/// Another channel that gives this tag to a version, such as `latest` or `1.2`. Publishing a version of that
/// name would take the tag from a release.
fn channel_that_moves_tag<'a>(settings: &'a Settings, tag: &Version) -> Option<&'a str> {
    // A template can make `1` or `1.2` of these versions, and `latest` of every version.
    let candidates = [format!("{tag}.0.0"), format!("{tag}.0"), "0.0.0".to_owned()];
    let candidates: Vec<_> = candidates
        .iter()
        .filter_map(|text| Version::parse(text).ok())
        .filter(|version| version.semver().is_some())
        .collect();
    let makes = |template: &String| {
        candidates.iter().any(|version| {
            let values = TemplateValues {
                version: Some(version),
                ..TemplateValues::default()
            };
            fill_template(template, &values).is_ok_and(|made| made == tag.as_str())
        })
    };
    let layer = &settings.layer;
    let channels = layer.channels().iter().map(String::as_str);
    channels
        .filter(|name| *name != settings.channel.name)
        .find(|name| {
            let tags = layer.get(&format!("{CHANNEL}.{name}.tags"));
            matches!(tags.map(|tags| &tags.value), Some(Value::List(tags)) if tags.iter().any(makes))
        })
}

/// Checks everything that can be checked before a build.
///
/// # Errors
/// The first thing that prevents publishing.
pub fn run(
    cx: &Context,
    registry: &RegistryClient,
    git: &WorkTree,
    options: PublishingOptions,
) -> Result<Existing> {
    let settings = cx.settings;
    if let Some(problem) = work_tree::problem(settings, git) {
        return Err(Failure::new(problem).hint(work_tree::hint(settings)).into());
    }
    registry.check_push()?;
    let existing = existing(settings, registry, git)?;
    if let Existing::Different(description) = &existing
        && !options.force
    {
        return Err(already_released_failure(settings, description).into());
    }
    Ok(existing)
}

/// The refusal to overwrite a released version.
pub fn already_released_failure(settings: &Settings, description: &str) -> Failure {
    let version = &settings.version.value;
    Failure::new(format!(
        "{} is released already, {description}",
        settings.image.repository.tagged(version.as_str())
    ))
    .hint("release the change under a new version")
    .hint("overwrite it for all its users: pass `--force`, which asks you to type the tag")
}

/// Asks the registry which image the version's tag names. A version that is not `SemVer` may be
/// overwritten, so for it nothing is asked.
///
/// # Errors
/// When the registry does not answer.
pub fn existing(
    settings: &Settings,
    registry: &RegistryClient,
    git: &WorkTree,
) -> Result<Existing> {
    let version = &settings.version.value;
    if version.semver().is_none() {
        return Ok(Existing::None);
    }
    let Some(found) = registry.manifest(version.as_str())? else {
        return Ok(Existing::None);
    };
    let config = config_of(registry, &found)?;
    let revision = config.label(REVISION_LABEL);
    let same = config.label(VERSION_LABEL) == Some(version.as_str())
        && revision.is_some()
        && revision == git.values.sha.as_deref();
    if same {
        return Ok(Existing::SameCommit(found));
    }
    let mut description = format!("as {}", found.digest());
    if let Some(revision) = revision {
        let _ = write!(description, " from commit {revision}");
    }
    Ok(Existing::Different(description))
}

/// The configuration of an image, or of the first image of an index.
fn config_of(registry: &RegistryClient, found: &RawManifest) -> Result<ImageConfig> {
    let mut manifest: Manifest = serde_json::from_slice(&found.content)?;
    if manifest.is_index()
        && let Some(first) = manifest.manifests.iter().find(|one| !one.is_attestation())
        && let Some(child) = registry.manifest(&first.digest)?
    {
        manifest = serde_json::from_slice(&child.content)?;
    }
    let Some(config) = manifest.config else {
        return Ok(ImageConfig::default());
    };
    Ok(serde_json::from_reader(registry.blob(&config.digest)?)?)
}

/// Decides which tags move, given the versions that are released now.
///
/// # Errors
/// When neither the registry nor git tells which versions are released.
pub fn plan_tags(cx: &Context, registry: &RegistryClient, git: &WorkTree) -> Result<TagPlan> {
    let settings = cx.settings;
    let tags = settings.tags(&git.values)?;
    let moving = tags
        .iter()
        .any(|tag| tag != settings.version.value.as_str());
    // The version's own tag never moves to an older version, so the released ones don't matter.
    let released = if moving {
        released_versions(cx, registry)?
    } else {
        Vec::new()
    };
    let version = &settings.version.value;
    Ok(tags::plan(
        &settings.channel,
        version,
        &tags,
        &released,
        &git.values,
    ))
}

/// The released versions: the registry's tags, or git's if the registry lists none.
fn released_versions(cx: &Context, registry: &RegistryClient) -> Result<Vec<String>> {
    let why = match registry.tags() {
        Ok(tags) => return Ok(tags),
        Err(why) => why,
    };
    cx.exec.fail_if_interrupted()?;
    let tags = git::tags(cx.exec, &cx.settings.root);
    if tags.names.is_empty() || tags.shallow {
        return Err(Failure::new(format!(
            "cannot find out which versions are released: the registry's list of tags cannot be read ({why}), and this clone has {}",
            if tags.shallow { "not all tags: it is shallow" } else { "no tags" }
        ))
        .hint("fetch them: `git fetch --tags --unshallow` (in GitHub Actions: `fetch-depth: 0` for actions/checkout)")
        .into());
    }
    cx.ui.warn(&format!(
        "the registry's list of tags cannot be read ({why}): the git tags are used as the list of released versions"
    ));
    Ok(tags.names)
}

/// Asks the user to type the tag that would be overwritten.
///
/// # Errors
/// When the user types something else, and when there is no terminal.
pub fn confirm_overwrite(cx: &Context, description: &str) -> Result<(), Failure> {
    let version = cx.settings.version.value.as_str();
    if !cx.env.stdin_tty {
        return Err(already_released_failure(cx.settings, description)
            .hint("run it in a terminal: `--force` asks you to type the tag"));
    }
    let reference = cx.settings.image.repository.tagged(version);
    let typed = cx.ui.ask(&format!(
        "{reference} is released already, {description}.\nEveryone who uses it will get another image without notice. Type the tag to overwrite it:"
    ));
    if typed == version {
        Ok(())
    } else {
        Err(Failure::new(
            "nothing was overwritten: you did not type the tag",
        ))
    }
}
