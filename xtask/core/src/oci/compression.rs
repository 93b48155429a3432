//! How layers are compressed.

use std::io::{self, BufRead as _, BufReader, Read};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::gzip;

/// How a layer's tar file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    /// As some base images are compressed. Only the OCI's media types have a name for it.
    Zstd,
}

impl Compression {
    /// By a layer's media type. `None` if that is no tar file.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type.rsplit(['.', '+']).next() {
            Some("tar") => Some(Self::None),
            Some("gzip") => Some(Self::Gzip),
            Some("zstd") => Some(Self::Zstd),
            _ => None,
        }
    }

    /// By the first bytes of a content.
    pub fn of_content(begin: [u8; 4]) -> Self {
        match begin {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Reads the tar file within.
    pub fn decompress<'a>(self, content: impl Read + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::None => Box::new(content),
            Self::Gzip => Box::new(gzip::decompress(content)),
            Self::Zstd => Box::new(Frames::new(content)),
        }
    }
}

/// All frames of a zstd stream: programs that compress in parallel write several, and Podman's
/// `zstd:chunked` adds some that hold no content.
struct Frames<R> {
    source: BufReader<R>,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: Read> Frames<R> {
    fn new(source: R) -> Self {
        Self {
            source: BufReader::new(source),
            decoder: FrameDecoder::new(),
            is_in_frame: false,
        }
    }

    /// Begins the next frame. False at the end of the stream.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.source.by_ref().take(length.into());
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(why) => return Err(io::Error::other(why)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.source, one)
                    .map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 if !buffer.is_empty() && self.decoder.is_finished() => self.is_in_frame = false,
                count => return Ok(count),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `zstd` of "one, ", and of "two".
    const ONE: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x05, 0x29, 0x00, 0x00, b'o', b'n', b'e', b',', b' ',
    ];
    const TWO: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x03, 0x19, 0x00, 0x00, b't', b'w', b'o',
    ];
    /// A frame without content, of two bytes.
    const SKIPPED: &[u8] = &[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 0xff, 0xff];

    fn read(content: &[u8]) -> io::Result<String> {
        let mut begin = [0; 4];
        begin.copy_from_slice(&content[..4]);
        let mut text = String::new();
        Compression::of_content(begin)
            .decompress(content)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn all_frames_of_zstd_are_read() {
        assert_eq!(read(ONE).unwrap(), "one, ");
        assert_eq!(
            read(&[ONE, SKIPPED, TWO, SKIPPED].concat()).unwrap(),
            "one, two"
        );
        assert!(read(&[ONE, b"more"].concat()).is_err());
        assert!(read(&ONE[..9]).is_err());
    }

    #[test]
    fn other_content_is_recognised() {
        let gzip = gzip::compress(&b"one"[..], Vec::new()).unwrap();
        assert_eq!(read(&gzip).unwrap(), "one");
        assert_eq!(read(b"plain").unwrap(), "plain");
    }

    #[test]
    fn media_types_name_the_compression() {
        for (media_type, expected) in [
            (
                "application/vnd.oci.image.layer.v1.tar",
                Some(Compression::None),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                Some(Compression::Zstd),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Some(Compression::Gzip),
            ),
            ("application/vnd.oci.empty.v1+json", None),
        ] {
            assert_eq!(Compression::of_media_type(media_type), expected);
        }
    }
}
