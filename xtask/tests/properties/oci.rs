//! Manifests, archives and layers from untrusted sources.

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
fn assert_digest(text: &str) {
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
    // A missing digest is empty.
    assert!(fine || text.is_empty(), "{text:?}");
}

fn assert_descriptor(descriptor: &Descriptor) {
    assert_digest(&descriptor.digest);
    if let Some(platform) = &descriptor.platform {
        let normal = platform.normalized();
        assert!(normal.variant.as_deref() != Some(""));
        assert_eq!(
            (&normal.os, &normal.arch),
            (&platform.os, &platform.architecture)
        );
    }
    let _ = descriptor.is_attestation();
}

/// The digests in a manifest are valid, and not paths or URLs. A written manifest can be read again.
pub fn manifest(input: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(input) {
        let listed = manifest.config.iter().chain(&manifest.layers);
        listed
            .chain(&manifest.manifests)
            .for_each(assert_descriptor);
        assert!(manifest.is_index() || manifest.config.is_some());
        let written = serde_json::to_vec(&manifest).unwrap();
        let read: Manifest = serde_json::from_slice(&written).unwrap();
        assert_eq!(read, manifest);
    }
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        assert!(config.platform().variant.as_deref() != Some(""));
    }
}

/// The files of an archive are inside it, and a blob that is read matches its digest.
pub fn archive(input: &[u8]) {
    let Ok(index) = TarIndex::scan(Cursor::new(input)) else {
        return;
    };
    for span in index.values() {
        assert!(span.offset <= input.len() as u64 + 512, "{span:?}");
    }
    let file = Scratch::with(input);
    let Ok(tar) = TarIndex::open(&file.0) else {
        panic!("it can be read in memory, but not from a file")
    };
    if let Ok(archive) = Archive::from_tar(tar) {
        assert_descriptor(&archive.root);
        if let Ok(content) = archive.read(&archive.root.digest) {
            assert_eq!(sha256(&content), archive.root.digest);
            assert!(content.len() <= input.len());
        }
    }
}

/// A temporary file with a name that is unique to the process.
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

/// A layer is read to its last byte, or rejected.
pub fn layer(input: &[u8]) {
    let Ok(contents) = filesystem::read(input) else {
        return;
    };
    assert_eq!(contents.size, input.len() as u64);
    for program in &contents.programs {
        // The input contains the ELF header of each program.
        assert!(
            input.windows(4).any(|bytes| bytes == b"\x7fELF"),
            "{program:?}"
        );
    }
    assert!(contents.programs.len() <= input.len() / 512);
}
