//! An image on its way into the archive.

use super::layer::Layer;
use crate::oci::{
    image_config::ImageConfig,
    manifest::{Descriptor, DescriptorPlatform, Manifest},
};

/// An image as an engine wrote it, or an attestation.
pub struct Image {
    /// From the index that it was in, or from the configuration.
    pub platform: Option<DescriptorPlatform>,
    pub manifest: Manifest,
    /// Empty if the manifest names none.
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
    pub change: ImageChange,
}

/// What becomes of an image's manifest.
pub enum ImageChange {
    /// It stays, with this descriptor and content.
    Keep(Descriptor, Vec<u8>),
    /// A new one is written, of the same format.
    Write,
    /// A new one is written, and the configuration gets this time, in seconds since 1970, except for this number of
    /// steps at the beginning.
    SetTimes(u64, usize),
}

impl Image {
    /// An image that gets a new manifest, and this time in its configuration if there is one.
    pub fn new(
        manifest: Manifest,
        config: Vec<u8>,
        layers: Vec<Layer>,
        timestamp: Option<u64>,
    ) -> Self {
        let change = timestamp.map_or(ImageChange::Write, |it| ImageChange::SetTimes(it, 0));
        Self {
            platform: platform(&config),
            manifest,
            config,
            layers,
            change,
        }
    }

    /// The descriptor, if it is an attestation.
    pub fn attestation(&self) -> Option<&Descriptor> {
        match &self.change {
            ImageChange::Keep(descriptor, _) if descriptor.is_attestation() => Some(descriptor),
            _ => None,
        }
    }

    pub fn is_kept(&self) -> bool {
        matches!(self.change, ImageChange::Keep(..))
    }
}

/// The platform that a configuration names.
pub fn platform(config: &[u8]) -> Option<DescriptorPlatform> {
    let config = serde_json::from_slice::<ImageConfig>(config).ok()?;
    Some(config.platform())
}
