//! Writing OCI archives.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use super::{
    archive::{Archive, blob_path},
    manifest::Descriptor,
};

/// Writes an archive. It gets its name when it is complete; until then it is `<name>.partial`.
pub struct ArchiveWriter {
    tar: tar::Builder<File>,
    path: PathBuf,
    partial: RemovedOnDrop,
    /// The digests of the blobs in it.
    written: BTreeSet<String>,
}

impl ArchiveWriter {
    /// Creates the file, and the folder that it is in.
    ///
    /// # Errors
    /// When they cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = RemovedOnDrop(PathBuf::from(partial));
        let file = File::create(&partial.0)
            .with_context(|| format!("cannot write `{}`", partial.0.display()))?;
        let mut writer = Self {
            tar: tar::Builder::new(file),
            path: path.to_owned(),
            partial,
            written: BTreeSet::new(),
        };
        writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(writer)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        Ok(self
            .tar
            .append_data(&mut header(content.len() as u64), name, content)?)
    }

    /// Adds a blob, unless the archive contains it already. Tells whether it was added.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn blob(&mut self, digest: &str, size: u64, content: impl Read) -> Result<bool> {
        let is_new = self.written.insert(digest.to_owned());
        if is_new {
            self.tar
                .append_data(&mut header(size), blob_path(digest), content)?;
        }
        Ok(is_new)
    }

    /// Adds content in memory as a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn content(&mut self, media_type: &str, content: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, content);
        self.blob(&descriptor.digest, descriptor.size, content)?;
        Ok(descriptor)
    }

    /// A file without a name in the archive's folder, to read and write. The system removes it
    /// when it is closed, also when this process is killed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn temporary_file(&self) -> io::Result<File> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".xtask-{}-{number}.partial", std::process::id());
        let path = self.path.with_file_name(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// Writes `index.json`, and gives the file its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, root: &Descriptor) -> Result<Archive> {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [root] });
        self.file("index.json", index.to_string().as_bytes())?;
        self.tar.into_inner()?.flush()?;
        fs::rename(&self.partial.0, &self.path)?;
        Archive::open(&self.path)
    }
}

/// A file that does not outlive this value, unless it was renamed.
pub(super) struct RemovedOnDrop(pub PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A tar header that depends on the size alone, so that archives with the same content are equal.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    #[test]
    fn an_archive_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.oci.tar");
        let mut writer = ArchiveWriter::create(&path).unwrap();
        let layer = writer.content(media_type::DOCKER_LAYER, b"layer").unwrap();
        writer.content(media_type::DOCKER_LAYER, b"layer").unwrap();
        let root = writer.content(media_type::DOCKER_MANIFEST, b"{}").unwrap();
        let archive = writer.finish(&root).unwrap();
        assert_eq!(archive.root, root);
        assert_eq!(archive.read(&layer.digest).unwrap(), b"layer");
        assert_eq!(archive.reader(&layer.digest).unwrap().1, 5);
        assert!(archive.read("sha256:0").is_err());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no partial file remains"
        );
    }

    #[test]
    fn changed_content_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut writer = ArchiveWriter::create(&path).unwrap();
        let real = Descriptor::of(media_type::DOCKER_MANIFEST, b"real");
        writer.blob(&real.digest, 4, &b"fake"[..]).unwrap();
        let archive = writer.finish(&real).unwrap();
        let error = archive.read(&real.digest).unwrap_err();
        assert!(
            error.to_string().contains("does not match its digest"),
            "{error}"
        );
    }
}
