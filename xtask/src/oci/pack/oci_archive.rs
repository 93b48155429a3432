//! OCI archives, as BuildKit and Buildah write them. Their manifests and layers are copied unchanged.

use anyhow::Result;

use super::{config::index_entry, output::Output};
use crate::oci::{
    archive::Archive,
    manifest::{Descriptor, Manifest},
};

pub fn copy(archive: &Archive, output: &mut Output) -> Result<Vec<Descriptor>> {
    let content = archive.read(&archive.root.digest)?;
    let root: Manifest = serde_json::from_slice(&content)?;
    let manifests = if root.is_index() {
        root.manifests
    } else {
        vec![archive.root.clone()]
    };
    let mut copied = Vec::new();
    for descriptor in manifests {
        let content = archive.read(&descriptor.digest)?;
        let manifest: Manifest = serde_json::from_slice(&content)?;
        for blob in manifest.children() {
            let (reader, size) = archive.reader(&blob.digest)?;
            output.copy(&blob.digest, size, reader)?;
        }
        output.copy(&descriptor.digest, content.len() as u64, &content[..])?;
        let config = match &manifest.config {
            Some(config) if !descriptor.is_attestation() => archive.read(&config.digest)?,
            _ => Vec::new(),
        };
        if !descriptor.is_attestation() {
            output.add_labels(&config);
        }
        copied.push(index_entry(descriptor, &config));
    }
    Ok(copied)
}
