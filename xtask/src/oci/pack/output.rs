//! The archive that is written.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};

use super::{config, layer::Layer};
use crate::oci::{
    archive::Archive,
    archive_writer::ArchiveWriter,
    image_config::ImageConfig,
    manifest::{Descriptor, Manifest},
    media_type,
    stop::{StopCheck, Stoppable},
};

pub struct Output<'a> {
    writer: ArchiveWriter,
    timestamp: Option<u64>,
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
    pub fn create(path: &Path, timestamp: Option<u64>, stop: StopCheck<'a>) -> Result<Self> {
        Ok(Self {
            writer: ArchiveWriter::create(path)?,
            timestamp,
            stop,
            labels: None,
        })
    }

    /// Notes the labels of an image.
    pub fn add_labels(&mut self, config: &[u8]) {
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

    /// Makes a long read end when the work is stopped.
    pub fn stoppable<R: Read>(&self, source: R) -> Stoppable<'a, R> {
        Stoppable::new(source, self.stop)
    }

    /// Copies a blob.
    pub fn copy(&mut self, digest: &str, size: u64, content: impl Read) -> Result<()> {
        let content = self.stoppable(content);
        self.writer.blob(digest, size, content)
    }

    /// Adds content in memory as a blob.
    pub fn add(&mut self, media_type: &str, content: &[u8]) -> Result<Descriptor> {
        self.writer.content(media_type, content)
    }

    pub fn finish(self, root: &Descriptor) -> Result<Archive> {
        self.writer.finish(root)
    }

    /// Writes an image with a new manifest: with compressed layers, as registries expect them, and
    /// without what differs from build to build. Returns the manifest's descriptor and the
    /// configuration that was written.
    pub fn write_image(
        &mut self,
        config: &[u8],
        layers: Vec<Layer>,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let mut config = config::without_build_ids(config)?;
        let (layers, diff_ids) = self.write_layers(layers)?;
        if let Some(timestamp) = self.timestamp {
            config::set_times(&mut config, timestamp, &diff_ids)?;
        }
        let config = serde_json::to_vec(&config)?;
        self.add_labels(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            config: Some(self.add(media_type::DOCKER_CONFIG, &config)?),
            layers,
            ..Manifest::default()
        };
        let manifest = serde_json::to_vec(&manifest)?;
        Ok((self.add(media_type::DOCKER_MANIFEST, &manifest)?, config))
    }

    /// Writes layers, and returns their descriptors, and the digests of the tar files whose times
    /// were replaced. Compressing takes longest of all, so layers are compressed side by side, into
    /// temporary files: they may be too large to be kept in memory.
    fn write_layers(&mut self, layers: Vec<Layer>) -> Result<(Vec<Descriptor>, Vec<String>)> {
        let (timestamp, stop, writer) = (self.timestamp, self.stop, &self.writer);
        let packed = thread::scope(|scope| {
            let pack =
                |layer: Layer| move || layer.pack(timestamp, || writer.temporary_file(), stop);
            let running: Vec<_> = layers
                .into_iter()
                .map(|layer| scope.spawn(pack(layer)))
                .collect();
            let panicked = |_| Err(io::Error::other("the thread that compresses it panicked"));
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(panicked))
                .collect::<io::Result<Vec<_>>>()
        })
        .context("cannot pack a layer")?;
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in packed {
            self.copy(&layer.digest, layer.size, layer.content)?;
            diff_ids.extend(layer.diff_id);
            descriptors.push(Descriptor {
                media_type: media_type::DOCKER_LAYER.to_owned(),
                digest: layer.digest,
                size: layer.size,
                ..Descriptor::default()
            });
        }
        Ok((descriptors, diff_ids))
    }
}
