//! An image on its way into the archive.

use std::collections::BTreeMap;

use super::layer::Layer;
use crate::oci::{
    image_config::ImageConfig,
    manifest::{Descriptor, DescriptorPlatform},
};

/// An image as an engine wrote it, or an attestation.
pub struct Image {
    /// The manifest and its descriptor, if the archive gets them as they are. Otherwise a new manifest is written.
    pub manifest: Option<(Descriptor, Vec<u8>)>,
    /// Empty if the manifest names none.
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
    /// Replaces the times in the configuration, in seconds since 1970.
    pub timestamp: Option<u64>,
}

impl Image {
    pub fn is_attestation(&self) -> bool {
        let manifest = self.manifest.as_ref();
        manifest.is_some_and(|(descriptor, _)| descriptor.is_attestation())
    }

    /// The annotations that mark an attestation. Those of images are left out: they belong to the index that the image
    /// was in, such as its name.
    pub fn attestation_annotations(&self) -> Option<BTreeMap<String, String>> {
        let manifest = self.manifest.as_ref();
        let attestation = manifest.filter(|(descriptor, _)| descriptor.is_attestation());
        attestation.and_then(|(descriptor, _)| descriptor.annotations.clone())
    }

    /// The platform, from the index that the image was in, or from its configuration.
    pub fn platform(&self) -> Option<DescriptorPlatform> {
        let listed = self.manifest.as_ref();
        let listed = listed.and_then(|(descriptor, _)| descriptor.platform.clone());
        listed.or_else(|| {
            let config = serde_json::from_slice::<ImageConfig>(&self.config).ok()?;
            Some(config.platform())
        })
    }
}
