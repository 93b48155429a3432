//! Pushing the content of an archive by digest.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use crate::{
    base::image::human_bytes,
    facts::context::Context,
    oci::{
        archive::Archive,
        manifest::{Descriptor, Manifest},
    },
    registry::client::{RawManifest, RegistryClient},
};

/// Pushes an archive by digest: the blobs that the registry lacks, then the manifests, each after
/// what it points to. No tag moves.
///
/// # Errors
/// When the registry refuses it.
pub fn push(cx: &Context, registry: &RegistryClient, archive: &Archive) -> Result<RawManifest> {
    let mut pushed = BTreeSet::new();
    push_manifest(cx, registry, archive, &archive.root, &mut pushed)
}

fn push_manifest(
    cx: &Context,
    registry: &RegistryClient,
    archive: &Archive,
    descriptor: &Descriptor,
    pushed: &mut BTreeSet<String>,
) -> Result<RawManifest> {
    let content = archive.read(&descriptor.digest)?;
    let manifest: Manifest =
        serde_json::from_slice(&content).context("a manifest cannot be read")?;
    for child in &manifest.manifests {
        push_manifest(cx, registry, archive, child, pushed)?;
    }
    for blob in manifest.config.iter().chain(&manifest.layers) {
        cx.exec.fail_if_interrupted()?;
        if pushed.insert(blob.digest.clone()) && !registry.has_blob(&blob.digest)? {
            push_blob(cx, registry, archive, blob)?;
        }
    }
    let media_type = if manifest.media_type.is_empty() {
        descriptor.media_type.clone()
    } else {
        manifest.media_type
    };
    let manifest = RawManifest {
        media_type,
        content: String::from_utf8(content).context("a manifest is not UTF-8")?,
    };
    registry.put_manifest(&descriptor.digest, &manifest)?;
    Ok(manifest)
}

fn push_blob(
    cx: &Context,
    registry: &RegistryClient,
    archive: &Archive,
    blob: &Descriptor,
) -> Result<()> {
    let (mut content, size) = archive.reader(&blob.digest)?;
    cx.ui.status(
        "Pushing",
        &format!("{} ({})", short_digest(&blob.digest), human_bytes(size)),
    );
    registry.upload(&blob.digest, &mut content, size)
}

/// The first characters of a digest, enough for people to compare digests.
pub fn short_digest(digest: &str) -> &str {
    let bare = digest.strip_prefix("sha256:").unwrap_or(digest);
    bare.get(..12).unwrap_or(bare)
}
