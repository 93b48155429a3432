//! Images as files, which anybody may have written.

use std::io::Cursor;

use crate::oci::{
    archive::Archive,
    digest::sha256,
    filesystem,
    image_config::ImageConfig,
    manifest::{Descriptor, Manifest},
    tar_index::TarIndex,
};

/// `algorithm ":" encoded`:
/// <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>
#[track_caller]
fn is_digest(text: &str) {
    let fine = text.split_once(':').is_some_and(|(algorithm, encoded)| {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let encoded_ok = |c: u8| c.is_ascii_alphanumeric() || b"=_-".contains(&c);
        algorithm.split(['+', '.', '_', '-']).all(part)
            && !encoded.is_empty()
            && encoded.bytes().all(encoded_ok)
    });
    // One that is not said is empty.
    assert!(fine || text.is_empty(), "{text:?}");
}

fn is_sound(descriptor: &Descriptor) {
    is_digest(&descriptor.digest);
    if let Some(platform) = &descriptor.platform {
        let normal = platform.normal();
        assert!(normal.variant.as_deref() != Some(""));
        assert_eq!(
            (&normal.os, &normal.arch),
            (&platform.os, &platform.architecture)
        );
    }
    let _ = descriptor.is_attestation();
}

/// A manifest that is read points to what can be a name of content and nothing else (a path, an
/// address), and reads back.
pub fn manifest(input: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(input) {
        manifest.children().for_each(is_sound);
        assert!(manifest.is_index() || manifest.config.is_some());
        let written = serde_json::to_vec(&manifest).unwrap();
        let again: Manifest = serde_json::from_slice(&written).unwrap();
        assert_eq!(again, manifest);
    }
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        assert!(config.platform().variant.as_deref() != Some(""));
    }
}

/// An archive's files lie within it, and its root is one.
pub fn archive(input: &[u8]) {
    let Ok(index) = TarIndex::scan(Cursor::new(input)) else {
        return;
    };
    for span in index.values() {
        assert!(span.offset <= input.len() as u64 + 512, "{span:?}");
    }
    let file = Scratch::with(input);
    let Ok(tar) = TarIndex::open(&file.0) else {
        panic!("what is read in memory is read from a file")
    };
    if let Ok(archive) = Archive::from_tar(tar) {
        is_sound(&archive.root);
        if let Ok(content) = archive.read(&archive.root.digest) {
            assert_eq!(sha256(&content), archive.root.digest);
            assert!(content.len() <= input.len());
        }
    }
}

/// A file that is gone afterwards; for each process its own.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn with(content: &[u8]) -> Self {
        let name = format!("xtask-property-archive-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A layer is read to its last byte, or is an error.
pub fn layer(input: &[u8]) {
    let Ok(contents) = filesystem::read(input) else {
        return;
    };
    assert_eq!(contents.size, input.len() as u64);
    for program in &contents.programs {
        // A header of 20 bytes is in each.
        assert!(
            input.windows(4).any(|bytes| bytes == b"\x7fELF"),
            "{program:?}"
        );
    }
    assert!(contents.programs.len() <= input.len() / 512);
}
