//! Promotion: the verified image gets its tags.

use anyhow::Result;

use crate::{
    base::error::Failure,
    credentials::environment::GITHUB_REGISTRY,
    facts::{context::Context, git::WorkTree},
    registry::client::{RawManifest, RegistryClient},
    release::{
        preflight::{self, Existing},
        push,
        tags::TagPlan,
    },
};

/// Gives the verified image its tags, the version's own tag first. Before that it asks once more what
/// is released: another run may have been faster.
///
/// # Errors
/// When the version is released with another image, and when a tag cannot be written. In the second
/// case earlier tags have moved.
pub fn promote(
    cx: &Context,
    registry: &RegistryClient,
    git: &WorkTree,
    image: &RawManifest,
    overwrite: bool,
) -> Result<TagPlan> {
    let digest = image.digest();
    let settings = cx.settings;
    match preflight::existing(settings, registry, git)? {
        Existing::None => {}
        Existing::SameCommit(found) if found.digest() == digest => {}
        Existing::SameCommit(_) | Existing::Different(_) if overwrite => {}
        Existing::SameCommit(found) => {
            return Err(Failure::new(format!(
                "{} is released already from the same commit, as {}, which is not {digest}",
                settings
                    .image
                    .repository
                    .tagged(settings.version.value.as_str()),
                found.digest()
            ))
            .hint("resume with the released image: `cargo xtask push-multiarch` (no tag was moved)")
            .into());
        }
        Existing::Different(description) => {
            return Err(Failure::new(format!(
                "{} has been released in the meantime, {description}",
                settings
                    .image
                    .repository
                    .tagged(settings.version.value.as_str())
            ))
            .hint("release the change under a new version (no tag was moved)")
            .into());
        }
    }
    let tags = preflight::plan_tags(cx, registry, git)?;
    let first_push =
        registry.host() == GITHUB_REGISTRY && registry.tags().is_ok_and(|tags| tags.is_empty());
    for tag in &tags.moves {
        cx.exec.fail_if_interrupted()?;
        registry.put_manifest(tag, image)?;
        let now = registry.manifest(tag)?.map(|found| found.digest());
        if now.as_deref() != Some(digest.as_str()) {
            return Err(Failure::new(format!(
                "{} was set to {digest} a moment ago, and now is {}: another release is in progress",
                settings.image.repository.tagged(tag),
                now.as_deref().unwrap_or("gone"),
            ))
            .hint("wait until the other release has ended, then run the same command again")
            .into());
        }
        cx.ui.status(
            "Tagged",
            &format!(
                "{} as {}",
                push::short_digest(&digest),
                settings.image.repository.tagged(tag)
            ),
        );
    }
    if first_push {
        // https://docs.github.com/packages/learn-github-packages/configuring-a-packages-access-control-and-visibility
        cx.ui.hint("the first push of a package: it is private until you make it public (the package's settings, Change visibility); the label `org.opencontainers.image.source` links it to its repository");
    }
    for kept in &tags.kept {
        cx.ui.status(
            "Kept",
            &format!(
                "{} at {}, which is newer",
                settings.image.repository.tagged(&kept.tag),
                kept.version
            ),
        );
    }
    Ok(tags)
}
