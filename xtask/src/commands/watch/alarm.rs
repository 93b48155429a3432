//! What the system tells of changes: when to look, not what is there.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::{
    error::Failure,
    exec::{Exec, TICK},
};

/// Rings when something happens in one of the folders that are watched.
pub struct Alarm {
    /// None where the system has nothing of the kind, or no more of it (inotify's limits).
    watcher: Option<RecommendedWatcher>,
    rings: Receiver<()>,
    watched: BTreeSet<PathBuf>,
}

impl Alarm {
    pub fn new() -> Self {
        // One that waits is enough: it makes us look at everything.
        let (ring, rings) = mpsc::sync_channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            let _ = ring.try_send(());
        });
        Self {
            watcher: watcher.ok(),
            rings,
            watched: BTreeSet::new(),
        }
    }

    /// Watches these folders, each without what is below it, and no others: `target/` alone may
    /// have more of them than the system watches. Why it does not, the first time.
    pub fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> Option<notify::Error> {
        let watcher = self.watcher.as_mut()?;
        let mut paths = watcher.paths_mut();
        for gone in self.watched.difference(folders) {
            // The system may have noticed by itself.
            let _ = paths.remove(gone);
        }
        let mut done = Ok(());
        for new in folders.difference(&self.watched) {
            done = done.and_then(|()| match paths.add(new, RecursiveMode::NonRecursive) {
                // It is gone since it was looked at.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => Ok(()),
                other => other,
            });
        }
        let failed = done.and_then(|()| paths.commit()).err();
        self.watched.clone_from(folders);
        if failed.is_some() {
            self.watcher = None;
        }
        failed
    }

    /// Whether it will ring.
    pub fn works(&self) -> bool {
        self.watcher.is_some()
    }

    /// Waits until it rings, and no longer than this.
    ///
    /// # Errors
    /// When a signal told us to stop.
    pub fn wait(&self, exec: &Exec, longest: Duration) -> Result<(), Failure> {
        if self.watcher.is_none() {
            return exec.pause(longest).map_err(Failure::signal);
        }
        let end = Instant::now() + longest;
        loop {
            exec.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.rings.recv_timeout(left.min(TICK)).is_ok() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_rings_for_a_change_and_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("in/deep")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        let exec = Exec::silent();
        let mut alarm = Alarm::new();
        let folders = [folder.path().join("in")].into();
        assert!(alarm.watch(&folders).is_none() && alarm.works());
        let rings = |alarm: &Alarm| {
            let begin = Instant::now();
            alarm.wait(&exec, Duration::from_secs(2)).unwrap();
            begin.elapsed() < Duration::from_secs(1)
        };
        fs::write(folder.path().join("in/a"), "1").unwrap();
        assert!(rings(&alarm));
        // What came with that change has rung too, perhaps.
        while rings(&alarm) {}
        fs::write(folder.path().join("out/a"), "1").unwrap();
        fs::write(folder.path().join("in/deep/a"), "1").unwrap();
        assert!(!rings(&alarm), "another folder's");
        assert!(alarm.watch(&[folder.path().join("out")].into()).is_none());
        fs::write(folder.path().join("out/b"), "1").unwrap();
        assert!(rings(&alarm));
        while rings(&alarm) {}
        fs::write(folder.path().join("in/a"), "2").unwrap();
        assert!(!rings(&alarm), "no longer watched");
    }

    #[test]
    fn a_folder_that_is_gone_is_no_failure() {
        let mut alarm = Alarm::new();
        let folders = [PathBuf::from("/nowhere/at/all")].into();
        assert!(alarm.watch(&folders).is_none() && alarm.works());
    }
}
