//! An OCI archive: a tar file with `oci-layout`, `index.json` and the blobs, read in place.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::{io::Read, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    digest,
    manifest::{Descriptor, Manifest},
    source::{Source, StoredBlob},
    tar_index::{Content, TarIndex},
};

/// An OCI archive with one image or one index in it.
#[derive(Clone, Debug)]
pub struct Archive {
    tar: TarIndex,
    /// The manifest or index that `index.json` names.
    pub root: Descriptor,
}

impl Archive {
    /// # Errors
    /// When it is not an OCI archive, or holds more than one image.
    pub fn open(path: &Path) -> Result<Self> {
        let tar = TarIndex::open(path)
            .with_context(|| format!("cannot read the archive `{}`", path.display()))?;
        Self::from_tar(tar)
    }

    /// # Errors
    /// When it is not an OCI archive, or holds more than one image.
    pub fn from_tar(tar: TarIndex) -> Result<Self> {
        let index: Manifest = serde_json::from_slice(&tar.read("index.json")?)
            .with_context(|| format!("cannot read `index.json` of `{}`", tar.path.display()))?;
        // Docker lists an image once for each of its tags.
        let mut roots = index.manifests;
        roots.dedup_by(|a, b| a.digest == b.digest);
        match <[_; 1]>::try_from(roots) {
            Ok([root]) => Ok(Self { tar, root }),
            Err(roots) => bail!(
                "`{}` holds {} images: an archive must hold exactly one",
                tar.path.display(),
                roots.len()
            ),
        }
    }

    /// The archive after it was moved.
    #[must_use]
    pub fn moved_to(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.tar.path);
        self
    }

    pub fn path(&self) -> &Path {
        &self.tar.path
    }

    /// A blob as a stream, and its size in bytes.
    ///
    /// # Errors
    /// When the archive does not contain it.
    pub fn reader(&self, digest: &str) -> Result<(Content, u64)> {
        self.tar.reader(&blob_path(digest))
    }

    /// A small blob, checked against its digest.
    ///
    /// # Errors
    /// When the archive does not contain it, or its content does not match the digest.
    pub fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let content = self.tar.read(&blob_path(digest))?;
        if digest::sha256(&content) != digest {
            bail!(
                "`{}`: the content of blob {digest} does not match its digest",
                self.tar.path.display()
            );
        }
        Ok(content)
    }
}

impl Source for Archive {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        self.tar.read(&blob_path(digest))
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.reader(digest)?.0))
    }

    fn find_blob(&self, digest: &str) -> Result<Option<StoredBlob>> {
        let size = self.tar.size(&blob_path(digest));
        Ok(size.map(|size| StoredBlob { size: Some(size) }))
    }
}

/// The path of a blob within an archive.
pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
