//! Digests: the names of content, `sha256:…`.
//! <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
};

use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// The digest of content in memory.
pub fn sha256(content: &[u8]) -> String {
    text(&Sha256::digest(content))
}

/// The first characters of a digest, enough for people to compare digests.
pub fn short(digest: &str) -> &str {
    let bare = digest.split_once(':').map_or(digest, |(_, bare)| bare);
    bare.get(..12).unwrap_or(bare)
}

fn text(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a digest of a manifest, or an empty text if there is none. Digests become parts of paths and
/// URLs and come from an untrusted manifest, so any other text is an error.
pub fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let text = String::deserialize(source)?;
    if text.is_empty() || is_digest(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!("{text:?} is not a digest")))
    }
}

/// Whether a text has the form `algorithm:encoded`.
fn is_digest(text: &str) -> bool {
    let of_algorithm = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split_once(':').is_some_and(|(algorithm, encoded)| {
        algorithm
            .split(['+', '.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(of_algorithm))
            && !encoded.is_empty()
            && encoded
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"=_-".contains(&c))
    })
}

/// A reader or writer that computes the digest and counts the bytes of what passes through it.
pub struct Digesting<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Digesting<T> {
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// The digest, the number of bytes, and the reader or writer within.
    pub fn finish(self) -> (String, u64, T) {
        (text(&self.hash.finalize()), self.bytes, self.inner)
    }

    fn add(&mut self, content: &[u8]) {
        self.hash.update(content);
        self.bytes += content.len() as u64;
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.add(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(content)?;
        self.add(&content[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        // The empty text's, from FIPS 180-4's test vectors.
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }

    #[test]
    fn readers_and_writers_compute_the_same_digest() {
        let mut reader = Digesting::new(&b"abc"[..]);
        let mut writer = Digesting::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        let (digest, bytes, _) = reader.finish();
        assert_eq!((digest.as_str(), bytes), (sha256(b"abc").as_str(), 3));
        assert_eq!(writer.finish(), (digest, bytes, b"abc".to_vec()));
    }
}
