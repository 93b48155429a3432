//! What a round is made of, as it is on the disk.
//!
//! Files are scanned, not watched through the operating system's notifications: a scan costs one
//! `stat` a file (1 ms for this repository), works in folders that a virtual machine or another
//! machine shares, and tells whether anything differs from what was built.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::ignore::Ignore;
use crate::{
    commands::run_local::environment::env_file_path, config, env::Env, settings::Settings,
};

/// The context's list of what is left out.
const IGNORE_FILE: &str = ".dockerignore";

/// Where a round's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    context: PathBuf,
    /// Files that count whatever `.dockerignore` says.
    others: Vec<PathBuf>,
}

impl Sources {
    pub fn of(settings: &Settings, env: &Env) -> Self {
        let root = &settings.root;
        let context: PathBuf = root.join(&settings.build.context).components().collect();
        let mut others = vec![
            root.join(&settings.build.dockerfile),
            context.join(IGNORE_FILE),
            root.join(config::FILE),
            root.join(config::LOCAL_FILE),
        ];
        others.extend(env_file_path(settings, env));
        Self { context, others }
    }

    /// A look at all of them. What cannot be read counts as not there: the build will say so.
    pub fn look(&self) -> Look {
        let ignore = fs::read_to_string(self.context.join(IGNORE_FILE)).unwrap_or_default();
        let ignore = Ignore::parse(&ignore);
        let mut look = Look::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(self.context.join(&folder));
            for entry in entries.into_iter().flatten().flatten() {
                let path = folder.join(entry.file_name());
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && !ignore.skips(&path) {
                    folders.push(path);
                } else if !is_folder && !ignore.leaves_out(&path) {
                    look.note(&self.context.join(path));
                }
            }
        }
        for path in &self.others {
            look.note(path);
        }
        look
    }

    /// A path as it is said: from the context on.
    pub fn say<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.context).unwrap_or(path).display()
    }
}

/// What tells one state of a file from another without reading it. The inode shows a file that
/// was put in another's place (`mv`), also one as old and as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    modified: (i64, i64),
    size: u64,
    mode: u32,
    inode: u64,
}

/// All files of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    files: BTreeMap<PathBuf, Mark>,
}

impl Look {
    fn note(&mut self, path: &Path) {
        if let Ok(found) = fs::symlink_metadata(path) {
            let mark = Mark {
                modified: (found.mtime(), found.mtime_nsec()),
                size: found.len(),
                mode: found.mode(),
                inode: found.ino(),
            };
            self.files.insert(path.to_owned(), mark);
        }
    }

    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The files that are other, new or gone since an earlier look.
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

/// How long nothing may change before a round: an editor that saves all its files, or a
/// `git switch`, is one change.
pub const QUIET: Duration = Duration::from_millis(300);

/// Waits until files differ from what was built, and then until they stay as they are.
#[derive(Debug)]
pub struct Debounce {
    built: Look,
    last: Look,
    since: Instant,
}

impl Debounce {
    pub fn new(built: Look, now: Instant) -> Self {
        Self {
            last: built.clone(),
            built,
            since: now,
        }
    }

    /// Takes a look, and tells the changes when they are ripe.
    pub fn take(&mut self, look: Look, now: Instant) -> Option<Vec<PathBuf>> {
        if look != self.last {
            self.last = look;
            self.since = now;
        }
        let changed = self.last.changed_since(&self.built);
        (!changed.is_empty() && now.duration_since(self.since) >= QUIET).then_some(changed)
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
        write(folder.path(), IGNORE_FILE, "*\n!app\n**/.*\n**/*~\n");
        write(folder.path(), "app/main.py", "1");
        write(folder.path(), "Dockerfile", "FROM x");
        write(folder.path(), "target/debug/x", "1");
        let sources = Sources {
            context: folder.path().to_owned(),
            others: ["Dockerfile", IGNORE_FILE, ".env"]
                .map(|name| folder.path().join(name))
                .into(),
        };
        (folder, sources)
    }

    #[test]
    fn a_look_sees_what_the_image_is_made_of() {
        let (folder, sources) = sources();
        let changed = |name: &str, text: &str| -> Vec<String> {
            let before = sources.look();
            write(folder.path(), name, text);
            let changed = sources.look().changed_since(&before);
            changed
                .iter()
                .map(|path| sources.say(path).to_string())
                .collect()
        };
        assert_eq!(sources.look().count(), 3);
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
        let before = sources.look();
        fs::remove_file(folder.path().join("app/main.py")).unwrap();
        assert_eq!(sources.look().changed_since(&before).len(), 1, "it is gone");
        let before = sources.look();
        write(folder.path(), "app/2", "1");
        let aside = folder.path().join("aside");
        fs::copy(folder.path().join("app/2"), &aside).unwrap();
        let with_two = sources.look();
        fs::rename(&aside, folder.path().join("app/2")).unwrap();
        assert_eq!(
            sources.look().changed_since(&with_two).len(),
            1,
            "another's place"
        );
        fs::remove_file(folder.path().join("app/2")).unwrap();
        assert_eq!(
            sources.look(),
            before,
            "a file that came and went is no change"
        );
    }

    /// A look at one file of this size.
    fn look(size: u64) -> Look {
        let mark = Mark {
            modified: (0, 0),
            size,
            mode: 0,
            inode: 0,
        };
        Look {
            files: [(PathBuf::from("x"), mark)].into(),
        }
    }

    #[test]
    fn changes_are_ripe_when_it_is_quiet() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut files = Debounce::new(look(1), start);
        assert_eq!(files.take(look(1), at(1000)), None, "nothing changed");
        assert_eq!(files.take(look(2), at(1100)), None);
        assert_eq!(files.take(look(3), at(1350)), None, "it goes on changing");
        assert_eq!(files.take(look(3), at(1600)), None);
        assert!(files.take(look(3), at(1650)).is_some());

        let mut files = Debounce::new(look(1), start);
        assert_eq!(files.take(look(2), at(100)), None);
        assert_eq!(files.take(look(1), at(200)), None);
        assert_eq!(
            files.take(look(1), at(900)),
            None,
            "it is again what was built"
        );
    }

    #[test]
    fn what_changed_during_a_build_is_ripe_after_it() {
        let start = Instant::now();
        let mut files = Debounce::new(look(1), start);
        let after = start + Duration::from_secs(60);
        assert_eq!(files.take(look(2), after), None);
        assert!(files.take(look(2), after + QUIET).is_some());
    }
}
