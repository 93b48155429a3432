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

    /// Looks for a configuration or layer without reading it.
    ///
    /// # Errors
    /// When the question cannot be answered.
    fn find_blob(&self, digest: &str) -> Result<Option<StoredBlob>>;
}

/// A blob that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// In bytes; unknown if a storage that a registry redirects to does not tell it.
    pub size: Option<u64>,
}
