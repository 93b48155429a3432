//! A layer on its way into the archive.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
};

use anyhow::{Context as _, Result, bail};

use crate::oci::{
    digest::Digesting, gzip, layer, layer_times::Retimed, manifest::Descriptor, stop::StopCheck,
};

/// A layer as an engine wrote it.
pub struct Layer {
    pub content: Box<dyn Read + Send>,
    /// Describes the content.
    pub descriptor: Descriptor,
    pub change: Change,
}

/// What becomes of a layer.
#[derive(Clone, Copy)]
pub enum Change {
    Keep,
    Compress,
    /// Its files get this time, in seconds since 1970, and it is compressed.
    SetTimes(u64),
}

/// A layer as the archive will hold it.
pub struct Packed {
    pub digest: String,
    /// In bytes.
    pub size: u64,
    pub content: Box<dyn Read + Send>,
    /// Its media type, if it was not compressed here.
    pub media_type: Option<String>,
    /// The digest of the uncompressed tar file, if the times in it were replaced.
    pub diff_id: Option<String>,
}

impl Change {
    /// For a layer that an engine has in its store.
    pub fn of_stored(timestamp: Option<u64>) -> Self {
        timestamp.map_or(Self::Compress, Self::SetTimes)
    }
}

impl Layer {
    /// `size` is that of the content, in bytes.
    ///
    /// # Errors
    /// When the descriptor has another size.
    pub fn new(
        content: impl Read + Send + 'static,
        size: u64,
        descriptor: Descriptor,
        change: Change,
    ) -> Result<Self> {
        if size != descriptor.size {
            bail!(
                "the layer {} has {size} bytes, and the manifest says {}",
                descriptor.digest,
                descriptor.size
            );
        }
        Ok(Self {
            content: Box::new(content),
            descriptor,
            change,
        })
    }

    /// Changes the layer. A layer that is compressed anew gets a file.
    ///
    /// # Errors
    /// When it cannot be read, differs from its descriptor, or is no tar file; when the file cannot be written.
    pub fn pack(self, file: impl FnOnce() -> io::Result<File>, stop: StopCheck) -> Result<Packed> {
        let descriptor = self.descriptor;
        let packed = match self.change {
            Change::Keep => {
                return Ok(Packed {
                    digest: descriptor.digest,
                    size: descriptor.size,
                    content: self.content,
                    media_type: Some(descriptor.media_type),
                    diff_id: None,
                });
            }
            Change::Compress => layer::read_blob(self.content, &descriptor, stop, |tar| {
                compress(tar, file()?)
            }),
            Change::SetTimes(timestamp) => {
                layer::read_blob(self.content, &descriptor, stop, |tar| {
                    let mut tar = Digesting::new(Retimed::new(tar, timestamp));
                    let packed = compress(&mut tar, file()?)?;
                    let (diff_id, ..) = tar.finish();
                    Ok(Packed {
                        diff_id: Some(diff_id),
                        ..packed
                    })
                })
            }
        };
        packed.with_context(|| format!("cannot pack the layer {}", descriptor.digest))
    }
}

fn compress(tar: impl Read, file: File) -> io::Result<Packed> {
    let target = gzip::compress(tar, Digesting::new(file))?;
    let (digest, size, mut file) = target.finish();
    file.rewind()?;
    Ok(Packed {
        digest,
        size,
        content: Box::new(file),
        media_type: None,
        diff_id: None,
    })
}
