//! A hint for who runs a binary that was built before: the checkout's sources are not those it was
//! built from. `cargo xtask` needs none, it builds first.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{called::Called, env::Env, sources, ui::Ui};

/// Of the sources this was built from.
const BUILT_FROM: &str = env!("XTASK_SOURCES");
/// How often it is said.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Says it once a day. Whatever cannot be read or written changes nothing: it is a hint.
pub fn hint(env: &Env, ui: Ui, root: &Path) {
    let said = said_file(env);
    match ui.called {
        Called::ByCargo => {}
        Called::ByItself if said.as_deref().is_some_and(is_recent) => {}
        Called::ByItself => {
            if sources::digest(&root.join("xtask"))
                .is_ok_and(|digest| format!("{digest:016x}") != BUILT_FROM)
            {
                ui.hint("this xtask was built from other sources than this checkout's: `cargo install --locked --path xtask`");
                if let Some(said) = said {
                    note(&said);
                }
            }
        }
    }
}

/// Its time is when it was said last.
fn said_file(env: &Env) -> Option<PathBuf> {
    Some(env.cache_folder()?.join("outdated-was-said"))
}

fn is_recent(said: &Path) -> bool {
    let age = fs::metadata(said)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age < EVERY)
}

fn note(said: &Path) {
    if let Some(folder) = said.parent() {
        let _ = fs::create_dir_all(folder);
    }
    let _ = fs::write(said, "");
}
