//! Writes files to the folder of release artifacts. The next run removes the unfinished files of a killed
//! run. A file that xtask is writing has a name that ends in the process's id and `.partial`. What an engine writes
//! to be packed, a file or a folder, has a name that ends in the id and `.parts`. So two runs at the same time do not
//! write to the same file. What only one run needs has such a name too, until it is finished or removed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    facts::context::Context,
    oci::{
        archive::Archive,
        pack::{self, LayerCache},
    },
    release::paths,
};

/// The endings of what is unfinished.
const UNFINISHED: &[&str] = &[".partial", ".parts"];

/// A shared lock: this process writes to the folder, or needs its unfinished files. It is released when the value is
/// dropped or the process ends.
pub struct FolderLock {
    _lock: Option<File>,
}

/// Locks the folder for writing. If no other process holds the lock, it first removes what killed runs
/// left in the folder, and beside the output if that is elsewhere. Where the file system has no locks, it
/// removes nothing.
pub fn lock_for_writing(root: &Path, output: &Path) -> FolderLock {
    FolderLock {
        _lock: lock(&root.join(paths::FOLDER), output, &[]),
    }
}

/// As [`lock_for_writing`], for a run that reads files, if one of them is in the folder. Until the lock is released, no
/// run removes these files, even if they have the names of unfinished ones, as in the commands that a dry run prints.
pub fn lock_for_reading(root: &Path, inputs: &[PathBuf]) -> FolderLock {
    let folder = root.join(paths::FOLDER);
    let is_within = |input: &PathBuf| {
        let parent = input.parent().and_then(|parent| parent.canonicalize().ok());
        parent.is_some() && parent == folder.canonicalize().ok()
    };
    let lock = || lock(&folder, &folder, inputs);
    FolderLock {
        _lock: inputs.iter().any(is_within).then(lock).flatten(),
    }
}

fn lock(folder: &Path, output: &Path, inputs: &[PathBuf]) -> Option<File> {
    fs::create_dir_all(folder).ok()?;
    let lock = File::create(folder.with_extension("lock")).ok()?;
    if lock.try_lock().is_ok() {
        remove_unfinished(folder, "", inputs);
        if let (Some(folder), Some(name)) = (output.parent(), output.file_name()) {
            remove_unfinished(folder, &format!("{}.", name.to_string_lossy()), inputs);
        }
        lock.unlock().ok()?;
    }
    lock.lock_shared().ok()?;
    Some(lock)
}

/// Removes the unfinished files whose names begin so, but for the inputs of this run.
fn remove_unfinished(folder: &Path, begin: &str, inputs: &[PathBuf]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_input = inputs.iter().any(|input| input.file_name() == Some(&name));
        let name = name.to_string_lossy();
        let is_unfinished = UNFINISHED.iter().any(|ending| name.ends_with(ending));
        if !is_unfinished || !name.starts_with(begin) || is_input {
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
    let _inputs = lock_for_reading(&cx.settings.root, inputs);
    let _lock = lock_for_writing(&cx.settings.root, output);
    let partial = partial(output, std::process::id());
    let cache = LayerCache::open(cx.env.layer_cache(), cx.env.user.euid);
    cx.exec
        .interruptible(|stop| pack::pack(inputs, timestamp, &partial, &cache, stop))?;
    // Another run may write its archive to the same path.
    let archive = Archive::open(&partial)?;
    fs::rename(&partial, output).with_context(|| format!("cannot write `{}`", output.display()))?;
    Ok(archive.moved_to(output))
}

/// The name of a file that is not finished yet, or that only this process needs.
pub fn partial(path: &Path, process: u32) -> PathBuf {
    with_ending(path, &format!(".{process}.partial"))
}

/// The name of a folder whose files only this process needs.
pub fn parts(path: &Path, process: u32) -> PathBuf {
    with_ending(path, &format!(".{process}.parts"))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Writes a text file, and its folder if it is missing. A reader never sees a part of it.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let partial = partial(path, std::process::id());
    // Its errors name the path.
    let written = xshell::Shell::new()?.write_file(&partial, text);
    written
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            fs::rename(&partial, path).with_context(|| format!("cannot write `{}`", path.display()))
        })
        .inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sole_writer_removes_unfinished_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(paths::FOLDER);
        let left = |folder: &Path| {
            let mut names: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let elsewhere = root.path().join("out");
        fs::create_dir_all(&elsewhere).unwrap();
        let output = elsewhere.join("a.oci.tar");
        let first = lock_for_writing(root.path(), &output);
        fs::write(folder.join("a.oci.tar.42.partial"), "").unwrap();
        fs::create_dir_all(folder.join("b.oci.tar.43.parts/deep")).unwrap();
        fs::write(folder.join("1.2.3.json"), "").unwrap();
        for name in ["a.oci.tar", "a.oci.tar.42.partial", "mine.partial"] {
            fs::write(elsewhere.join(name), "").unwrap();
        }
        let all = ["1.2.3.json", "a.oci.tar.42.partial", "b.oci.tar.43.parts"];
        let second = lock_for_writing(root.path(), &output);
        assert_eq!(left(&folder), all, "the first still writes");
        drop((first, second));
        assert_eq!(left(&folder), all);
        let _third = lock_for_writing(root.path(), &output);
        assert_eq!(left(&folder), ["1.2.3.json"]);
        assert_eq!(left(&elsewhere), ["a.oci.tar", "mine.partial"]);
    }

    #[test]
    fn a_file_that_is_read_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(paths::FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let [input, left] =
            ["a.oci.tar.42.partial", "b.oci.tar.43.partial"].map(|name| folder.join(name));
        for path in [&input, &left] {
            fs::write(path, "").unwrap();
        }
        let _reads = lock_for_reading(root.path(), std::slice::from_ref(&input));
        assert!(!left.exists(), "a killed run left it");
        let _writes = lock_for_writing(root.path(), &folder.join("c.oci.tar"));
        assert!(input.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_created_has_no_lock() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("target"), "").unwrap();
        assert!(lock(&root.path().join(paths::FOLDER), Path::new("x"), &[]).is_none());
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
