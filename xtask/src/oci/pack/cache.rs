//! Layers that were compressed before. Compressing takes most of the time of packing, and most layers of an image are
//! those of the last one.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::oci::digest::{Digesting, sha256};

/// How many bytes are kept. The layers that were not used for the longest time are removed first.
const LIMIT: u64 = 1_000_000_000;

/// A folder with compressed layers. What cannot be read or written there is compressed anew.
pub struct LayerCache {
    folder: Option<PathBuf>,
}

/// What is known of a compressed layer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Compressed {
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// The digest of the tar file that was read.
    pub source: String,
    /// The digest of the tar file that was compressed, if the times in it were replaced.
    pub diff_id: Option<String>,
}

/// The times of the files in a compressed layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As the engine wrote them.
    Unchanged,
    /// All are so old that they stay, whatever the timestamp is.
    Fixed,
    /// Those that do not stay are this one, in seconds since 1970.
    Set(u64),
}

impl LayerCache {
    /// Without a folder, nothing is kept.
    pub const fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The file of a layer. Its name depends on xtask's sources: they may compress in another way, and a commit's image
    /// has one digest.
    fn path(&self, digest: &str, times: Times) -> Option<PathBuf> {
        let key = format!("{} {times:?} {digest}", env!("XTASK_SOURCES"));
        let name = sha256(key.as_bytes());
        Some(self.folder.as_ref()?.join(name.replace(':', "-")))
    }

    /// The layer with this digest as it was compressed before, and a file that holds it from its position on.
    pub fn find(&self, digest: &str, timestamp: Option<u64>) -> Option<(Compressed, File)> {
        let find = |times| open(&self.path(digest, times)?).ok()?;
        match timestamp {
            None => find(Times::Unchanged),
            Some(timestamp) => find(Times::Fixed).or_else(|| find(Times::Set(timestamp))),
        }
    }

    /// Keeps the layer with this digest. The file that holds it is then at its beginning.
    ///
    /// # Errors
    /// When the file cannot be set to its beginning.
    pub fn add(
        &self,
        digest: &str,
        times: Times,
        layer: &Compressed,
        content: &mut File,
    ) -> io::Result<()> {
        if let Some(path) = self.path(digest, times) {
            content.rewind()?;
            let _ = write(&path, layer, content);
        }
        content.rewind()
    }
}

/// Opens a file of [`write`]; none if it is damaged.
fn open(path: &Path) -> io::Result<Option<(Compressed, File)>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let begin = file.read_until(b'\n', &mut line)?;
    let layer: Compressed = serde_json::from_slice(&line)?;
    let mut content = Digesting::new(&mut file);
    io::copy(&mut content, &mut io::sink())?;
    let (digest, size, _) = content.finish();
    if (&digest, size) != (&layer.digest, layer.size) {
        return Ok(None);
    }
    let mut file = file.into_inner();
    file.seek(SeekFrom::Start(begin as u64))?;
    let _ = file.set_modified(SystemTime::now());
    Ok(Some((layer, file)))
}

/// Writes a line of JSON, then the layer. Another process never sees a part of it.
fn write(path: &Path, layer: &Compressed, content: &mut File) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let mut file = File::create_new(&partial)?;
    let mut line = serde_json::to_vec(layer)?;
    line.push(b'\n');
    let written = file
        .write_all(&line)
        .and_then(|()| io::copy(content, &mut file));
    match written {
        Ok(_) => fs::rename(&partial, path)?,
        Err(_) => fs::remove_file(&partial)?,
    }
    remove_oldest(folder, LIMIT)
}

fn remove_oldest(folder: &Path, limit: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have removed it.
        if let Ok(found) = entry.metadata() {
            files.push((found.modified()?, found.len(), entry.path()));
        }
    }
    files.sort_unstable();
    let mut total = 0;
    for (_, size, path) in files.into_iter().rev() {
        total += size;
        if total > limit {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_layers_that_were_used_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(100);
        for (age, name) in ["newest", "new", "old", "oldest"].iter().enumerate() {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            let time = long_ago - Duration::from_secs(age as u64);
            file.set_modified(time).unwrap();
        }
        remove_oldest(folder.path(), 250).unwrap();
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|one| one.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "newest"]);
    }
}
