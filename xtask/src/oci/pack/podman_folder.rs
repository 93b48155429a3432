//! The folders of `podman push … dir:`: blobs by their digests without the algorithm, `manifest.json`,
//! and, where that is an index, each manifest as `<digest>.manifest.json`.
//! <https://github.com/containers/image/blob/main/docs/containers-transports.5.md>

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use super::{
    config::index_entry,
    layer::{Form, Layer},
    output::Output,
};
use crate::oci::{
    compression::Compression,
    digest,
    manifest::{Descriptor, Manifest},
};

pub fn copy(folder: &Path, output: &mut Output) -> Result<Vec<Descriptor>> {
    let content = read(folder, "manifest.json")?;
    let root: Manifest = serde_json::from_slice(&content)?;
    let manifests = if root.is_index() {
        let children = root.manifests.iter().map(|child| manifest(folder, child));
        children.collect::<Result<Vec<_>>>()?
    } else {
        vec![root]
    };
    let mut copied = Vec::new();
    for manifest in manifests {
        let config = manifest.config.context("a manifest has no configuration")?;
        let config = read(folder, file_name(&config.digest))?;
        let layers = manifest.layers.into_iter().map(|one| layer(folder, one));
        let layers = layers.collect::<Result<_>>()?;
        let (manifest, config) = output.write_image(&config, layers)?;
        copied.push(index_entry(manifest, &config));
    }
    Ok(copied)
}

fn manifest(folder: &Path, descriptor: &Descriptor) -> Result<Manifest> {
    let digest = &descriptor.digest;
    let content = read(folder, &format!("{}.manifest.json", file_name(digest)))?;
    if digest::sha256(&content) != *digest {
        bail!(
            "`{}`: the content of manifest {digest} does not match its digest",
            folder.display()
        );
    }
    Ok(serde_json::from_slice(&content)?)
}

fn layer(folder: &Path, descriptor: Descriptor) -> Result<Layer> {
    let path = folder.join(file_name(&descriptor.digest));
    let content = File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let form = match Compression::of_media_type(&descriptor.media_type) {
        None | Some(Compression::None) => Form::Tar,
        Some(Compression::Zstd) => Form::Zstd,
        Some(Compression::Gzip) => Form::Gzip {
            digest: descriptor.digest,
            size: descriptor.size,
        },
    };
    Ok(Layer {
        content: Box::new(content),
        form,
    })
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// A digest without its algorithm.
pub fn file_name(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}
