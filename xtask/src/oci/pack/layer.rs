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
    /// The digest that the configuration has of the uncompressed tar file, if the layer is compared with it.
    pub diff_id: Option<String>,
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
            diff_id: None,
            change,
        })
    }

    /// Changes the layer. A layer that is compressed anew gets a file. One that is kept is not read yet.
    ///
    /// # Errors
    /// When it cannot be read, differs from its descriptor, or is no tar file; when the file cannot be written.
    pub fn pack(self, file: impl FnOnce() -> io::Result<File>, stop: StopCheck) -> Result<Packed> {
        let descriptor = self.descriptor;
        let timestamp = match self.change {
            Change::Keep => {
                return Ok(Packed {
                    digest: descriptor.digest,
                    size: descriptor.size,
                    content: self.content,
                    media_type: Some(descriptor.media_type),
                    diff_id: None,
                });
            }
            Change::Compress => None,
            Change::SetTimes(timestamp) => Some(timestamp),
        };
        let read = |tar: Box<dyn Read + '_>| {
            let mut tar = Digesting::new(tar);
            let packed = match timestamp {
                None => compress(&mut tar, file()?)?,
                Some(timestamp) => {
                    let mut tar = Digesting::new(Retimed::new(&mut tar, timestamp));
                    let packed = compress(&mut tar, file()?)?;
                    Packed {
                        diff_id: Some(tar.finish().0),
                        ..packed
                    }
                }
            };
            Ok((packed, tar.finish().0))
        };
        let packed = layer::read_blob(self.content, &descriptor, stop, read);
        packed
            .and_then(|(packed, found)| match self.diff_id {
                Some(diff_id) if diff_id != found => bail!(
                    "the configuration lists {diff_id} (`diff_ids`), but the layer is {found}"
                ),
                _ => Ok(packed),
            })
            .with_context(|| format!("cannot pack the layer {}", descriptor.digest))
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
