//! The checks before a build: whether this version may be published, whether we have permission to push,
//! whether the version is released already, and which tags it takes.

use anyhow::Result;

use crate::{
    base::{
        error::Failure,
        image::VERSION_LABEL,
        version::{TemplateValues, Version, fill_template, is_left_out},
    },
    build::work_tree,
    config::{
        layer::Origin,
        schema::{CHANNEL, Value},
    },
    facts::{
        context::Context,
        git::{self, WorkTree},
    },
    oci::{
        image_config::ImageConfig,
        manifest::Manifest,
        verify::{check_manifest, read_config},
    },
    registry::client::{RawManifest, RegistryClient},
    release::{expected::REVISION_LABEL, tags},
    settings::{Publish, Settings},
};

/// A released image: the one that the version's own tag names in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub manifest: RawManifest,
    /// The commit that it was built from, if its labels name one.
    pub revision: Option<String>,
    /// The reason why its labels cannot be read, if a part of it is missing or damaged.
    pub broken: Option<String>,
    /// Whether it is of this version and commit: then an earlier run pushed it.
    pub is_same_commit: bool,
}

impl Released {
    /// For people.
    fn description(&self) -> String {
        let digest = self.manifest.digest();
        match (&self.revision, &self.broken) {
            (_, Some(why)) => format!("as {digest} (broken: {why})"),
            (Some(revision), None) => format!("as {digest} from commit {revision}"),
            (None, None) => format!("as {digest}"),
        }
    }
}

/// What to do about a released image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// The version is not released.
    Publish,
    /// Only what is missing is done, without a build.
    Resume(&'a Released),
    /// The user is asked to agree.
    Replace(&'a Released),
    Refuse(&'a Released),
}

/// Decides what to do about a released image. `digest` is that of the image to publish, if it is known. With
/// `force` an image that is not known to be the same is built and replaced, and one that is the same is pushed again.
pub fn decide<'a>(
    released: Option<&'a Released>,
    digest: Option<&str>,
    force: bool,
) -> Decision<'a> {
    let Some(released) = released else {
        return Decision::Publish;
    };
    let is_same = digest.map(|digest| digest == released.manifest.digest());
    match (is_same, force) {
        (Some(true), true) => Decision::Publish, // the registry may have lost a part
        (Some(true), false) => Decision::Resume(released),
        (None, false) if released.is_same_commit => Decision::Resume(released),
        (Some(false) | None, true) => Decision::Replace(released),
        (Some(false) | None, false) => Decision::Refuse(released),
    }
}

/// Whether the channel allows publishing this version.
///
/// # Errors
/// When it does not, when the version is a tag that another channel moves, and when the version is not what
/// it looks like.
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
        Publish::Yes => {}
        Publish::No => {
            return Err(Failure::usage(format!(
                "the channel `{channel}` publishes nothing, and the version `{}` is in it",
                version.value
            ))
            .hint("see `publish` of the channel in xtask.toml"));
        }
        Publish::ByName if version.origin == Origin::Flag("--version") => {}
        Publish::ByName => {
            return Err(Failure::usage(format!(
                "`{}` (from {}) is published only if `--version` names it",
                version.value, version.origin
            ))
            .hint(format!("add `--version {}`", version.value)));
        }
    }
    refuse_build_metadata(settings)?;
    refuse_misunderstood(settings)
}

/// The tag of a version with build metadata reads as a pre-release. So a later, older release would not know
/// that it has to leave `latest` alone.
fn refuse_build_metadata(settings: &Settings) -> Result<(), Failure> {
    let version = &settings.version.value;
    let Some(number) = version.semver().filter(|_| version.has_build_metadata()) else {
        return Ok(());
    };
    let Some(moving) = tags::moving_tag(&settings.channel, version) else {
        return Ok(());
    };
    let release = semver::Version {
        build: semver::BuildMetadata::EMPTY,
        ..number.clone()
    };
    Err(Failure::usage(format!(
        "the version `{number}` has build metadata (`+{}`), and a tag cannot contain `+`: nobody could tell \
         its tag `{version}` from a pre-release, and a later release of an older version would take `{moving}`",
        number.build
    ))
    .hint(format!(
        "release it without the metadata: `--version {release}`, or under the next number"
    ))
    .hint(format!(
        "add a `[[channel]]` that takes it with no other tag than `{{version}}`, before `{}`",
        settings.channel.name
    )))
}

/// Refuses a version that is not what its form says: what `git describe` prints is no pre-release, and
/// `2026.01.05` is no release. A channel with a pattern for them accepts them.
fn refuse_misunderstood(settings: &Settings) -> Result<(), Failure> {
    let version = &settings.version.value;
    let channel = &settings.channel;
    let general = ["*", "semver:release", "semver:prerelease"];
    let has_own_pattern = channel
        .r#match
        .iter()
        .any(|pattern| !general.contains(&pattern.as_str()) && version.matches(pattern));
    if has_own_pattern {
        return Ok(());
    }
    let add_channel = format!(
        "publish it as it is: add a `[[channel]]` with a pattern for such versions to `match`, before `{}`",
        channel.name
    );
    if let Some(release) = version.described_release() {
        return Err(Failure::usage(format!(
            "the version `{version}` is what `git describe` prints for changes after {release}, but SemVer orders it before {release}"
        ))
        .hint(format!("publish it as a version for development: `--version dev-{version}`"))
        .hint("release it: commit the changes, and tag the commit with a new version")
        .hint(add_channel));
    }
    if let Some(meant) = version.meant_release() {
        return Err(Failure::usage(format!(
            "the version `{version}` looks like a release, but it is not a SemVer version"
        ))
        .hint(format!("write it as SemVer does: `--version {meant}`"))
        .hint(add_channel));
    }
    Ok(())
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
            !is_left_out(template, version)
                && fill_template(template, &values).is_ok_and(|made| made == tag.as_str())
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

/// Asks the registry everything that can be asked before a build. Returns the released image, if there is one.
///
/// # Errors
/// The first thing that prevents publishing.
pub fn run(cx: &Context, registry: &RegistryClient, git: &WorkTree) -> Result<Option<Released>> {
    registry.check_push()?;
    let released = released(cx.settings, registry, git, None)?;
    released_versions(cx, registry, git)?;
    Ok(released)
}

/// The refusal to overwrite a released version. `digest` is that of the other image, if it is known.
pub fn already_released_failure(
    settings: &Settings,
    released: &Released,
    digest: Option<&str>,
) -> Failure {
    is_released(settings, released, digest)
        .hint("overwrite it for all its users: pass `--force`, which asks you to type the tag")
}

fn is_released(settings: &Settings, released: &Released, digest: Option<&str>) -> Failure {
    let other = digest.map_or(String::new(), |digest| format!(", which is not {digest}"));
    Failure::new(format!(
        "{} is released already, {}{other}",
        settings.image.repository.tagged(&settings.own_tag()),
        released.description()
    ))
    .hint("release the change under a new version")
}

/// Asks the registry which image the version's tag names. A version that is not `SemVer` may be
/// overwritten, so for it nothing is asked. An image with the digest `ours` counts as one of this commit, without a
/// look at its labels.
///
/// # Errors
/// When the registry does not answer.
pub fn released(
    settings: &Settings,
    registry: &RegistryClient,
    git: &WorkTree,
    ours: Option<&str>,
) -> Result<Option<Released>> {
    let version = &settings.version.value;
    if version.semver().is_none() {
        return Ok(None);
    }
    let Some(manifest) = registry.manifest(&settings.own_tag())? else {
        return Ok(None);
    };
    if ours == Some(manifest.digest().as_str()) {
        return Ok(Some(Released {
            manifest,
            revision: git.values.sha.clone(),
            broken: None,
            is_same_commit: true,
        }));
    }
    let (config, broken) = match config_of(registry, &manifest)? {
        Config::Found(config) => (config, None),
        Config::Broken(why) => (Box::default(), Some(why)),
    };
    let revision = config.label(REVISION_LABEL).map(str::to_owned);
    Ok(Some(Released {
        is_same_commit: config.label(VERSION_LABEL) == Some(version.as_str())
            && revision.is_some()
            && revision == git.values.sha
            && !git.dirty,
        manifest,
        revision,
        broken,
    }))
}

/// What an image's labels say about its version.
pub enum NamedVersion {
    SemVer(String),
    /// They name none, or one that is not `SemVer`.
    None,
    /// The image is broken, for this reason.
    Broken(String),
}

/// The version that an image's labels name.
///
/// # Errors
/// When the registry refuses or does not answer, and when it sends something else than what it was asked for.
pub fn version_of(registry: &RegistryClient, manifest: &RawManifest) -> Result<NamedVersion> {
    let config = match config_of(registry, manifest)? {
        Config::Found(config) => config,
        Config::Broken(why) => return Ok(NamedVersion::Broken(why)),
    };
    let version = config
        .label(VERSION_LABEL)
        .filter(|text| Version::parse(text).is_ok_and(|version| version.semver().is_some()));
    Ok(version.map_or(NamedVersion::None, |version| {
        NamedVersion::SemVer(version.to_owned())
    }))
}

/// An image's configuration.
enum Config {
    Found(Box<ImageConfig>),
    /// The reason why there is none.
    Broken(String),
}

/// The configuration of an image, or of the first image of an index. A part that is missing is waited for: the
/// registry may show it late.
fn config_of(registry: &RegistryClient, found: &RawManifest) -> Result<Config> {
    let mut manifest: Manifest = match serde_json::from_slice(&found.content) {
        Ok(manifest) => manifest,
        Err(why) => return Ok(unclear(&why)),
    };
    if manifest.is_index()
        && let Some(first) = manifest.manifests.iter().find(|one| !one.is_attestation())
    {
        let digest = &first.digest;
        let Some(child) = registry.wait_for(|| registry.manifest(digest))? else {
            return Ok(Config::Broken(format!("manifest {digest} is missing")));
        };
        check_manifest(&child.content, digest)?;
        manifest = match serde_json::from_slice(&child.content) {
            Ok(manifest) => manifest,
            Err(why) => return Ok(unclear(&why)),
        };
    }
    let Some(config) = manifest.config else {
        return Ok(Config::Found(Box::default()));
    };
    let why = match read_config(registry, &config) {
        Ok(config) => return Ok(Config::Found(Box::new(config))),
        Err(why) => why,
    };
    if why.is::<serde_json::Error>() {
        return Ok(Config::Broken(format!("{why:#}")));
    }
    let digest = &config.digest;
    match registry.wait_for(|| registry.find_blob(digest)) {
        Ok(None) => Ok(Config::Broken(format!("configuration {digest} is missing"))),
        Ok(Some(_)) | Err(_) => Err(why),
    }
}

fn unclear(why: &serde_json::Error) -> Config {
    Config::Broken(format!("its manifest cannot be read: {why}"))
}

/// The versions that are released.
pub struct ReleasedVersions {
    pub names: Vec<String>,
    /// What the user must know if they are not the registry's list of tags.
    pub warning: Option<String>,
}

impl From<Vec<String>> for ReleasedVersions {
    fn from(names: Vec<String>) -> Self {
        Self {
            names,
            warning: None,
        }
    }
}

/// The released versions of this flavour: the registry's tags, without those of other flavours. If the registry's list
/// cannot be read to its end, they are the git tags, and the versions of the images that the tags of this version name
/// now. Empty if this version has no tag but its own.
///
/// # Errors
/// When the registry's list cannot be read, and git's tags or an image's label are missing too.
pub fn released_versions(
    cx: &Context,
    registry: &RegistryClient,
    git: &WorkTree,
) -> Result<ReleasedVersions> {
    let own = cx.settings.own_tag();
    let mut moving = cx.settings.tags(&git.values)?;
    moving.retain(|tag| *tag != own);
    if moving.is_empty() {
        return Ok(Vec::new().into());
    }
    let why = match registry.tags() {
        Ok(tags) => {
            let versions = tags.iter().filter_map(|tag| cx.settings.unflavoured(tag));
            return Ok(versions.map(str::to_owned).collect::<Vec<_>>().into());
        }
        Err(why) => why,
    };
    cx.exec.fail_if_interrupted()?;
    let unknown = |reason: &str| {
        Failure::new(format!(
            "cannot find out which versions are released: the registry's list of tags cannot be read ({why}), and {reason}"
        ))
    };
    let git = git::tags(cx.exec, &cx.settings.root);
    if git.names.is_empty() || git.shallow {
        let reason = if git.shallow {
            "this clone has not all tags: it is shallow"
        } else {
            "this clone has no tags"
        };
        return Err(unknown(reason)
            .hint("fetch them: `git fetch --tags --unshallow` (in GitHub Actions: `fetch-depth: 0` for actions/checkout)")
            .into());
    }
    let of_tag = |tag: &String| work_tree::version_of_tag(cx.settings, tag);
    let mut released: Vec<_> = git
        .names
        .iter()
        .filter_map(of_tag)
        .map(|version| version.argument())
        .collect();
    for tag in &moving {
        let Some(manifest) = registry.manifest(tag)? else {
            continue;
        };
        let reference = cx.settings.image.repository.tagged(tag);
        let reason = match version_of(registry, &manifest)? {
            NamedVersion::SemVer(version) => {
                released.push(version);
                continue;
            }
            NamedVersion::None => format!("the image of {reference} names no version"),
            NamedVersion::Broken(why) => format!("the image of {reference} is broken: {why}"),
        };
        return Err(unknown(&reason)
            .hint("run the same command again when the registry lists its tags")
            .hint(format!(
                "or remove the tag `{tag}`, if it may move to this version"
            ))
            .into());
    }
    Ok(ReleasedVersions {
        names: released,
        warning: Some(format!(
            "the registry's list of tags cannot be read ({why}): the git tags are used as the list of released versions"
        )),
    })
}

/// Asks the user to type the tag that would be overwritten.
///
/// # Errors
/// When the user types something else, and when there is no terminal.
pub fn confirm_overwrite(cx: &Context, released: &Released) -> Result<(), Failure> {
    let tag = cx.settings.own_tag();
    if !cx.env.stdin_tty {
        return Err(is_released(cx.settings, released, None)
            .hint("overwrite it for all its users: run the same command in a terminal, where `--force` asks you to type the tag; no option answers that question"));
    }
    let reference = cx.settings.image.repository.tagged(&tag);
    let typed = cx.exec.ask(&format!(
        "{reference} is released already, {}.\nEveryone who uses it will get another image without notice. Type the tag to overwrite it:",
        released.description()
    ))?;
    if typed == tag {
        Ok(())
    } else {
        Err(Failure::new(
            "nothing was overwritten: you did not type the tag",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    #[test]
    fn a_released_image_is_resumed_replaced_or_kept() {
        let released = |is_same_commit| Released {
            manifest: RawManifest {
                media_type: String::new(),
                content: b"{}".to_vec(),
            },
            revision: None,
            broken: None,
            is_same_commit,
        };
        let (ours, other) = (released(true), released(false));
        let digest = ours.manifest.digest();
        assert_eq!(decide(None, None, true), Decision::Publish);
        // Before the build, the digest is unknown.
        assert_eq!(decide(Some(&ours), None, false), Decision::Resume(&ours));
        assert_eq!(decide(Some(&ours), None, true), Decision::Replace(&ours));
        assert_eq!(decide(Some(&other), None, false), Decision::Refuse(&other));
        assert_eq!(decide(Some(&other), None, true), Decision::Replace(&other));
        let known = decide(Some(&other), Some(&digest), false);
        assert_eq!(known, Decision::Resume(&other));
        let known = decide(Some(&other), Some(&digest), true);
        assert_eq!(known, Decision::Publish);
        let wrong = Some("sha256:other");
        assert_eq!(decide(Some(&ours), wrong, false), Decision::Refuse(&ours));
        assert_eq!(decide(Some(&ours), wrong, true), Decision::Replace(&ours));
    }

    fn refusal(project: &str, version: &str) -> Option<String> {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n{project}"),
            local: None,
        };
        let settings = Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap();
        may_publish(&settings).map_err(|why| why.to_string()).err()
    }

    const OWN: &str =
        "[[channel]]\nname = 'own'\nmatch = ['*.*.*-*']\ntags = ['{version}']\npublish = 'yes'\n";

    #[test]
    fn build_metadata_has_no_place_beside_moving_tags() {
        assert_eq!(
            refusal("", "1.3.0+b1").unwrap(),
            "the version `1.3.0+b1` has build metadata (`+b1`), and a tag cannot contain `+`: nobody could tell \
             its tag `1.3.0-b1` from a pre-release, and a later release of an older version would take `latest`"
        );
        assert_eq!(refusal("", "1.3.0-rc.1+b1"), None, "it takes no moving tag");
        assert_eq!(refusal(OWN, "1.3.0+b1"), None);
    }

    #[test]
    fn a_version_that_is_not_what_its_form_says_is_refused() {
        for version in ["v1.2.3-4-g0a1b2c3", "1.2.3-dirty", "1.2.3-4-g0a1b2c3-dirty"] {
            let why = refusal("", version).unwrap();
            assert!(why.contains("is what `git describe` prints"), "{why}");
            assert_eq!(refusal(OWN, version), None);
        }
        for version in ["2026.01.05", "V1.2.3"] {
            let why = refusal("", version).unwrap();
            assert!(
                why.ends_with("looks like a release, but it is not a SemVer version"),
                "{why}"
            );
        }
        for version in [
            "1.2.3",
            "1.2.3-rc.1",
            "dev-1.2.3-4-g0a1b2c3",
            "0a1b2c3",
            "2026.1.5",
        ] {
            assert_eq!(refusal("", version), None, "{version}");
        }
        // Before 1.0 no release takes the tag `0`.
        assert_eq!(refusal("", "0"), None);
        assert!(refusal("", "0.1").is_some());
    }
}
