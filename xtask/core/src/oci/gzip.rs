//! Gzip, as layers are compressed with.

use std::{
    io::{self, BufReader, Read, Write},
    sync::OnceLock,
};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder, write::GzEncoder};

use super::digest::sha256;

/// At this level, zlib-rs makes the image 1 % smaller than `gzip -6`; at 7, 1 % larger in half of the time.
const LEVEL: u32 = 9;
/// How many bytes are compressed or decompressed at once.
const CHUNK: usize = 64 * 1024;

/// Compresses a stream, in little memory, and returns the target. The same content always becomes
/// the same bytes: the header holds neither a time nor a name, and the size of each read does not
/// matter.
///
/// # Errors
/// When the source cannot be read, or the target cannot be written.
pub fn compress<W: Write>(mut source: impl Read, target: W) -> io::Result<W> {
    let mut encoder = encoder(target);
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        (&mut source).take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return encoder.finish();
        }
        encoder.write_all(&chunk)?;
    }
}

/// Compresses what is written to it.
pub fn encoder<W: Write>(target: W) -> GzEncoder<W> {
    GzBuilder::new().write(target, Compression::new(LEVEL))
}

/// The digest of a sample that [`compress`] has compressed. It shows that another version of zlib-rs compresses
/// differently.
pub fn fingerprint() -> &'static str {
    static FINGERPRINT: OnceLock<String> = OnceLock::new();
    FINGERPRINT.get_or_init(|| {
        let sample: Vec<u8> = (0..20_000_u32)
            .flat_map(|number| number.wrapping_mul(2_654_435_761).to_string().into_bytes())
            .collect();
        let compressed = compress(&sample[..], Vec::new());
        // Writing to memory does not fail.
        sha256(&compressed.unwrap_or_default())
    })
}

/// Reads what a gzip stream holds, all of its members.
pub fn decompress<R: Read>(source: R) -> MultiGzDecoder<BufReader<R>> {
    MultiGzDecoder::new(BufReader::with_capacity(CHUNK, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns a few bytes at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0.len()).min(1 + self.0.len() % 777);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn text() -> Vec<u8> {
        let words = (0..60_000u32).map(|number| format!("{} ", number.wrapping_mul(2_654_435_761)));
        words.collect::<String>().into_bytes()
    }

    #[test]
    fn what_is_compressed_is_read_back() {
        let text = text();
        let packed = compress(&text[..], Vec::new()).unwrap();
        assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < text.len() / 2);
        let mut read = Vec::new();
        decompress(&packed[..]).read_to_end(&mut read).unwrap();
        assert!(read == text);
    }

    /// A commit's image has one digest, whoever builds it: zlib-rs must compress in one way on every machine. If a new
    /// version of it changes this digest, say so in CHANGELOG.md: the images of a commit get other digests.
    #[test]
    fn the_same_content_becomes_the_same_bytes_on_every_machine() {
        let packed = compress(&text()[..], Vec::new()).unwrap();
        assert_eq!(
            sha256(&packed),
            "sha256:55c5fe096afdd1e3e0026750c4c94b364974145fb16478c7838bf84516382e3c"
        );
    }

    #[test]
    fn the_size_of_each_read_does_not_matter() {
        let text = text();
        let whole = compress(&text[..], Vec::new()).unwrap();
        assert!(compress(Trickle(&text), Vec::new()).unwrap() == whole);
    }

    #[test]
    fn all_members_of_a_stream_are_read() {
        let mut packed = compress(&b"one, "[..], Vec::new()).unwrap();
        packed.extend(compress(&b"two"[..], Vec::new()).unwrap());
        let mut read = String::new();
        decompress(&packed[..]).read_to_string(&mut read).unwrap();
        assert_eq!(read, "one, two");
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut packed = compress(&text()[..], Vec::new()).unwrap();
        let torn = packed[..packed.len() / 2].to_vec();
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        for damaged in [torn, packed] {
            assert!(io::copy(&mut decompress(&damaged[..]), &mut io::sink()).is_err());
        }
    }
}
