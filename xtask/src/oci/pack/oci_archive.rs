//! OCI archives, as BuildKit and Buildah write them. Without a timestamp, everything in them stays as it is.

use anyhow::{Result, bail};

use super::{image::Image, layer::Layer};
use crate::{
    base::time,
    oci::{
        archive::Archive,
        compression::Compression,
        image_config::{ImageConfig, Step},
        manifest::{Descriptor, Manifest},
    },
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
    let base_layers = timestamp.map_or(0, |timestamp| {
        base_layers(&config, manifest.layers.len(), timestamp)
    });
    let layers = manifest.layers.into_iter().enumerate();
    let layers = layers.map(|(number, layer)| {
        Ok(Layer {
            content: Box::new(archive.reader(&layer.digest)?.0),
            compression: Compression::of_media_type(&layer.media_type).unwrap_or(Compression::None),
            descriptor: Some(layer),
            timestamp: timestamp.filter(|_| number >= base_layers),
        })
    });
    Ok(Image {
        layers: layers.collect::<Result<_>>()?,
        manifest: timestamp.is_none().then_some((descriptor, content)),
        config,
        timestamp,
    })
}

/// How many layers are those of the base image: the first ones, whose steps are older than the timestamp. They stay as
/// they are, so whoever has the base image has them. `BuildKit` gives the time in `SOURCE_DATE_EPOCH` to the steps of the
/// build, also to cached ones, and to those of a base image that is newer.
fn base_layers(config: &[u8], layers: usize, timestamp: u64) -> usize {
    let config: ImageConfig = serde_json::from_slice(config).unwrap_or_default();
    let steps = config.history.iter().filter(|step| !step.empty_layer);
    let is_older = |step: &&Step| {
        let created = step.created.as_ref();
        created.is_some_and(|created| time::is_before(created, timestamp))
    };
    match steps.clone().count() {
        count if count == layers => steps.take_while(is_older).count(),
        _ => 0, // unknown: the history is incomplete
    }
}
