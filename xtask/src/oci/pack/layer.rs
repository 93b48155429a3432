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
    stop::{StopCheck, Stoppable},
};

/// A layer as an engine wrote it.
pub struct Layer {
    pub content: Box<dyn Read + Send>,
    pub form: Form,
}

/// How a layer is stored.
pub enum Form {
    /// A plain tar file.
    Tar,
    /// A gzip-compressed tar file; the digest and size, in bytes, are of the compressed file.
    Gzip { digest: String, size: u64 },
    /// A zstd-compressed tar file. It becomes gzip, because Docker's media types have no name for zstd.
    Zstd,
}

/// A layer as the archive will hold it.
pub struct Packed {
    pub digest: String,
    /// In bytes.
    pub size: u64,
    pub content: Box<dyn Read + Send>,
    /// The digest of the uncompressed tar file, if its times were replaced.
    pub diff_id: Option<String>,
}

impl Layer {
    /// Compresses the layer into a file, with its times replaced if a timestamp is given. A layer
    /// that is compressed already, and whose times stay, needs no file.
    pub fn pack(
        self,
        timestamp: Option<u64>,
        file: impl FnOnce() -> io::Result<File>,
        stop: StopCheck,
    ) -> io::Result<Packed> {
        match (self.form, timestamp) {
            (Form::Gzip { digest, size }, None) => Ok(Packed {
                digest,
                size,
                content: self.content,
                diff_id: None,
            }),
            (Form::Tar, None) => compress(Stoppable::new(self.content, stop), file()?),
            (Form::Zstd, None) => {
                let content = Stoppable::new(self.content, stop);
                compress(Compression::Zstd.decompress(content), file()?)
            }
            (form, Some(timestamp)) => {
                let content = Stoppable::new(self.content, stop);
                let compression = match form {
                    Form::Tar => Compression::None,
                    Form::Gzip { .. } => Compression::Gzip,
                    Form::Zstd => Compression::Zstd,
                };
                let content = compression.decompress(content);
                let mut content = Digesting::new(Retimed::new(content, timestamp));
                let packed = compress(&mut content, file()?)?;
                let (diff_id, ..) = content.finish();
                Ok(Packed {
                    diff_id: Some(diff_id),
                    ..packed
                })
            }
        }
    }
}

fn compress(content: impl Read, file: File) -> io::Result<Packed> {
    let target = gzip::compress(content, Digesting::new(file))?;
    let (digest, size, mut file) = target.finish();
    file.rewind()?;
    Ok(Packed {
        digest,
        size,
        content: Box::new(file),
        diff_id: None,
    })
}
