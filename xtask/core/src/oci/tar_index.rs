//! Reading single files of a tar file in place, without unpacking it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

/// The position of a file's content in a tar file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub size: u64,
}

/// A tar file, and the positions of its files by name. It stays open: another process may replace or remove it.
#[derive(Clone, Debug)]
pub struct TarIndex {
    pub path: PathBuf,
    tar: Arc<File>,
    files: BTreeMap<String, Span>,
}

/// The content of a file in a tar file.
pub struct Content {
    tar: Arc<File>,
    rest: Span,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.rest.size).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.tar.read_at(&mut buffer[..length], self.rest.offset)?;
        self.rest.offset += read as u64;
        self.rest.size -= read as u64;
        Ok(read)
    }
}

impl TarIndex {
    /// Reads the headers of a tar file; contents are skipped.
    ///
    /// # Errors
    /// When it cannot be read, or is not a tar file.
    pub fn open(path: &Path) -> Result<Self> {
        let tar = File::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            files: Self::scan(&tar)?,
            tar: Arc::new(tar),
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
    pub fn reader(&self, name: &str) -> Result<(Content, u64)> {
        let rest = *self
            .files
            .get(name)
            .with_context(|| format!("`{}` contains no `{name}`", self.path.display()))?;
        let tar = Arc::clone(&self.tar);
        Ok((Content { tar, rest }, rest.size))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, content: &[u8]) {
        let mut tar = tar::Builder::new(File::create(path).unwrap());
        for name in ["a", "b"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.into_inner().unwrap();
    }

    #[test]
    fn the_file_that_was_opened_is_read_also_after_it_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        write(&path, &[1; 3000]);
        let tar = TarIndex::open(&path).unwrap();
        let mut first = tar.reader("b").unwrap().0;
        let mut begin = [0; 10];
        first.read_exact(&mut begin).unwrap();
        let other = folder.path().join("b.tar");
        write(&other, &[2; 30]);
        std::fs::rename(other, &path).unwrap();
        assert_eq!(tar.read("b").unwrap(), [1; 3000]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tar.read("a").unwrap(), [1; 3000]);
        // Each reader has a position of its own.
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 2990);
    }
}
