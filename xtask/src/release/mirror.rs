//! What a mirror takes over besides the image: the signatures and attestations of the repository that
//! the image was built for.

use std::io::{self, Read};

use anyhow::{Context as _, Result};

use crate::{
    facts::context::Context,
    oci::{digest::short, manifest::Manifest},
    registry::{
        client::{RawManifest, RegistryClient},
        request::Upload,
    },
};

/// The endings of the tags that cosign 2 gives to what refers to an image.
/// <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>
const COSIGN_TAGS: &[&str] = &["sig", "att", "sbom"];

/// Copies all that refers to an image from one repository to another, and returns how many manifests.
///
/// # Errors
/// When a registry cannot be reached, or refuses.
pub fn copy_referrers(
    cx: &Context,
    source: &RegistryClient,
    target: &RegistryClient,
    digest: &str,
) -> Result<usize> {
    let mut count = 0;
    for descriptor in source.referrers(digest)? {
        let name = descriptor["digest"]
            .as_str()
            .context("the list of referrers has an entry without a digest")?;
        let manifest = source.manifest(name)?;
        let manifest = manifest.with_context(|| format!("{} has no {name}", source.host()))?;
        copy_blobs(cx, source, target, &manifest)?;
        target.put_referrer(digest, &descriptor, &manifest)?;
        count += 1;
    }
    for ending in COSIGN_TAGS {
        let tag = format!("{}.{ending}", digest.replacen(':', "-", 1));
        if let Some(manifest) = source.manifest(&tag)? {
            copy_blobs(cx, source, target, &manifest)?;
            target.put_manifest(&tag, &manifest)?;
            count += 1;
        }
    }
    if count > 0 {
        let what = format!("{count} signatures and attestations of {}", short(digest));
        cx.ui.status("Copied", &what);
    }
    Ok(count)
}

fn copy_blobs(
    cx: &Context,
    source: &RegistryClient,
    target: &RegistryClient,
    manifest: &RawManifest,
) -> Result<()> {
    let manifest: Manifest =
        serde_json::from_slice(&manifest.content).context("a referrer cannot be read")?;
    for blob in manifest.config.iter().chain(&manifest.layers) {
        cx.exec.fail_if_interrupted()?;
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            source.blob(&blob.digest).map_err(io::Error::other)
        };
        let upload = Upload {
            open: &open,
            size: blob.size,
        };
        target.push_blob(&blob.digest, upload)?;
    }
    Ok(())
}
