//! Writes files to the folder of release artifacts. The next run removes the unfinished files of a killed
//! run. A file that is being written has a name that ends in `.partial`, a folder of parts one in
//! `.parts`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    facts::context::Context,
    oci::{archive::Archive, pack},
    release::paths,
};

/// The endings of what is unfinished.
const UNFINISHED: &[&str] = &[".partial", ".parts"];

/// A shared lock: this process writes to the folder. It is released when the value is dropped or the
/// process ends.
pub struct FolderLock {
    _lock: Option<File>,
}

/// Locks the folder for writing. If no other process holds the lock, it first removes what killed runs
/// left. Where the file system has no locks, it removes nothing.
pub fn lock_for_writing(root: &Path) -> FolderLock {
    FolderLock {
        _lock: lock(&root.join(paths::FOLDER)),
    }
}

fn lock(folder: &Path) -> Option<File> {
    fs::create_dir_all(folder).ok()?;
    let lock = File::create(folder.with_extension("lock")).ok()?;
    if lock.try_lock().is_ok() {
        remove_unfinished(folder);
        lock.unlock().ok()?;
    }
    lock.lock_shared().ok()?;
    Some(lock)
}

fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !UNFINISHED.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let path = entry.path();
        let _ = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
}

/// Packs archives, or what an engine wrote, into one archive.
///
/// # Errors
/// As [`pack::pack`].
pub fn pack(
    cx: &Context,
    inputs: &[PathBuf],
    timestamp: Option<u64>,
    output: &Path,
) -> Result<Archive> {
    let _lock = lock_for_writing(&cx.settings.root);
    cx.exec
        .interruptible(|stop| pack::pack(inputs, timestamp, output, stop))
}

/// Writes a text file, and its folder if it is missing. A reader never sees a part of it.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    // Its errors name the path.
    xshell::Shell::new()?.write_file(&partial, text)?;
    fs::rename(&partial, path).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sole_writer_removes_unfinished_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(paths::FOLDER);
        let left = || {
            let mut names: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let first = lock_for_writing(root.path());
        fs::write(folder.join("a.oci.tar.partial"), "").unwrap();
        fs::create_dir_all(folder.join("b.oci.tar.parts/deep")).unwrap();
        fs::write(folder.join("1.2.3.json"), "").unwrap();
        let all = ["1.2.3.json", "a.oci.tar.partial", "b.oci.tar.parts"];
        let second = lock_for_writing(root.path());
        assert_eq!(left(), all, "the first still writes");
        drop((first, second));
        assert_eq!(left(), all);
        let _third = lock_for_writing(root.path());
        assert_eq!(left(), ["1.2.3.json"]);
    }

    #[test]
    fn a_folder_that_cannot_be_created_has_no_lock() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("target"), "").unwrap();
        assert!(lock(&root.path().join(paths::FOLDER)).is_none());
    }

    #[test]
    fn a_text_file_is_written_atomically() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/a.json");
        write(&path, "1").unwrap();
        write(&path, "2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
