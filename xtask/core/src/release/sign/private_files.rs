//! Files with secrets for another program. They exist only while it runs. If xtask is killed, they stay until the
//! user's next run that writes such files. A process holds a lock on its folder while it needs the files.

use std::{
    fmt, fs,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::base::{env::Env, secret::MASK};

/// The name of a folder is this and the process's id.
const PREFIX: &str = "agent-runner-xtask-";
/// A folder that is younger may not be locked yet.
const LOCKED_AFTER: Duration = Duration::from_secs(60);

/// Files in a folder of their own, which only this user can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateFiles {
    pub folder: PathBuf,
    files: Vec<PrivateFile>,
}

#[derive(Clone, PartialEq, Eq)]
struct PrivateFile {
    name: &'static str,
    /// What the content is, for people.
    what: String,
    content: String,
}

/// Without the content.
impl fmt::Debug for PrivateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({MASK})", self.name, self.what)
    }
}

/// Removes the folder when it is dropped, also after a failure or a signal.
#[must_use]
pub struct Written<'a> {
    folder: &'a Path,
    _lock: File,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.folder);
    }
}

impl PrivateFiles {
    /// A folder for temporary files of this process.
    pub fn new(env: &Env, process: u32) -> Self {
        let folder = Path::new(env.get("TMPDIR").unwrap_or("/tmp"));
        Self {
            folder: folder.join(format!("{PREFIX}{process}")),
            files: Vec::new(),
        }
    }

    /// Adds a file. Returns its path.
    pub fn add(&mut self, name: &'static str, what: String, content: String) -> PathBuf {
        self.files.push(PrivateFile {
            name,
            what,
            content,
        });
        self.folder.join(name)
    }

    /// Writes the files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self) -> Result<Option<Written<'_>>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        // A process with the same id may have been killed.
        remove_unless_locked(&self.folder);
        let write = || -> io::Result<Written> {
            DirBuilder::new().mode(0o700).create(&self.folder)?;
            let lock = File::open(&self.folder)?;
            // Where the file system has no locks, other processes remove nothing.
            let _ = lock.lock_shared();
            let written = Written {
                folder: &self.folder,
                _lock: lock,
            };
            remove_left(&self.folder);
            for file in &self.files {
                let mut options = OpenOptions::new();
                let options = options.write(true).create_new(true).mode(0o600);
                options
                    .open(self.folder.join(file.name))?
                    .write_all(file.content.as_bytes())?;
            }
            Ok(written)
        };
        let written = write();
        written
            .map(Some)
            .with_context(|| format!("cannot write to `{}`", self.folder.display()))
    }

    /// Comments for a dry run: what is written before the steps.
    pub fn describe(&self) -> String {
        let line = |file: &PrivateFile| {
            let path = self.folder.join(file.name);
            format!("# write {} to {}\n", file.what, path.display())
        };
        self.files.iter().map(line).collect()
    }

    /// A comment for a dry run: what is removed after the steps.
    pub fn describe_removal(&self) -> String {
        if self.files.is_empty() {
            return String::new();
        }
        format!("# remove {}\n", self.folder.display())
    }
}

/// Removes the other folders of this user whose processes were killed.
fn remove_left(own: &Path) {
    let user = |path: &Path| fs::metadata(path).map(|found| found.uid()).ok();
    let entries = own.parent().and_then(|parent| fs::read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.path();
        let age = entry.metadata().and_then(|found| found.modified());
        let age = age.ok().and_then(|time| time.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && age.is_some_and(|age| age >= LOCKED_AFTER)
            && user(&path) == user(own)
        {
            remove_unless_locked(&path);
        }
    }
}

fn remove_unless_locked(folder: &Path) {
    if File::open(folder).is_ok_and(|folder| folder.try_lock().is_ok()) {
        let _ = fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::SystemTime};

    use super::*;

    #[test]
    fn only_the_user_can_read_them_and_only_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::fake(&[("TMPDIR", folder.path().to_str().unwrap())]);
        let mut files = PrivateFiles::new(&env, 42);
        assert!(files.write().unwrap().is_none());
        let path = files.add("a.json", "a login".to_owned(), "marked".to_owned());
        assert!(!format!("{files:?}").contains("marked"), "{files:?}");
        // What a killed process with the same id left.
        fs::create_dir(&files.folder).unwrap();
        fs::write(&path, "old").unwrap();
        let written = files.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "marked");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.folder), mode(&path)), (0o700, 0o600));
        drop(written);
        assert!(!files.folder.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::fake(&[("TMPDIR", folder.path().to_str().unwrap())]);
        let files = |process| {
            let mut files = PrivateFiles::new(&env, process);
            files.add("a.json", String::new(), String::new());
            files
        };
        let set_age = |folder: &Path, age| {
            let time = SystemTime::now() - age;
            File::open(folder).unwrap().set_modified(time).unwrap();
        };
        let [left, young, running, other] = [1, 2, 3, 4].map(files);
        fs::create_dir(&left.folder).unwrap();
        fs::create_dir(&young.folder).unwrap();
        let running_files = running.write().unwrap();
        for old in [&left, &running] {
            set_age(&old.folder, LOCKED_AFTER);
        }
        let _other_files = other.write().unwrap();
        assert!(!left.folder.exists());
        assert!(young.folder.exists());
        assert!(running.folder.exists(), "it is locked");
        drop(running_files);
        assert!(!running.folder.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let env = Env::fake(&[("TMPDIR", "/nowhere")]);
        let mut files = PrivateFiles::new(&env, 42);
        files.add("a", String::new(), String::new());
        let why = files.write().err().unwrap().to_string();
        assert_eq!(why, "cannot write to `/nowhere/agent-runner-xtask-42`");
    }
}
