//! Reading a layer of an image.

use std::io::{self, Read};

use anyhow::{Context as _, Result, bail};

use super::{
    compression::Compression,
    digest::Digesting,
    manifest::Descriptor,
    source::Source,
    stop::{StopCheck, Stoppable},
};

/// Reads the tar file of a layer, and compares the layer with its digest and size. `read` gets the tar file.
///
/// # Errors
/// When the layer cannot be read, or differs from its descriptor; those of `read`.
pub fn read<T>(
    source: &dyn Source,
    layer: &Descriptor,
    stop: StopCheck,
    read: impl FnOnce(Box<dyn Read + '_>) -> io::Result<T>,
) -> Result<T> {
    read_blob(source.blob(&layer.digest)?, layer, stop, read)
}

/// As [`read`], for a layer whose blob is open.
///
/// # Errors
/// As those of [`read`].
pub fn read_blob<T>(
    blob: impl Read,
    layer: &Descriptor,
    stop: StopCheck,
    read: impl FnOnce(Box<dyn Read + '_>) -> io::Result<T>,
) -> Result<T> {
    // One byte more shows that there is more.
    let limit = layer.size.saturating_add(1);
    let mut failed = None;
    let blob = Watched {
        source: Stoppable::new(blob, stop).take(limit),
        failed: &mut failed,
    };
    let mut blob = Digesting::new(blob);
    let compression = Compression::of_media_type(&layer.media_type).with_context(|| {
        format!(
            "the media type `{}` is not supported: layers must be tar files, plain or compressed with gzip or zstd",
            layer.media_type
        )
    })?;
    let contents = read(compression.decompress(&mut blob));
    // Read the rest, to report damaged content by its digest and not by the error that it causes in the decompression
    // or in tar.
    let rest = io::copy(&mut blob, &mut io::sink());
    let (digest, size, _) = blob.finish();
    // A lost connection is not a damaged layer.
    if let Some(why) = failed {
        bail!("{why}");
    }
    rest?;
    if size != layer.size || digest != layer.digest {
        bail!("the content does not match the digest and size in the manifest");
    }
    Ok(contents?)
}

/// A reader that keeps its first error: what reads from it may go on as if it were at its end.
struct Watched<'a, R> {
    source: R,
    failed: &'a mut Option<String>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer);
        read.inspect_err(|why| {
            if self.failed.is_none() && why.kind() != io::ErrorKind::Interrupted {
                *self.failed = Some(why.to_string());
            }
        })
    }
}
