//! The archives of `docker save`: `manifest.json` names a configuration and layers.

use std::io;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{
    config::index_entry,
    layer::{Form, Layer},
    output::Output,
};
use crate::oci::{
    compression::Compression, digest::Digesting, manifest::Descriptor, tar_index::TarIndex,
};

/// An entry of `manifest.json`: paths within the archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
}

pub fn copy(tar: &TarIndex, output: &mut Output) -> Result<Descriptor> {
    let images: Vec<SavedImage> = serde_json::from_slice(&tar.read("manifest.json")?)
        .with_context(|| format!("cannot read `manifest.json` of `{}`", tar.path.display()))?;
    let [image] = &images[..] else {
        bail!(
            "`{}` holds {} images: save one image",
            tar.path.display(),
            images.len()
        );
    };
    let layers = image.layers.iter().map(|path| layer(tar, path, output));
    let layers = layers.collect::<Result<_>>()?;
    let (manifest, config) = output.write_image(&tar.read(&image.config)?, layers)?;
    Ok(index_entry(manifest, &config))
}

fn layer(tar: &TarIndex, path: &str, output: &Output) -> Result<Layer> {
    let mut begin = [0; 4];
    io::Read::read_exact(&mut tar.reader(path)?.0, &mut begin)?;
    let (content, size) = tar.reader(path)?;
    let form = match Compression::of_content(begin) {
        Compression::None => Form::Tar,
        Compression::Zstd => Form::Zstd,
        Compression::Gzip => {
            // Its path need not be its digest.
            let mut digesting = Digesting::new(output.stoppable(tar.reader(path)?.0));
            io::copy(&mut digesting, &mut io::sink())?;
            let (digest, ..) = digesting.finish();
            Form::Gzip { digest, size }
        }
    };
    Ok(Layer {
        content: Box::new(content),
        form,
    })
}
