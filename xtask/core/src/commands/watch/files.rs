//! The source files of an image, as they are on the disk.
//!
//! Files are scanned, not watched through the operating system's notifications: a scan costs one
//! `stat` a file (1 ms for this repository), works in folders that a virtual machine or another
//! machine shares, and tells whether anything differs from what was built.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    base::env::Env, build::dockerfile::ignore_files, commands::watch::ignore::Ignore,
    config::files, facts::environment::env_file_path, settings::Settings,
};

/// The source files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    context: PathBuf,
    /// The first of them that exists lists what is left out of the context.
    ignore_files: Vec<PathBuf>,
    /// Files that count even if they are left out of the context. Each can be a link.
    extra_files: Vec<PathBuf>,
}

impl Sources {
    pub fn of(settings: &Settings, env: &Env) -> Self {
        let root = &settings.root;
        let context: PathBuf = root.join(&settings.build.context).components().collect();
        let mut extra_files = vec![
            root.join(&settings.build.dockerfile),
            root.join(files::FILE),
            root.join(files::LOCAL_FILE),
        ];
        let ignore_files = ignore_files(settings).to_vec();
        extra_files.extend(ignore_files.clone());
        extra_files.extend(env_file_path(settings, env));
        Self {
            context,
            ignore_files,
            extra_files,
        }
    }

    /// Scans all files. What cannot be read counts as missing: the build reports it.
    pub fn scan(&self) -> Scan {
        let mut ignore_files = self.ignore_files.iter();
        let ignore = ignore_files.find_map(|path| fs::read_to_string(path).ok());
        let ignore = ignore.unwrap_or_default();
        let ignore = Ignore::parse(&ignore);
        let mut scan = Scan::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(self.context.join(&folder));
            for entry in entries.into_iter().flatten().flatten() {
                let path = folder.join(entry.file_name());
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && !ignore.excludes_everything_below(&path) {
                    folders.push(path);
                } else if !is_folder && !ignore.excludes(&path) {
                    let path = self.context.join(path);
                    scan.add(&path, fs::symlink_metadata(&path));
                }
            }
        }
        for path in &self.extra_files {
            scan.add(path, fs::metadata(path));
        }
        scan
    }

    /// A path for messages: relative to the context.
    pub fn display<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.context).unwrap_or(path).display()
    }
}

/// The state of a file, to detect a change without reading it. The inode changes when another file is
/// moved to this path, even one of the same age and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    modified: (i64, i64),
    size: u64,
    mode: u32,
    inode: u64,
}

/// The state of all files at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    files: BTreeMap<PathBuf, FileState>,
}

impl Scan {
    fn add(&mut self, path: &Path, found: io::Result<fs::Metadata>) {
        if let Ok(found) = found {
            let state = FileState {
                modified: (found.mtime(), found.mtime_nsec()),
                size: found.len(),
                mode: found.mode(),
                inode: found.ino(),
            };
            self.files.insert(path.to_owned(), state);
        }
    }

    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The files that were changed, added or removed since an earlier scan.
    pub fn changed_since(&self, earlier: &Self) -> Vec<PathBuf> {
        let differs = |path: &&PathBuf| self.files.get(*path) != earlier.files.get(*path);
        let mut changed: Vec<_> = self
            .files
            .keys()
            .chain(earlier.files.keys())
            .filter(differs)
            .cloned()
            .collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

/// How long the files must stay unchanged before a round begins. An editor that saves several files, or a
/// `git switch`, counts as one change.
pub const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Detects when files differ from what was built and have stopped changing.
#[derive(Debug)]
pub struct Debounce {
    built: Scan,
    last: Scan,
    last_change: Instant,
}

impl Debounce {
    pub fn new(built: Scan, now: Instant) -> Self {
        Self {
            last: built.clone(),
            built,
            last_change: now,
        }
    }

    /// Takes a new scan. Returns the changes once nothing has changed for [`SETTLE_TIME`].
    pub fn update(&mut self, scan: Scan, now: Instant) -> Option<Vec<PathBuf>> {
        if scan != self.last {
            self.last = scan;
            self.last_change = now;
        }
        let changed = self.last.changed_since(&self.built);
        (!changed.is_empty() && now.duration_since(self.last_change) >= SETTLE_TIME)
            .then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sources() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), ".dockerignore", "*\n!app\n**/.*\n**/*~\n");
        write(folder.path(), "app/main.py", "1");
        write(folder.path(), "Dockerfile", "FROM x");
        write(folder.path(), "target/debug/x", "1");
        let sources = Sources {
            context: folder.path().to_owned(),
            ignore_files: vec![folder.path().join(".dockerignore")],
            extra_files: ["Dockerfile", ".dockerignore", ".env"]
                .map(|name| folder.path().join(name))
                .into(),
        };
        (folder, sources)
    }

    #[test]
    fn a_scan_sees_the_files_of_the_image() {
        let (folder, sources) = sources();
        let changed = |name: &str, text: &str| -> Vec<String> {
            let before = sources.scan();
            write(folder.path(), name, text);
            let changed = sources.scan().changed_since(&before);
            changed
                .iter()
                .map(|path| sources.display(path).to_string())
                .collect()
        };
        assert_eq!(sources.scan().count(), 3);
        assert_eq!(changed("app/main.py", "longer"), ["app/main.py"]);
        assert_eq!(changed("app/new/deep/x.py", "1"), ["app/new/deep/x.py"]);
        assert_eq!(changed("Dockerfile", "FROM other"), ["Dockerfile"]);
        assert_eq!(changed(".env", "A=1"), [".env"]);
        for ignored in [
            "app/.main.py.swp",
            "app/main.py~",
            "target/debug/x",
            ".git/HEAD",
            "x",
        ] {
            assert_eq!(changed(ignored, "other"), [""; 0], "{ignored}");
        }
        let before = sources.scan();
        fs::remove_file(folder.path().join("app/main.py")).unwrap();
        assert_eq!(sources.scan().changed_since(&before).len(), 1, "it is gone");
        let before = sources.scan();
        write(folder.path(), "app/2", "1");
        let aside = folder.path().join("aside");
        fs::copy(folder.path().join("app/2"), &aside).unwrap();
        let with_two = sources.scan();
        fs::rename(&aside, folder.path().join("app/2")).unwrap();
        assert_eq!(
            sources.scan().changed_since(&with_two).len(),
            1,
            "another's place"
        );
        fs::remove_file(folder.path().join("app/2")).unwrap();
        assert_eq!(
            sources.scan(),
            before,
            "a file that came and went is no change"
        );
    }

    #[test]
    fn a_change_behind_a_link_is_seen() {
        let (folder, mut sources) = sources();
        let elsewhere = tempfile::tempdir().unwrap();
        write(elsewhere.path(), "env", "A=1");
        let link = folder.path().join("linked.env");
        std::os::unix::fs::symlink(elsewhere.path().join("env"), &link).unwrap();
        sources.extra_files.push(link.clone());
        let before = sources.scan();
        write(elsewhere.path(), "env", "A=1 longer");
        assert_eq!(sources.scan().changed_since(&before), [link]);
    }

    /// A scan of one file of this size.
    fn scan(size: u64) -> Scan {
        let state = FileState {
            modified: (0, 0),
            size,
            mode: 0,
            inode: 0,
        };
        Scan {
            files: [(PathBuf::from("x"), state)].into(),
        }
    }

    #[test]
    fn changes_are_reported_when_nothing_changes_any_more() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut debounce = Debounce::new(scan(1), start);
        assert_eq!(debounce.update(scan(1), at(1000)), None, "nothing changed");
        assert_eq!(debounce.update(scan(2), at(1100)), None);
        assert_eq!(
            debounce.update(scan(3), at(1350)),
            None,
            "it goes on changing"
        );
        assert_eq!(debounce.update(scan(3), at(1600)), None);
        assert!(debounce.update(scan(3), at(1650)).is_some());

        let mut debounce = Debounce::new(scan(1), start);
        assert_eq!(debounce.update(scan(2), at(100)), None);
        assert_eq!(debounce.update(scan(1), at(200)), None);
        assert_eq!(
            debounce.update(scan(1), at(900)),
            None,
            "it is again what was built"
        );
    }

    #[test]
    fn a_change_during_a_build_is_reported_after_it() {
        let start = Instant::now();
        let mut debounce = Debounce::new(scan(1), start);
        let after = start + Duration::from_secs(60);
        assert_eq!(debounce.update(scan(2), after), None);
        assert!(debounce.update(scan(2), after + SETTLE_TIME).is_some());
    }
}
