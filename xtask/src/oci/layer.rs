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
    let blob = Stoppable::new(source.blob(&layer.digest)?, stop);
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
    io::copy(&mut blob, &mut io::sink())?;
    let (digest, size, _) = blob.finish();
    if size != layer.size || digest != layer.digest {
        bail!("the content does not match the digest and size in the manifest");
    }
    Ok(contents?)
}
