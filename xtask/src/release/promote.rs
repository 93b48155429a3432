//! Promotion: the verified image gets its tags. [`promotion`] decides; this sends the requests.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;

use crate::{
    base::{error::Failure, ui::Clock},
    credentials::environment::GITHUB_REGISTRY,
    facts::{context::Context, git::WorkTree},
    oci::digest,
    registry::client::{RawManifest, RegistryClient},
    release::{
        preflight,
        promotion::{Answer, Goal, Next, Promotion, Request},
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
    };
    let mut promotion = Promotion::new(goal);
    let is_first_push =
        registry.host() == GITHUB_REGISTRY && registry.tags().is_ok_and(|tags| tags.is_empty());
    let plan = loop {
        cx.exec.fail_if_interrupted()?;
        let answer = match promotion.next(goal)? {
            Next::Send(Request::List) => {
                if promotion.round() > 1 {
                    cx.exec.pause(PAUSE).map_err(Failure::signal)?;
                }
                let released = preflight::released_versions(cx, registry, git)?;
                if let (Some(warning), 0) = (released.warning, promotion.round()) {
                    cx.ui.warn(&warning);
                }
                Answer::Listed(released.names)
            }
            Next::Send(Request::Read(tag)) => Answer::Names(tags.read(&tag)?),
            Next::Send(Request::Write { tag, digest }) => {
                tags.write(&tag, &digest)?;
                Answer::Written
            }
            Next::Done(plan) => break plan,
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
        cx.ui.status(
            "Kept",
            &format!(
                "{} at {}, which is newer",
                cx.settings.image.repository.tagged(&kept.tag),
                kept.version
            ),
        );
    }
    Ok(plan)
}

/// The tags of the repository.
struct Tags<'a> {
    cx: &'a Context<'a>,
    registry: &'a RegistryClient<'a>,
    /// The manifests that were read, by digest.
    manifests: BTreeMap<String, RawManifest>,
    /// What each tag named when it was last read.
    shown: BTreeMap<String, Option<String>>,
    /// For each tag that was written: what it named before. A registry may return that for a while.
    outdated: BTreeMap<String, Option<String>>,
}

impl Tags<'_> {
    /// The digest that the tag names. If the registry still shows what the tag named before it was written,
    /// this waits.
    fn read(&mut self, tag: &str) -> Result<Option<String>> {
        let outdated = self.outdated.remove(tag);
        let pause = || Ok(self.cx.exec.pause(PAUSE).map_err(Failure::signal)?);
        let digest = shown(outdated.as_ref(), LAG, pause, || {
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
            return Err(Failure::new(format!("internal error: {digest} was not read")).into());
        };
        self.registry.put_manifest(tag, manifest)?;
        let before = self.shown.get(tag).cloned().flatten();
        self.outdated.insert(tag.to_owned(), before);
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

/// Reads a tag until it no longer names `outdated`, at most for `limit`.
fn shown(
    outdated: Option<&Option<String>>,
    limit: Duration,
    pause: impl Fn() -> Result<()>,
    mut read: impl FnMut() -> Result<Option<String>>,
) -> Result<Option<String>> {
    let clock = Clock::start();
    loop {
        let digest = read()?;
        if outdated != Some(&digest) || clock.elapsed() >= limit {
            return Ok(digest);
        }
        pause()?;
    }
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
            let found = shown(
                outdated.as_ref(),
                limit,
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
