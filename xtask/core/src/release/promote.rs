//! Promotion: the verified image gets its tags. [`promotion`] decides; this sends the requests.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    base::{error::Failure, ui::Clock},
    credentials::environment::GITHUB_REGISTRY,
    facts::{context::Context, git::WorkTree},
    oci::digest,
    registry::client::{RawManifest, RegistryClient},
    release::{
        preflight::{self, NamedVersion, ReleasedVersions},
        promotion::{Answer, Goal, Next, Promotion, Request, UnsettledTag},
        tags::TagPlan,
    },
};

/// How long a registry may take to show a tag that was written.
const LAG: Duration = Duration::from_secs(10);
/// The pause between two questions for a tag that the registry does not show yet, and before the tags that
/// another release moved are looked at again.
const PAUSE: Duration = Duration::from_millis(500);

/// Gives the verified image its tags, the version's own tag first. `replaces` is the digest of the released
/// image that the user agreed to replace.
///
/// # Errors
/// When the version's tag names another image, when a tag cannot be written, and when other releases keep
/// moving the tags.
pub fn promote(
    cx: &Context,
    registry: &RegistryClient,
    git: &WorkTree,
    image: &RawManifest,
    replaces: Option<&str>,
) -> Result<TagPlan> {
    let digest = image.digest();
    let goal = Goal {
        settings: cx.settings,
        git: &git.values,
        digest: &digest,
        replaces,
    };
    let mut tags = Tags {
        cx,
        registry,
        manifests: [(digest.clone(), image.clone())].into(),
        shown: BTreeMap::new(),
        outdated: BTreeMap::new(),
        list_limit: LAG,
    };
    let mut promotion = Promotion::new(goal);
    let is_first_push =
        registry.host() == GITHUB_REGISTRY && registry.tags().is_ok_and(|tags| tags.is_empty());
    let (plan, unsettled) = loop {
        cx.exec.fail_if_interrupted()?;
        let answer = match promotion.next(goal)? {
            Next::Send(Request::List) => {
                if promotion.round() > 1 {
                    cx.exec.pause(PAUSE).map_err(Failure::signal)?;
                }
                let released = tags.list(git)?;
                if let (Some(warning), 0) = (released.warning, promotion.round()) {
                    cx.ui.warn(&warning);
                }
                Answer::Listed(released.names)
            }
            Next::Send(Request::Read(tag)) => Answer::Names(tags.read(&tag)?),
            Next::Send(Request::Version(digest)) => Answer::IsVersion(tags.version(&digest)?),
            Next::Send(Request::Write { tag, digest }) => {
                tags.write(&tag, &digest)?;
                Answer::Written
            }
            Next::Done { plan, unsettled } => break (plan, unsettled),
            Next::Lost(found) => return Err(lost(cx, &digest, found.as_deref()).into()),
            Next::Busy => return Err(busy(cx).into()),
        };
        promotion.answered(answer);
    };
    if is_first_push {
        // https://docs.github.com/packages/learn-github-packages/configuring-a-packages-access-control-and-visibility
        cx.ui.hint("the first push of a package: it is private until you make it public (the package's settings, Change visibility); the label `org.opencontainers.image.source` links it to its repository");
    }
    for kept in &plan.kept {
        let reference = cx.settings.image.repository.tagged(&kept.tag);
        let version = &kept.version;
        let text = if kept.is_taken() {
            format!("{reference} at {version}, which is newer")
        } else {
            format!(
                "{reference} as it is: a pre-release does not take it after {version}, which is newer"
            )
        };
        cx.ui.status("Kept", &text);
    }
    for tag in &unsettled {
        warn_of_unsettled(cx, tag);
    }
    Ok(plan)
}

/// The newer version is known from git's tags, or its own tag was removed a moment ago.
fn warn_of_unsettled(cx: &Context, tag: &UnsettledTag) {
    let repository = &cx.settings.image.repository;
    let version = &tag.kept.version;
    let owner = repository.tagged(&cx.settings.flavoured(version));
    let names = tag.names.as_deref().unwrap_or("no image");
    cx.ui.warn(&format!(
        "{} still names {names}: it was left for {version}, which is newer, but {owner} names no image",
        repository.tagged(&tag.kept.tag)
    ));
    let mut options = format!("--version {version}");
    if let Some(flavour) = &cx.settings.flavour {
        options.push_str(&format!(" --flavour {}", flavour.name));
    }
    if *repository != cx.settings.configured_repository {
        options.push_str(&format!(" --repository {}", repository.as_str()));
    }
    cx.ui.hint(&format!(
        "publish {version} from its commit: `cargo xtask push-multiarch {options}`"
    ));
}

/// The tags of the repository.
struct Tags<'a> {
    cx: &'a Context<'a>,
    registry: &'a RegistryClient<'a>,
    /// The manifests that were read, by digest.
    manifests: BTreeMap<String, RawManifest>,
    /// What each tag named when it was last read.
    shown: BTreeMap<String, Option<String>>,
    /// For each tag that was written: what it named before, and the time since. A registry may return that for a
    /// while, and one with several replicas even after it returned the new one.
    outdated: BTreeMap<String, (Option<String>, Clock)>,
    /// How long to wait for the version's own tag in the list; zero after that was in vain once.
    list_limit: Duration,
}

impl Tags<'_> {
    /// The released versions. If the registry's list lacks the version's own tag, which is set before, this waits:
    /// other new versions could be missing too.
    fn list(&mut self, git: &WorkTree) -> Result<ReleasedVersions> {
        let cx = self.cx;
        let own = cx.settings.version.value.as_str();
        let lacks_own = |released: &ReleasedVersions| {
            released.warning.is_none() && !released.names.iter().any(|name| name == own)
        };
        if !cx
            .settings
            .tags(&git.values)?
            .contains(&cx.settings.own_tag())
        {
            self.list_limit = Duration::ZERO;
        }
        let pause = || Ok(cx.exec.pause(PAUSE).map_err(Failure::signal)?);
        let released = read_while(self.list_limit, lacks_own, pause, || {
            preflight::released_versions(cx, self.registry, git)
        })?;
        if !self.list_limit.is_zero() && lacks_own(&released) {
            self.list_limit = Duration::ZERO;
            cx.ui.warn(&format!(
                "the registry's list of tags lacks `{}` after {} s: other new versions may be missing in it too",
                cx.settings.own_tag(),
                LAG.as_secs()
            ));
        }
        Ok(released)
    }

    /// The version in the labels of an image that was read before. A broken image has none: the tag that names it
    /// must not keep new versions from being published.
    fn version(&self, digest: &str) -> Result<Option<String>> {
        let Some(manifest) = self.manifests.get(digest) else {
            return Err(not_read(digest).into());
        };
        let what = format!("cannot read the version of {digest}");
        let version = preflight::version_of(self.registry, manifest);
        if version.is_err() {
            self.cx.exec.fail_if_interrupted()?;
        }
        Ok(match version.with_context(|| what.clone())? {
            NamedVersion::SemVer(version) => Some(version),
            NamedVersion::None => None,
            NamedVersion::Broken(why) => {
                self.cx.ui.warn(&format!("{what}: {why}"));
                None
            }
        })
    }

    /// The digest that the tag names. If the registry still shows what the tag named before it was written,
    /// this waits.
    fn read(&mut self, tag: &str) -> Result<Option<String>> {
        let (before, limit) = match self.outdated.get(tag) {
            Some((before, written)) => (Some(before), LAG.saturating_sub(written.elapsed())),
            None => (None, Duration::ZERO),
        };
        let pause = || Ok(self.cx.exec.pause(PAUSE).map_err(Failure::signal)?);
        let is_outdated = |digest: &Option<String>| before == Some(digest);
        let digest = read_while(limit, is_outdated, pause, || {
            let Some(manifest) = self.registry.manifest(tag)? else {
                return Ok(None);
            };
            let digest = manifest.digest();
            self.manifests.insert(digest.clone(), manifest);
            Ok(Some(digest))
        })?;
        self.shown.insert(tag.to_owned(), digest.clone());
        Ok(digest)
    }

    /// Sets the tag to an image that was read before.
    fn write(&mut self, tag: &str, digest: &str) -> Result<()> {
        let Some(manifest) = self.manifests.get(digest) else {
            return Err(not_read(digest).into());
        };
        self.registry.put_manifest(tag, manifest)?;
        let before = self.shown.get(tag).cloned().flatten();
        self.outdated
            .insert(tag.to_owned(), (before, Clock::start()));
        self.cx.ui.status(
            "Tagged",
            &format!(
                "{} as {}",
                digest::short(digest),
                self.cx.settings.image.repository.tagged(tag)
            ),
        );
        Ok(())
    }
}

/// Reads something until it is no longer outdated, at most for `limit`.
fn read_while<T>(
    limit: Duration,
    is_outdated: impl Fn(&T) -> bool,
    pause: impl Fn() -> Result<()>,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    let clock = Clock::start();
    loop {
        let found = read()?;
        if !is_outdated(&found) || clock.elapsed() >= limit {
            return Ok(found);
        }
        pause()?;
    }
}

fn not_read(digest: &str) -> Failure {
    Failure::new(format!("internal error: {digest} was not read"))
}

/// The version's own tag names another image.
fn lost(cx: &Context, digest: &str, found: Option<&str>) -> Failure {
    let reference = cx.settings.image.repository.tagged(&cx.settings.own_tag());
    let found = found.unwrap_or("no image");
    Failure::new(format!(
        "{reference} names {found}, not {digest}: another run publishes this version"
    ))
    .hint("find out what the other run built; no tag names the image of this run")
    .hint("publish this run's image under a new version, if you need it")
}

fn busy(cx: &Context) -> Failure {
    Failure::new(format!(
        "other releases keep moving the tags of {}",
        cx.settings.image.repository.as_str()
    ))
    .hint("wait until the other releases have ended, then run the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_show_a_tag_late() {
        let ms = Duration::from_millis;
        let read_until = |outdated: Option<Option<String>>, limit, answers: &[Option<&str>]| {
            let mut answers = answers.iter().map(|digest| digest.map(str::to_owned));
            let found = read_while(
                limit,
                |digest| outdated.as_ref() == Some(digest),
                || Ok(()),
                || Ok(answers.next().unwrap_or_default()),
            );
            (found.unwrap(), answers.len())
        };
        let long = Duration::from_secs(60);
        let new = Some("new".to_owned());
        assert_eq!(
            read_until(Some(None), long, &[None, None, Some("new")]),
            (new.clone(), 0)
        );
        let old = Some("old".to_owned());
        let answers = [Some("old"), Some("new"), Some("newer")];
        assert_eq!(read_until(Some(old.clone()), long, &answers), (new, 1));
        // Nothing was written, and what another run wrote is no delay.
        assert_eq!(read_until(None, long, &answers), (old.clone(), 2));
        let other = [Some("other"), Some("new")];
        let found = read_until(Some(old.clone()), long, &other);
        assert_eq!(found, (Some("other".to_owned()), 1));
        assert_eq!(read_until(Some(old.clone()), ms(0), &answers), (old, 2));
    }
}
