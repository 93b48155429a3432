//! A layer on its way into the archive.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
};

use crate::oci::{
    compression::Compression,
    digest::Digesting,
    gzip,
    layer_times::Retimed,
    manifest::Descriptor,
    media_type,
    stop::{StopCheck, Stoppable},
};

/// A layer as an engine wrote it.
pub struct Layer {
    pub content: Box<dyn Read + Send>,
    pub compression: Compression,
    /// How a manifest lists it, if registries can store it as it is. None if it must be compressed.
    pub descriptor: Option<Descriptor>,
    /// Replaces the times of all files, in seconds since 1970.
    pub timestamp: Option<u64>,
}

/// A layer as the archive will hold it.
pub struct Packed {
    pub descriptor: Descriptor,
    pub content: Box<dyn Read + Send>,
    /// The digest of the uncompressed tar file, if its times were replaced.
    pub diff_id: Option<String>,
}

impl Layer {
    /// Compresses the layer into a file, with its times replaced if it has a timestamp. A layer that stays as it is
    /// needs no file.
    pub fn pack(
        self,
        file: impl FnOnce() -> io::Result<File>,
        stop: StopCheck,
    ) -> io::Result<Packed> {
        if let (Some(descriptor), None) = (self.descriptor, self.timestamp) {
            return Ok(Packed {
                descriptor,
                content: self.content,
                diff_id: None,
            });
        }
        let content = Stoppable::new(self.content, stop);
        let content = self.compression.decompress(content);
        let Some(timestamp) = self.timestamp else {
            return compress(content, file()?);
        };
        let mut content = Digesting::new(Retimed::new(content, timestamp));
        let packed = compress(&mut content, file()?)?;
        let (diff_id, ..) = content.finish();
        Ok(Packed {
            diff_id: Some(diff_id),
            ..packed
        })
    }
}

fn compress(content: impl Read, file: File) -> io::Result<Packed> {
    let target = gzip::compress(content, Digesting::new(file))?;
    let (digest, size, mut file) = target.finish();
    file.rewind()?;
    Ok(Packed {
        descriptor: Descriptor {
            media_type: media_type::DOCKER_LAYER.to_owned(),
            digest,
            size,
            ..Descriptor::default()
        },
        content: Box::new(file),
        diff_id: None,
    })
}
