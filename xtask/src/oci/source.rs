//! Where an image can be read from.

use std::io::Read;

use anyhow::Result;

/// Something that holds an image's manifests and blobs: an archive, or a repository of a registry.
/// The reader must compare the content with the digest.
pub trait Source: Sync {
    /// The bytes of a manifest or index.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    fn manifest(&self, digest: &str) -> Result<Vec<u8>>;

    /// The bytes of a configuration or layer, as a stream.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>>;
}
