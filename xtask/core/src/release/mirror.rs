//! What a mirror takes over besides the image: the signatures and attestations of the repository that
//! the image was built for.

use std::io::{self, Read};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    facts::context::Context,
    oci::manifest::Manifest,
    registry::{
        authentication::Access,
        client::{RawManifest, RegistryClient},
        request::Upload,
    },
    release::client,
    settings::Sign,
};

/// The endings of the tags that cosign 2 gives to what refers to an image.
/// <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>
const COSIGN_TAGS: &[&str] = &["sig", "att", "sbom"];

/// Copies all that refers to an image from the repository that it was built for. If that cannot be read,
/// this warns: a mirror may be in another network.
///
/// # Errors
/// When the mirror's registry cannot be reached, or refuses.
pub fn copy_from_source(cx: &Context, mirror: &RegistryClient, digest: &str) -> Result<()> {
    let mut settings = cx.settings.clone();
    settings.image.repository = settings.configured_repository.clone();
    let cx = &Context {
        settings: &settings,
        ..*cx
    };
    let source = client::open(cx, Access::Pull)?;
    let found = match Referrers::read(&source, digest) {
        Ok(found) => found,
        Err(why) => {
            cx.exec.fail_if_interrupted()?;
            cx.ui.warn(&format!(
                "the signatures and attestations of {}@{digest} were not copied: {why:#}",
                settings.image.repository.as_str()
            ));
            return Ok(());
        }
    };
    found.copy(cx, &source, mirror, digest)
}

/// Whether anything refers to an image.
///
/// # Errors
/// When the registry cannot be reached, or refuses.
pub fn has_any(registry: &RegistryClient, digest: &str) -> Result<bool> {
    Ok(Referrers::read(registry, digest)?.count() > 0)
}

/// What refers to an image.
struct Referrers {
    /// Each with its entry in the list of referrers.
    listed: Vec<(Value, RawManifest)>,
    /// Those of cosign 2, each with its tag.
    tagged: Vec<(String, RawManifest)>,
}

impl Referrers {
    fn read(source: &RegistryClient, digest: &str) -> Result<Self> {
        let (mut listed, mut tagged) = (Vec::new(), Vec::new());
        for descriptor in source.referrers(digest)? {
            let name = descriptor["digest"]
                .as_str()
                .context("the list of referrers has an entry without a digest")?;
            let manifest = source.manifest(name)?;
            let manifest = manifest.with_context(|| format!("{} has no {name}", source.host()))?;
            listed.push((descriptor, manifest));
        }
        for ending in COSIGN_TAGS {
            let tag = format!("{}.{ending}", digest.replacen(':', "-", 1));
            if let Some(manifest) = source.manifest(&tag)? {
                tagged.push((tag, manifest));
            }
        }
        Ok(Self { listed, tagged })
    }

    fn count(&self) -> usize {
        self.listed.len() + self.tagged.len()
    }

    fn copy(
        &self,
        cx: &Context,
        source: &RegistryClient,
        mirror: &RegistryClient,
        digest: &str,
    ) -> Result<()> {
        for (descriptor, manifest) in &self.listed {
            copy_blobs(cx, source, mirror, manifest)?;
            mirror.put_referrer(digest, descriptor, manifest)?;
        }
        for (tag, manifest) in &self.tagged {
            copy_blobs(cx, source, mirror, manifest)?;
            mirror.put_manifest(tag, manifest)?;
        }
        match self.count() {
            // With a key, the mirror gets a signature of its own.
            0 if cx.settings.channel.sign == Sign::Keyless => cx.ui.warn(&format!(
                "{} has no signatures of {digest}, so `verify-image` will refuse the image of {}/{}",
                cx.settings.image.repository.as_str(),
                mirror.host(),
                mirror.path()
            )),
            0 => {}
            1 => cx.ui.status("Copied", "a signature or attestation"),
            count => {
                let what = format!("{count} signatures and attestations");
                cx.ui.status("Copied", &what);
            }
        }
        Ok(())
    }
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
