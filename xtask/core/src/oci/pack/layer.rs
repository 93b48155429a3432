//! A layer on its way into the archive.

use std::{
    fs::File,
    io::{self, Read},
};

use anyhow::{Context as _, Result, bail};

use super::cache::{Compressed, LayerCache, Times};
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

    /// Changes the layer. A layer that is compressed anew gets a file. One that is kept, or that the cache has, is not
    /// read.
    ///
    /// # Errors
    /// When it cannot be read, differs from its descriptor, or is no tar file; when the file cannot be written.
    pub fn pack(
        self,
        cache: &LayerCache,
        file: impl FnOnce() -> io::Result<File>,
        stop: StopCheck,
    ) -> Result<Packed> {
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
        let read_and_compress = || {
            let packed = layer::read_blob(self.content, &descriptor, stop, |tar| {
                compress(tar, timestamp, file()?)
            });
            let (layer, times, mut file) = packed?;
            cache.add(&descriptor, times, &layer, &mut file, stop)?;
            Ok((layer, file))
        };
        let kept = cache.find(&descriptor, timestamp, stop);
        kept.map_or_else(read_and_compress, Ok)
            .and_then(|(layer, file)| match self.diff_id {
                Some(diff_id) if diff_id != layer.source_diff_id => bail!(
                    "the configuration lists {diff_id} (`diff_ids`), but the layer is {}",
                    layer.source_diff_id
                ),
                _ => Ok(Packed::new(layer, file)),
            })
            .with_context(|| format!("cannot pack the layer {}", descriptor.digest))
    }
}

impl Packed {
    fn new(layer: Compressed, content: File) -> Self {
        Self {
            digest: layer.digest,
            size: layer.size,
            content: Box::new(content),
            media_type: None,
            diff_id: layer.diff_id,
        }
    }
}

/// Compresses a layer into the file. Its files get the timestamp, if there is one.
fn compress(
    source: impl Read,
    timestamp: Option<u64>,
    file: File,
) -> io::Result<(Compressed, Times, File)> {
    let mut source = Digesting::new(source);
    let target = Digesting::new(file);
    let (target, diff_id, times) = match timestamp {
        None => (gzip::compress(&mut source, target)?, None, Times::Unchanged),
        Some(timestamp) => {
            let mut tar = Digesting::new(Retimed::new(&mut source, timestamp));
            let target = gzip::compress(&mut tar, target)?;
            let (diff_id, _, tar) = tar.finish();
            let times = if tar.is_timestamp_used() {
                Times::Set(timestamp)
            } else {
                Times::Fixed
            };
            (target, Some(diff_id), times)
        }
    };
    let (digest, size, file) = target.finish();
    let layer = Compressed {
        digest,
        size,
        source_diff_id: source.finish().0,
        diff_id,
    };
    Ok((layer, times, file))
}
