//! A hint for users of an installed binary: it was built from other sources than the checkout has.
//! `cargo xtask` needs no hint, because Cargo builds it first.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::base::{env::Env, invocation::Invocation, sources, ui::Ui};

/// The digest of the sources that this binary was built from.
const BUILT_FROM: &str = env!("XTASK_SOURCES");
/// The shortest time between two hints.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Shows the hint, at most once a day. Files that cannot be read or written are no failure.
pub fn hint(env: &Env, ui: Ui, root: &Path) {
    let marker = marker(env);
    match ui.invocation {
        Invocation::Cargo => {}
        Invocation::Binary if marker.as_deref().is_some_and(is_recent) => {}
        Invocation::Binary => {
            if sources::digest(&root.join("xtask"))
                .is_ok_and(|digest| format!("{digest:016x}") != BUILT_FROM)
            {
                ui.hint("this xtask was built from other sources than this checkout's: `cargo install --locked --path xtask`");
                if let Some(marker) = marker {
                    touch(&marker);
                }
            }
        }
    }
}

/// The file whose modification time is that of the last hint.
fn marker(env: &Env) -> Option<PathBuf> {
    Some(env.cache_folder()?.join("outdated-was-said"))
}

fn is_recent(marker: &Path) -> bool {
    let age = fs::metadata(marker)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age < INTERVAL)
}

fn touch(marker: &Path) {
    if let Some(folder) = marker.parent() {
        let _ = fs::create_dir_all(folder);
    }
    let _ = fs::write(marker, "");
}
