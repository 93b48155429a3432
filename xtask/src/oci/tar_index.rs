//! Reading single files of a tar file in place, without unpacking it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The position of a file's content in a tar file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub size: u64,
}

/// A tar file, and the positions of its files by name.
#[derive(Clone, Debug)]
pub struct TarIndex {
    pub path: PathBuf,
    files: BTreeMap<String, Span>,
}

impl TarIndex {
    /// Reads the headers of a tar file; contents are skipped.
    ///
    /// # Errors
    /// When it cannot be read, or is not a tar file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            files: Self::scan(File::open(path)?)?,
        })
    }

    /// The position of each file by name.
    ///
    /// # Errors
    /// When it cannot be read, or is not a tar file.
    pub fn scan(tar: impl Read + Seek) -> io::Result<BTreeMap<String, Span>> {
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

    /// A file's size in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.files.get(name).map(|span| span.size)
    }

    /// A file's content as a stream, and its size in bytes.
    ///
    /// # Errors
    /// When there is no such file, or the tar file cannot be read.
    pub fn reader(&self, name: &str) -> Result<(io::Take<File>, u64)> {
        let span = self
            .files
            .get(name)
            .with_context(|| format!("`{}` contains no `{name}`", self.path.display()))?;
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
