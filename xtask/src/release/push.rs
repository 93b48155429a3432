//! Pushing the content of an archive by digest.

use std::io::{self, Read};

use anyhow::{Context as _, Result};

use crate::{
    base::{image::human_bytes, parallel},
    facts::context::Context,
    oci::{
        archive::Archive,
        digest::short,
        manifest::{Descriptor, Manifest},
    },
    registry::{
        client::{RawManifest, RegistryClient},
        request::Upload,
    },
};

/// How many blobs, or manifests, are pushed at once.
const SIDE_BY_SIDE: usize = 4;

/// What an image consists of.
#[derive(Default)]
struct Contents {
    /// Each with its manifest or index, a child before its parent.
    manifests: Vec<(Descriptor, RawManifest)>,
    /// Each digest once.
    blobs: Vec<Descriptor>,
}

/// Pushes an archive by digest: the blobs that the registry lacks, then the manifests, then the index.
/// No tag moves.
///
/// # Errors
/// When the registry refuses it.
pub fn push(cx: &Context, registry: &RegistryClient, archive: &Archive) -> Result<RawManifest> {
    let mut contents = Contents::default();
    list(archive, &archive.root, &mut contents)?;
    parallel::map(SIDE_BY_SIDE, &contents.blobs, |blob| {
        push_blob(cx, registry, archive, blob)
    })?;
    let (_, root) = contents
        .manifests
        .pop()
        .context("the archive holds no manifest")?;
    parallel::map(SIDE_BY_SIDE, &contents.manifests, |(child, manifest)| {
        cx.exec.fail_if_interrupted()?;
        registry.put_manifest(&child.digest, manifest)
    })?;
    registry.put_manifest(&archive.root.digest, &root)?;
    Ok(root)
}

/// Lists what a manifest or index points to, and then itself.
fn list(archive: &Archive, descriptor: &Descriptor, contents: &mut Contents) -> Result<()> {
    let content = archive.read(&descriptor.digest)?;
    let manifest: Manifest =
        serde_json::from_slice(&content).context("a manifest cannot be read")?;
    for child in &manifest.manifests {
        list(archive, child, contents)?;
    }
    for blob in manifest.config.iter().chain(&manifest.layers) {
        if !contents
            .blobs
            .iter()
            .any(|known| known.digest == blob.digest)
        {
            contents.blobs.push(blob.clone());
        }
    }
    let media_type = if manifest.media_type.is_empty() {
        descriptor.media_type.clone()
    } else {
        manifest.media_type
    };
    let raw = RawManifest {
        media_type,
        content,
    };
    contents.manifests.push((descriptor.clone(), raw));
    Ok(())
}

fn push_blob(
    cx: &Context,
    registry: &RegistryClient,
    archive: &Archive,
    blob: &Descriptor,
) -> Result<()> {
    cx.exec.fail_if_interrupted()?;
    let digest = &blob.digest;
    let (_, size) = archive.reader(digest)?;
    let open = || -> io::Result<Box<dyn Read + Send>> {
        let (content, _) = archive.reader(digest).map_err(io::Error::other)?;
        Ok(Box::new(content))
    };
    let upload = Upload { open: &open, size };
    if registry.push_blob(digest, upload)? {
        cx.ui.status(
            "Pushed",
            &format!("{} ({})", short(digest), human_bytes(size)),
        );
    }
    Ok(())
}
