//! The archive that is written.

use std::{collections::BTreeMap, num::NonZero, path::Path, thread};

use anyhow::{Result, bail};

use super::{
    cache::LayerCache,
    config,
    image::{Image, ImageChange},
    layer::{Layer, Packed},
};
use crate::{
    base::{parallel, time::rfc3339},
    oci::{
        archive::Archive,
        archive_writer::ArchiveWriter,
        digest::Digesting,
        image_config::ImageConfig,
        manifest::{Descriptor, Manifest},
        media_type,
        stop::{StopCheck, Stoppable},
    },
};

pub struct Output<'a> {
    writer: ArchiveWriter,
    cache: &'a LayerCache,
    stop: StopCheck<'a>,
    /// The labels that all images so far have; none before the first.
    labels: Option<BTreeMap<String, String>>,
}

/// The labels that an index has as annotations.
/// <https://docs.github.com/packages/learn-github-packages/connecting-a-repository-to-a-package>
const ANNOTATIONS: [&str; 6] = [
    "org.opencontainers.image.description",
    "org.opencontainers.image.licenses",
    "org.opencontainers.image.revision",
    "org.opencontainers.image.source",
    "org.opencontainers.image.title",
    "org.opencontainers.image.version",
];

/// The annotation with the time of the build.
const CREATED: &str = "org.opencontainers.image.created";

impl<'a> Output<'a> {
    pub fn create(path: &Path, cache: &'a LayerCache, stop: StopCheck<'a>) -> Result<Self> {
        Ok(Self {
            writer: ArchiveWriter::create(path)?,
            cache,
            stop,
            labels: None,
        })
    }

    /// Notes the labels of an image.
    fn add_labels(&mut self, config: &[u8]) {
        let config: ImageConfig = serde_json::from_slice(config).unwrap_or_default();
        let labels = config.run.labels.unwrap_or_default();
        match &mut self.labels {
            None => self.labels = Some(labels),
            Some(common) => common.retain(|name, value| labels.get(name) == Some(value)),
        }
    }

    /// The annotations of an index of the images: the labels that all of them have.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone().unwrap_or_default();
        labels.retain(|name, value| ANNOTATIONS.contains(&name.as_str()) && !value.is_empty());
        labels
    }

    /// Adds content in memory as a blob.
    pub fn add(&mut self, media_type: &str, content: &[u8]) -> Result<Descriptor> {
        self.writer.content(media_type, content)
    }

    pub fn finish(self, root: &Descriptor) -> Result<Archive> {
        self.writer.finish(root)
    }

    /// Writes images, and returns the descriptors of their manifests for an index.
    pub fn write(&mut self, mut images: Vec<Image>) -> Result<Vec<Descriptor>> {
        let (mut layers, mut counts) = (Vec::new(), Vec::new());
        for image in &mut images {
            counts.push(image.layers.len());
            layers.append(&mut image.layers);
        }
        let mut packed = self.pack(layers)?.into_iter();
        let mut written = Vec::new();
        for (image, count) in images.into_iter().zip(counts) {
            written.push(self.write_image(image, packed.by_ref().take(count).collect())?);
        }
        Ok(written)
    }

    /// Compressing takes longest of all, so layers are compressed side by side, into temporary files: they may be
    /// too large to be kept in memory.
    fn pack(&self, layers: Vec<Layer>) -> Result<Vec<Packed>> {
        let limit = thread::available_parallelism().map_or(1, NonZero::get);
        parallel::map(limit, layers.into_iter(), |layer| {
            layer.pack(self.cache, || self.writer.temporary_file(), self.stop)
        })
    }

    /// Writes an image, and returns the descriptor of its manifest for an index.
    fn write_image(&mut self, mut image: Image, layers: Vec<Packed>) -> Result<Descriptor> {
        if image.manifest.media_type.is_empty() {
            // Only the OCI's manifests need not name it.
            media_type::OCI_MANIFEST.clone_into(&mut image.manifest.media_type);
        }
        // An image's annotations, such as its name, belong to the index that it was in.
        let annotations = image.attestation().and_then(|one| one.annotations.clone());
        if image.attestation().is_none() {
            self.add_labels(&image.config);
        }
        let gzip_layer = media_type::gzip_layer(&image.manifest.media_type);
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in layers {
            let mut content = Digesting::new(Stoppable::new(layer.content, self.stop));
            let is_new = self.writer.blob(&layer.digest, layer.size, &mut content)?;
            let (found, _, _) = content.finish();
            if is_new && found != layer.digest {
                bail!(
                    "the content of the layer {} does not match its digest",
                    layer.digest
                );
            }
            descriptors.push(Descriptor {
                media_type: layer.media_type.unwrap_or_else(|| gzip_layer.to_owned()),
                digest: layer.digest,
                size: layer.size,
                ..Descriptor::default()
            });
            diff_ids.push(layer.diff_id);
        }
        let config_type = image.manifest.config.as_ref();
        let config_type = config_type.map(|config| config.media_type.clone());
        let written = match (image.change, config_type) {
            (ImageChange::Keep(descriptor, content), config_type) => {
                if let Some(config_type) = config_type {
                    self.add(&config_type, &image.config)?;
                }
                self.add(&descriptor.media_type, &content)?
            }
            (_, None) => bail!("an image has no configuration"),
            (change, Some(config_type)) => {
                let mut config = config::without_build_ids(&image.config)?;
                let mut annotations = image.manifest.annotations;
                if let ImageChange::SetTimes(timestamp, base_steps) = change {
                    config::set_times(&mut config, timestamp, base_steps, &diff_ids)?;
                    // Buildah's images have it.
                    if let Some(created) = annotations.get_mut(CREATED) {
                        *created = rfc3339(timestamp);
                    }
                }
                let manifest = Manifest {
                    config: Some(self.add(&config_type, &serde_json::to_vec(&config)?)?),
                    layers: descriptors,
                    annotations,
                    ..image.manifest
                };
                self.add(&manifest.media_type, &serde_json::to_vec(&manifest)?)?
            }
        };
        Ok(Descriptor {
            platform: image.platform,
            annotations,
            ..written
        })
    }
}
