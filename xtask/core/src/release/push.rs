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
    /// A child before its parent.
    manifests: Vec<ArchiveManifest>,
    /// Each digest once.
    blobs: Vec<Descriptor>,
}

/// A manifest or index of an archive.
struct ArchiveManifest {
    digest: String,
    manifest: RawManifest,
    has_subject: bool,
}

/// Pushes an archive by digest: the blobs that the registry lacks, then the manifests, then the index.
/// No tag moves.
///
/// # Errors
/// When the registry refuses it.
pub fn push(cx: &Context, registry: &RegistryClient, archive: &Archive) -> Result<RawManifest> {
    let mut contents = Contents::default();
    list(archive, &archive.root, &mut contents)?;
    parallel::map(SIDE_BY_SIDE, contents.blobs.iter(), |blob| {
        push_blob(cx, registry, archive, blob)
    })?;
    let root = contents
        .manifests
        .pop()
        .context("the archive holds no manifest")?
        .manifest;
    // Some registries refuse a manifest whose `subject` they do not have yet.
    let (later, first): (Vec<_>, Vec<_>) = contents
        .manifests
        .into_iter()
        .partition(|content| content.has_subject);
    for contents in [first, later] {
        parallel::map(SIDE_BY_SIDE, contents.iter(), |content| {
            cx.exec.fail_if_interrupted()?;
            registry.put_manifest(&content.digest, &content.manifest)
        })?;
    }
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
    contents.manifests.push(ArchiveManifest {
        digest: descriptor.digest.clone(),
        manifest: raw,
        has_subject: manifest.subject.is_some(),
    });
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
