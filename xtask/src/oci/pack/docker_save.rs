//! The archives of `docker save`: `manifest.json` names a configuration and layers.

use std::io;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{image::Image, layer::Layer};
use crate::oci::{
    compression::Compression,
    digest::Digesting,
    manifest::Descriptor,
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
    let layers = image.layers.iter();
    let layers = layers.map(|path| layer(tar, path, timestamp, stop));
    Ok(Image {
        manifest: None,
        config: tar.read(&image.config)?,
        layers: layers.collect::<Result<_>>()?,
        timestamp,
    })
}

fn layer(tar: &TarIndex, path: &str, timestamp: Option<u64>, stop: StopCheck) -> Result<Layer> {
    let mut begin = [0; 4];
    io::Read::read_exact(&mut tar.reader(path)?.0, &mut begin)?;
    let compression = Compression::of_content(begin);
    let (content, size) = tar.reader(path)?;
    let descriptor = if compression == Compression::Gzip {
        // Its path need not be its digest.
        let mut digesting = Digesting::new(Stoppable::new(tar.reader(path)?.0, stop));
        io::copy(&mut digesting, &mut io::sink())?;
        let (digest, ..) = digesting.finish();
        Some(Descriptor {
            media_type: media_type::DOCKER_LAYER.to_owned(),
            digest,
            size,
            ..Descriptor::default()
        })
    } else {
        None // zstd too: Docker's media types have no name for it
    };
    Ok(Layer {
        content: Box::new(content),
        compression,
        descriptor,
        timestamp,
    })
}
