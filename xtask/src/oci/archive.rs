//! An OCI archive: a tar file with `oci-layout`, `index.json` and the blobs, read in place.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Descriptor, Manifest, digest};

/// Where a file's content stands in a tar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub size: u64,
}

/// The files of a tar file by name.
#[derive(Clone, Debug)]
pub struct TarIndex {
    pub path: PathBuf,
    files: BTreeMap<String, Span>,
}

impl TarIndex {
    /// Looks through the whole tar file once; contents are skipped.
    ///
    /// # Errors
    /// When it cannot be read, or is no tar file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            files: Self::of(File::open(path)?)?,
        })
    }

    /// Where each file of a tar file is.
    ///
    /// # Errors
    /// When it cannot be read, or is no tar file.
    pub fn of(tar: impl Read + Seek) -> io::Result<BTreeMap<String, Span>> {
        let mut tar = tar::Archive::new(tar);
        let mut files = BTreeMap::new();
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path()?.to_string_lossy().into_owned();
            files.insert(
                name.trim_start_matches("./").to_owned(),
                Span {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                },
            );
        }
        Ok(files)
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// A file's content as a stream, and its size.
    ///
    /// # Errors
    /// When there is no such file, or the tar file cannot be read.
    pub fn reader(&self, name: &str) -> Result<(io::Take<File>, u64)> {
        let span = self
            .files
            .get(name)
            .with_context(|| format!("`{}` has no `{name}`", self.path.display()))?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(span.offset))?;
        Ok((file.take(span.size), span.size))
    }

    /// A small file's content.
    ///
    /// # Errors
    /// When there is no such file, or the tar file cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.reader(name)?.0.read_to_end(&mut content)?;
        Ok(content)
    }
}

/// An OCI archive with one image or one index in it.
#[derive(Clone, Debug)]
pub struct Archive {
    tar: TarIndex,
    /// What the archive is there for.
    pub root: Descriptor,
}

impl Archive {
    /// # Errors
    /// When it is no OCI archive, or holds more than one image.
    pub fn open(path: &Path) -> Result<Self> {
        let tar = TarIndex::open(path)
            .with_context(|| format!("cannot read the archive `{}`", path.display()))?;
        Self::from_tar(tar)
    }

    /// # Errors
    /// When it is no OCI archive, or holds more than one image.
    pub fn from_tar(tar: TarIndex) -> Result<Self> {
        let index: Manifest = serde_json::from_slice(&tar.read("index.json")?)
            .with_context(|| format!("`{}`: `index.json` cannot be read", tar.path.display()))?;
        // Docker repeats the image for each of its names.
        let mut roots = index.manifests;
        roots.dedup_by(|a, b| a.digest == b.digest);
        match <[_; 1]>::try_from(roots) {
            Ok([root]) => Ok(Self { tar, root }),
            Err(roots) => bail!(
                "`{}` holds {} images, not one",
                tar.path.display(),
                roots.len()
            ),
        }
    }

    pub fn path(&self) -> &Path {
        &self.tar.path
    }

    /// A blob as a stream, and its size.
    ///
    /// # Errors
    /// When it is not there.
    pub fn reader(&self, digest: &str) -> Result<(io::Take<File>, u64)> {
        self.tar.reader(&blob_path(digest))
    }

    /// A small blob, which must be what its digest says.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn read(&self, wanted: &str) -> Result<Vec<u8>> {
        let content = self.tar.read(&blob_path(wanted))?;
        if digest(&content) != wanted {
            bail!(
                "`{}`: the content of {wanted} is another",
                self.tar.path.display()
            );
        }
        Ok(content)
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Writes an archive. What it is there for comes last.
pub struct Writer {
    tar: tar::Builder<File>,
    path: PathBuf,
    written: std::collections::BTreeSet<String>,
}

impl Writer {
    /// The file gets its name only when it is whole.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let partial = partial(path);
        let file = File::create(&partial)
            .with_context(|| format!("cannot write `{}`", partial.display()))?;
        let mut writer = Self {
            tar: tar::Builder::new(file),
            path: path.to_owned(),
            written: std::collections::BTreeSet::new(),
        };
        writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(writer)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        Ok(self
            .tar
            .append_data(&mut header(content.len() as u64), name, content)?)
    }

    /// Adds a blob of a known digest and size, once.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn blob(&mut self, digest: &str, size: u64, content: impl Read) -> Result<()> {
        if self.written.insert(digest.to_owned()) {
            self.tar
                .append_data(&mut header(size), blob_path(digest), content)?;
        }
        Ok(())
    }

    /// Adds content at hand.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn content(&mut self, media_type: &str, content: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, content);
        self.blob(&descriptor.digest, descriptor.size, content)?;
        Ok(descriptor)
    }

    /// Writes the index and gives the file its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, root: &Descriptor) -> Result<Archive> {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [root] });
        self.file("index.json", index.to_string().as_bytes())?;
        self.tar.into_inner()?.flush()?;
        std::fs::rename(partial(&self.path), &self.path)?;
        Archive::open(&self.path)
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// The same for the same content, whoever writes it and when.
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
    use crate::oci::media;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.oci.tar");
        let mut writer = Writer::create(&path).unwrap();
        let layer = writer.content(media::DOCKER_LAYER, b"layer").unwrap();
        writer.content(media::DOCKER_LAYER, b"layer").unwrap();
        let root = writer.content(media::DOCKER_MANIFEST, b"{}").unwrap();
        let archive = writer.finish(&root).unwrap();
        assert_eq!(archive.root, root);
        assert_eq!(archive.read(&layer.digest).unwrap(), b"layer");
        assert_eq!(archive.reader(&layer.digest).unwrap().1, 5);
        assert!(archive.read("sha256:0").is_err());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing half-written stays"
        );
    }

    #[test]
    fn content_that_was_changed_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut writer = Writer::create(&path).unwrap();
        let real = Descriptor::of(media::DOCKER_MANIFEST, b"real");
        writer.blob(&real.digest, 4, &b"fake"[..]).unwrap();
        let archive = writer.finish(&real).unwrap();
        let error = archive.read(&real.digest).unwrap_err();
        assert!(error.to_string().contains("is another"), "{error}");
    }
}
