//! The archive that is written.

use std::{collections::BTreeMap, num::NonZero, path::Path, thread};

use anyhow::{Context as _, Result};

use super::{
    config,
    image::Image,
    layer::{Layer, Packed},
};
use crate::{
    base::parallel,
    oci::{
        archive::Archive,
        archive_writer::ArchiveWriter,
        image_config::ImageConfig,
        manifest::{Descriptor, Manifest},
        media_type,
        stop::{StopCheck, Stoppable},
    },
};

pub struct Output<'a> {
    writer: ArchiveWriter,
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

impl<'a> Output<'a> {
    pub fn create(path: &Path, stop: StopCheck<'a>) -> Result<Self> {
        Ok(Self {
            writer: ArchiveWriter::create(path)?,
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
        for (image, count) in images.iter().zip(counts) {
            written.push(self.write_image(image, packed.by_ref().take(count).collect())?);
        }
        Ok(written)
    }

    /// Compressing takes longest of all, so layers are compressed side by side, into temporary files: they may be
    /// too large to be kept in memory.
    fn pack(&self, layers: Vec<Layer>) -> Result<Vec<Packed>> {
        let limit = thread::available_parallelism().map_or(1, NonZero::get);
        parallel::map(limit, layers.into_iter(), |layer| {
            layer.pack(|| self.writer.temporary_file(), self.stop)
        })
        .context("cannot pack a layer")
    }

    /// Writes an image, and returns the descriptor of its manifest for an index.
    fn write_image(&mut self, image: &Image, layers: Vec<Packed>) -> Result<Descriptor> {
        if !image.is_attestation() {
            self.add_labels(&image.config);
        }
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in layers {
            let content = Stoppable::new(layer.content, self.stop);
            self.writer
                .blob(&layer.descriptor.digest, layer.descriptor.size, content)?;
            descriptors.push(layer.descriptor);
            diff_ids.push(layer.diff_id);
        }
        let platform = image.platform();
        let annotations = image.attestation_annotations();
        let written = match &image.manifest {
            Some((descriptor, manifest)) => {
                self.add_unchanged(descriptor, manifest, &image.config)?
            }
            None => self.add_new(image, descriptors, &diff_ids)?,
        };
        Ok(Descriptor {
            platform,
            annotations,
            ..written
        })
    }

    fn add_unchanged(
        &mut self,
        descriptor: &Descriptor,
        manifest: &[u8],
        config: &[u8],
    ) -> Result<Descriptor> {
        let read: Manifest = serde_json::from_slice(manifest)?;
        if let Some(descriptor) = read.config {
            self.add(&descriptor.media_type, config)?;
        }
        self.add(&descriptor.media_type, manifest)
    }

    /// Adds a new manifest of Docker's format, and a configuration without what differs from build to build.
    fn add_new(
        &mut self,
        image: &Image,
        layers: Vec<Descriptor>,
        diff_ids: &[Option<String>],
    ) -> Result<Descriptor> {
        let mut config = config::without_build_ids(&image.config)?;
        if let Some(timestamp) = image.timestamp {
            config::set_times(&mut config, timestamp, diff_ids)?;
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            config: Some(self.add(media_type::DOCKER_CONFIG, &serde_json::to_vec(&config)?)?),
            layers,
            ..Manifest::default()
        };
        self.add(media_type::DOCKER_MANIFEST, &serde_json::to_vec(&manifest)?)
    }
}
