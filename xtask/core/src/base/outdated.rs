//! A hint that an installed binary was built from other sources than the checkout's. `cargo xtask` needs no
//! hint, because Cargo builds xtask first.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::base::{env::Env, invocation::Invocation, sources, ui::Ui};

/// The digest of the sources from which this binary was built.
const BUILT_FROM: &str = env!("XTASK_SOURCES");
/// The minimum time between two hints.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Shows the hint, at most once a day. Errors of reading or writing files are ignored.
pub fn hint(env: &Env, ui: Ui, root: &Path) {
    let marker = marker(env);
    match ui.invocation {
        Invocation::Cargo => {}
        Invocation::Binary if marker.as_deref().is_some_and(is_recent) => {}
        Invocation::Binary => {
            if sources::digest(&root.join("xtask"))
                .is_ok_and(|digest| format!("{digest:016x}") != BUILT_FROM)
            {
                ui.hint("update this xtask, which was built from other sources than the checkout's: `cargo install --locked --path xtask`");
                if let Some(marker) = marker {
                    touch(&marker);
                }
            }
        }
    }
}

/// The file whose modification time is the time of the last hint.
fn marker(env: &Env) -> Option<PathBuf> {
    Some(env.cache_folder()?.join("outdated-hint-shown"))
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
