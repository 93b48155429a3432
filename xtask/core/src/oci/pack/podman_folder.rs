//! The folders of `podman push … dir:`: blobs by their digests without the algorithm, `manifest.json`,
//! and, where that is an index, each manifest as `<digest>.manifest.json`.
//! <https://github.com/containers/image/blob/main/docs/containers-transports.5.md>

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use super::{
    image::Image,
    layer::{Change, Layer},
};
use crate::oci::{
    digest,
    manifest::{Descriptor, Manifest},
};

pub fn images(folder: &Path, timestamp: Option<u64>) -> Result<Vec<Image>> {
    let content = read(folder, "manifest.json")?;
    let root: Manifest = serde_json::from_slice(&content)?;
    let manifests = if root.is_index() {
        let children = root.manifests.iter().map(|child| manifest(folder, child));
        children.collect::<Result<Vec<_>>>()?
    } else {
        vec![root]
    };
    let read_image = |mut manifest: Manifest| {
        let config = manifest.config.as_ref();
        let config = config.context("a manifest has no configuration")?;
        let config = read(folder, file_name(&config.digest))?;
        let layers = std::mem::take(&mut manifest.layers).into_iter();
        let layers = layers.map(|one| layer(folder, one, timestamp));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Image::new(manifest, config, layers, timestamp))
    };
    manifests.into_iter().map(read_image).collect()
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

fn layer(folder: &Path, descriptor: Descriptor, timestamp: Option<u64>) -> Result<Layer> {
    let path = folder.join(file_name(&descriptor.digest));
    let content = File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let size = content.metadata()?.len();
    Layer::new(content, size, descriptor, Change::of_stored(timestamp))
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// A digest without its algorithm.
pub fn file_name(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}
