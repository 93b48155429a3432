//! OCI archives, as BuildKit and Buildah write them. Without a timestamp, everything in them stays as it is.

use anyhow::{Context as _, Result, bail};

use super::{
    config::BaseImage,
    image::{Image, ImageChange, platform},
    layer::{Change, Layer},
};
use crate::oci::{
    archive::Archive,
    manifest::{Descriptor, Manifest},
};

pub fn images(archive: &Archive, timestamp: Option<u64>) -> Result<Vec<Image>> {
    let root: Manifest = serde_json::from_slice(&archive.read(&archive.root.digest)?)?;
    let manifests = if root.is_index() {
        root.manifests
    } else {
        vec![archive.root.clone()]
    };
    if timestamp.is_some() && manifests.iter().any(Descriptor::is_attestation) {
        bail!(
            "`{}` has an attestation, which names the digest of its image, so no time can be changed: leave out \
             `--timestamp`, or build without `--provenance` and `--sbom`",
            archive.path().display()
        );
    }
    let read = |descriptor| image(archive, descriptor, timestamp);
    manifests.into_iter().map(read).collect()
}

fn image(archive: &Archive, descriptor: Descriptor, timestamp: Option<u64>) -> Result<Image> {
    let content = archive.read(&descriptor.digest)?;
    let manifest: Manifest = serde_json::from_slice(&content)?;
    if !manifest.manifests.is_empty() {
        bail!(
            "`{}` has an index within an index: pack the archives of single images",
            archive.path().display()
        );
    }
    let config = match &manifest.config {
        Some(config) => archive.read(&config.digest)?,
        None => Vec::new(),
    };
    let platform = descriptor.platform.clone().or_else(|| platform(&config));
    let (change, base_layers) = match timestamp {
        None => (ImageChange::Keep(descriptor, content), usize::MAX),
        Some(timestamp) => {
            let config = serde_json::from_slice(&config);
            let config = config.context("cannot read the image configuration")?;
            let base = BaseImage::of(&config, manifest.layers.len(), timestamp);
            (ImageChange::SetTimes(timestamp, base.steps), base.layers)
        }
    };
    let layers = manifest.layers.iter().enumerate();
    let layers = layers.map(|(number, layer)| {
        let (content, size) = archive.reader(&layer.digest)?;
        let change = match timestamp {
            Some(timestamp) if number >= base_layers => Change::SetTimes(timestamp),
            _ => Change::Keep,
        };
        Layer::new(content, size, layer.clone(), change)
    });
    Ok(Image {
        platform,
        layers: layers.collect::<Result<_>>()?,
        manifest,
        config,
        change,
    })
}
