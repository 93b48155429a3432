//! Layers that were compressed before. Compressing takes most of the time of packing, and most layers of an image are
//! the same as in the image before.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::oci::{
    archive_writer::RemovedOnDrop,
    digest::{Digesting, sha256},
    gzip,
    manifest::Descriptor,
    stop::{StopCheck, Stoppable},
};

/// How many bytes are kept. The layers that were not used for the longest time are removed first.
const LIMIT: u64 = 1_000_000_000;

/// A folder with compressed layers. If a file there cannot be read or written, packing goes on as without a cache.
pub struct LayerCache {
    folder: Option<PathBuf>,
}

/// What is known of a compressed layer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Compressed {
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// The digest of the tar file that the engine wrote.
    pub source_diff_id: String,
    /// The digest of the tar file that was compressed, if the times in it were replaced.
    pub diff_id: Option<String>,
}

/// The times of the files in a compressed layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As the engine wrote them.
    Unchanged,
    /// All of them stay, whatever the timestamp is.
    Fixed,
    /// Those that do not stay were replaced by this one, in seconds since 1970.
    Set(u64),
}

/// The first line of a file is the digest of the second, which is this in JSON. The layer follows.
#[derive(Deserialize, Serialize)]
struct Entry {
    key: String,
    layer: Compressed,
}

impl LayerCache {
    /// A cache in this folder, which is made if it is missing. Its files become parts of images, so a folder that belongs
    /// to another user than this one, or in which others can write, is not used.
    pub fn open(folder: Option<PathBuf>, owner: u32) -> Self {
        let is_ours = |folder: &PathBuf| {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            fs::metadata(folder).is_ok_and(|found| {
                found.is_dir() && found.uid() == owner && found.mode() & 0o022 == 0
            })
        };
        Self {
            folder: folder.filter(is_ours),
        }
    }

    /// The layer as it was compressed before, and the open file, at the first byte of the compressed layer.
    pub fn find(
        &self,
        layer: &Descriptor,
        timestamp: Option<u64>,
        stop: StopCheck,
    ) -> Option<(Compressed, File)> {
        let folder = self.folder.as_ref()?;
        let find = |times| open(folder, &key(layer, times), stop).ok()?;
        match timestamp {
            None => find(Times::Unchanged),
            Some(timestamp) => find(Times::Fixed).or_else(|| find(Times::Set(timestamp))),
        }
    }

    /// Keeps a layer that was compressed. The file with the compressed layer is then at its first byte.
    ///
    /// # Errors
    /// When the file cannot be set to its first byte.
    pub fn add(
        &self,
        layer: &Descriptor,
        times: Times,
        compressed: &Compressed,
        content: &mut File,
        stop: StopCheck,
    ) -> io::Result<()> {
        content.rewind()?;
        if let Some(folder) = self.folder.as_ref().filter(|_| compressed.size <= LIMIT) {
            let entry = Entry {
                key: key(layer, times),
                layer: compressed.clone(),
            };
            let _ = write(folder, &entry, &mut *content, stop);
            let _ = remove_oldest(folder, LIMIT);
        }
        content.rewind()
    }
}

/// Names what the compressed layer depends on. That includes the code: all builds of a commit must have one digest, also
/// if an older xtask has compressed the layer in another way.
fn key(layer: &Descriptor, times: Times) -> String {
    let (sources, compressor) = (env!("XTASK_SOURCES"), gzip::fingerprint());
    let Descriptor {
        digest, media_type, ..
    } = layer;
    format!("{sources} {compressor} {times:?} {media_type} {digest}")
}

fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(sha256(key.as_bytes()).replace(':', "-"))
}

/// Opens a file of [`write`]; none if it is damaged.
fn open(folder: &Path, key: &str, stop: StopCheck) -> io::Result<Option<(Compressed, File)>> {
    let mut file = BufReader::new(File::open(path(folder, key))?);
    let mut line = || {
        let mut line = String::new();
        file.read_line(&mut line).map(|_| line)
    };
    let (digest, entry) = (line()?, line()?);
    let begin = digest.len() + entry.len();
    if digest.trim_end() != sha256(entry.as_bytes()) {
        return Ok(None);
    }
    let Entry { key: found, layer } = serde_json::from_str(&entry)?;
    let mut content = Digesting::new(Stoppable::new(&mut file, stop));
    io::copy(&mut content, &mut io::sink())?;
    let (digest, size, _) = content.finish();
    if found != key || (&digest, size) != (&layer.digest, layer.size) {
        return Ok(None);
    }
    let mut file = file.into_inner();
    file.seek(SeekFrom::Start(begin as u64))?;
    let _ = file.set_modified(SystemTime::now());
    Ok(Some((layer, file)))
}

/// Writes the file of a layer. Another process never sees a part of it.
fn write(folder: &Path, entry: &Entry, content: &mut File, stop: StopCheck) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = path(folder, &entry.key);
    let partial = format!("{}-{number}.partial", std::process::id());
    let partial = RemovedOnDrop(path.with_extension(partial));
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&partial.0)?;
    let line = serde_json::to_string(entry)? + "\n";
    write!(file, "{}\n{line}", sha256(line.as_bytes()))?;
    io::copy(&mut Stoppable::new(content, stop), &mut file)?;
    fs::rename(&partial.0, path)
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

    const NEVER: StopCheck = &|| Ok(());

    #[test]
    fn the_layers_that_were_used_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let owner = folder.path().metadata().unwrap().uid();
        let cache = LayerCache::open(Some(folder.path().to_owned()), owner);
        let layers = [b"one", b"two", b"six"].map(|it| Descriptor::of("layer", it));
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(b"x").unwrap();
        let compressed = Compressed {
            digest: sha256(b"x"),
            size: 1,
            source_diff_id: String::new(),
            diff_id: None,
        };
        for (age, layer) in layers.iter().enumerate() {
            let times = Times::Unchanged;
            cache
                .add(layer, times, &compressed, &mut content, NEVER)
                .unwrap();
            let file = File::open(path(folder.path(), &key(layer, times))).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age as u64 + 100);
            file.set_modified(time).unwrap();
        }
        let is_there = |layer: &Descriptor| cache.find(layer, None, NEVER).is_some();
        let size = fs::read_dir(folder.path()).unwrap().next().unwrap();
        let size = size.unwrap().metadata().unwrap().len();
        assert!(is_there(&layers[2]), "the oldest one, which is used now");
        remove_oldest(folder.path(), 2 * size + 10).unwrap();
        assert_eq!(layers.each_ref().map(is_there), [true, false, true]);
    }

    #[test]
    fn a_folder_in_which_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let owner = parent.path().metadata().unwrap().uid();
        let folder = parent.path().join("a/b");
        let is_used = |owner| {
            LayerCache::open(Some(folder.clone()), owner)
                .folder
                .is_some()
        };
        assert!(is_used(owner));
        let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let made = folder.metadata().unwrap().mode();
        assert_eq!(made & 0o777, 0o700);
        assert!(!is_used(owner + 1));
        for (others, expected) in [(0o755, true), (0o775, false), (0o757, false)] {
            mode(others);
            assert_eq!(is_used(owner), expected, "{others:o}");
        }
    }
}
