//! Pushing by digest, and giving tags to what was pushed and looked at.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::{
    Context,
    preflight::{self, Released},
};
use crate::{
    credentials::environment::GITHUB_REGISTRY,
    error::Failure,
    image::human_bytes,
    oci::{
        archive::Archive,
        manifest::{Descriptor, Manifest},
    },
    probe::Git,
    registry::client::{RawManifest, Registry},
    release::TagPlan,
};

/// Pushes an archive's content by digest: blobs that the registry lacks, then manifests, what
/// they point to first. No tag moves.
///
/// # Errors
/// When the registry doesn't take it.
pub fn upload(cx: &Context, registry: &Registry, archive: &Archive) -> Result<RawManifest> {
    let mut pushed = BTreeSet::new();
    let root = push_tree(cx, registry, archive, &archive.root, &mut pushed)?;
    Ok(root)
}

fn push_tree(
    cx: &Context,
    registry: &Registry,
    archive: &Archive,
    descriptor: &Descriptor,
    pushed: &mut BTreeSet<String>,
) -> Result<RawManifest> {
    let content = archive.read(&descriptor.digest)?;
    let manifest: Manifest =
        serde_json::from_slice(&content).context("a manifest cannot be read")?;
    for child in &manifest.manifests {
        push_tree(cx, registry, archive, child, pushed)?;
    }
    for blob in manifest.config.iter().chain(&manifest.layers) {
        cx.exec.check()?;
        if pushed.insert(blob.digest.clone()) && !registry.has_blob(&blob.digest)? {
            push_blob(cx, registry, archive, blob)?;
        }
    }
    let media_type = if manifest.media_type.is_empty() {
        descriptor.media_type.clone()
    } else {
        manifest.media_type
    };
    let fetched = RawManifest {
        media_type,
        content: String::from_utf8(content).context("a manifest is no text")?,
    };
    registry.put_manifest(&descriptor.digest, &fetched)?;
    Ok(fetched)
}

fn push_blob(
    cx: &Context,
    registry: &Registry,
    archive: &Archive,
    blob: &Descriptor,
) -> Result<()> {
    let (mut content, size) = archive.reader(&blob.digest)?;
    cx.ui.status(
        "Pushing",
        &format!("{} ({})", short(&blob.digest), human_bytes(size)),
    );
    registry.upload(&blob.digest, &mut content, size)
}

/// A digest as people tell them apart.
pub fn short(digest: &str) -> &str {
    let bare = digest.strip_prefix("sha256:").unwrap_or(digest);
    bare.get(..12).unwrap_or(bare)
}

/// Gives the verified image its tags, the one that never changes again first. A released
/// version is looked for once more: another run may have been quicker.
///
/// # Errors
/// When the version is released otherwise, or a tag cannot be written; tags before it have moved.
pub fn promote(
    cx: &Context,
    registry: &Registry,
    git: &Git,
    image: &RawManifest,
    overwrite: bool,
) -> Result<TagPlan> {
    let digest = image.digest();
    let settings = cx.settings;
    match preflight::released(settings, registry, git)? {
        Released::No => {}
        Released::Same(found) if found.digest() == digest => {}
        Released::Same(_) | Released::Other(_) if overwrite => {}
        Released::Same(found) => {
            return Err(Failure::new(format!(
                "{} is released already from the same commit, as {}, and this is {digest}",
                settings.image.repository.tagged(settings.version.value.as_str()),
                found.digest()
            ))
            .hint("nothing was moved; `cargo xtask push-multiarch` without an archive goes on with the released one")
            .into());
        }
        Released::Other(which) => {
            return Err(Failure::new(format!(
                "{} has been released meanwhile, {which}",
                settings
                    .image
                    .repository
                    .tagged(settings.version.value.as_str())
            ))
            .hint("nothing was moved: release the change under a new version")
            .into());
        }
    }
    let tags = preflight::tags(cx, registry, git)?;
    let first =
        registry.host() == GITHUB_REGISTRY && registry.tags().is_ok_and(|tags| tags.is_empty());
    for tag in &tags.moves {
        cx.exec.check()?;
        registry.put_manifest(tag, image)?;
        let now = registry.manifest(tag)?.map(|found| found.digest());
        if now.as_deref() != Some(digest.as_str()) {
            return Err(Failure::new(format!(
                "{} was just given to {digest}, and is {} now: somebody else is releasing",
                settings.image.repository.tagged(tag),
                now.as_deref().unwrap_or("gone"),
            ))
            .hint("find out who, then run the same command again")
            .into());
        }
        cx.ui.status(
            "Tagged",
            &format!(
                "{} as {}",
                short(&digest),
                settings.image.repository.tagged(tag)
            ),
        );
    }
    if first {
        // https://docs.github.com/packages/learn-github-packages/configuring-a-packages-access-control-and-visibility
        cx.ui.hint("the first push of a package: it is private until you make it public (the package's settings, Change visibility); the label `org.opencontainers.image.source` links it to its repository");
    }
    for one in &tags.stays {
        cx.ui.status(
            "Stays",
            &format!(
                "{} with {}, which is newer",
                settings.image.repository.tagged(&one.tag),
                one.with
            ),
        );
    }
    Ok(tags)
}
