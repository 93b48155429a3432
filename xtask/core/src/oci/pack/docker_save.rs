//! The archives of `docker save`: `manifest.json` names a configuration and layers.

use std::io;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{
    image::Image,
    layer::{Change, Layer},
};
use crate::oci::{
    compression::Compression,
    digest::Digesting,
    image_config::ImageConfig,
    manifest::{Descriptor, Manifest},
    media_type,
    stop::{StopCheck, Stoppable},
    tar_index::TarIndex,
};

/// An entry of `manifest.json`: paths within the archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
}

pub fn image(tar: &TarIndex, timestamp: Option<u64>, stop: StopCheck) -> Result<Image> {
    let images: Vec<SavedImage> = serde_json::from_slice(&tar.read("manifest.json")?)
        .with_context(|| format!("cannot read `manifest.json` of `{}`", tar.path.display()))?;
    let [image] = &images[..] else {
        bail!(
            "`{}` holds {} images: save one image",
            tar.path.display(),
            images.len()
        );
    };
    let content = tar.read(&image.config)?;
    let config: ImageConfig =
        serde_json::from_slice(&content).context("cannot read the image configuration")?;
    let diff_ids = config.diff_ids();
    if diff_ids.len() != image.layers.len() {
        bail!(
            "the image configuration lists {} layers, `manifest.json` {}",
            diff_ids.len(),
            image.layers.len()
        );
    }
    let layers = image.layers.iter().zip(diff_ids);
    let layers = layers.map(|(path, diff_id)| layer(tar, path, diff_id, timestamp, stop));
    let layers = layers.collect::<Result<_>>()?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        config: Some(Descriptor::of(media_type::DOCKER_CONFIG, &content)),
        ..Manifest::default()
    };
    Ok(Image::new(manifest, content, layers, timestamp))
}

fn layer(
    tar: &TarIndex,
    path: &str,
    diff_id: &str,
    timestamp: Option<u64>,
    stop: StopCheck,
) -> Result<Layer> {
    let mut begin = [0; 4];
    io::Read::read_exact(&mut tar.reader(path)?.0, &mut begin)?;
    let compression = Compression::of_content(begin);
    let (content, size) = tar.reader(path)?;
    let digest = if compression == Compression::None {
        diff_id.to_owned()
    } else {
        // Its path need not be its digest.
        let mut digesting = Digesting::new(Stoppable::new(tar.reader(path)?.0, stop));
        io::copy(&mut digesting, &mut io::sink())?;
        digesting.finish().0
    };
    let descriptor = Descriptor {
        media_type: media_type::docker_layer(compression),
        digest,
        size,
        ..Descriptor::default()
    };
    let layer = Layer::new(content, size, descriptor, Change::of_stored(timestamp))?;
    Ok(Layer {
        diff_id: Some(diff_id.to_owned()),
        ..layer
    })
}
