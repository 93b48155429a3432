//! A snapshot of the environment that xtask was started in. Nothing else reads the environment, so
//! every decision can be tested with a made-up one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// The operating system. On macOS, containers run in a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    /// macOS: engines run in a virtual machine.
    Mac,
}

/// The user who runs xtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The effective user id, which the kernel checks.
    pub euid: u32,
    /// The owner that files should have: the invoking user, also under `sudo`.
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whether this is root itself, not somebody who uses `sudo`.
    pub fn is_plain_root(self) -> bool {
        self.uid == 0
    }
}

/// Everything that xtask knows before it looks at files or engines.
#[derive(Clone, Debug)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The program's name and its arguments.
    pub args: Vec<OsString>,
    pub cwd: PathBuf,
    pub os: Os,
    /// The host's architecture as the OCI names it: `amd64`, `arm64`, …
    pub arch: String,
    pub user: User,
    pub stdin_tty: bool,
    pub stdout_tty: bool,
}

impl Env {
    /// The real environment.
    ///
    /// # Errors
    /// When the current directory is gone.
    #[allow(clippy::disallowed_methods)] // the only place
    pub fn capture() -> std::io::Result<Self> {
        let vars: BTreeMap<_, _> = std::env::vars_os().collect();
        let (euid, egid) = effective_ids();
        let mut env = Self {
            vars,
            args: std::env::args_os().collect(),
            cwd: std::env::current_dir()?,
            os: if cfg!(target_os = "macos") {
                Os::Mac
            } else {
                Os::Linux
            },
            arch: oci_arch(std::env::consts::ARCH).to_owned(),
            user: User {
                euid,
                uid: euid,
                gid: egid,
            },
            stdin_tty: std::io::stdin().is_terminal(),
            stdout_tty: std::io::stdout().is_terminal(),
        };
        if euid == 0 {
            let id = |name| env.get(name).and_then(|id| id.parse().ok());
            if let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) {
                env.user = User { euid, uid, gid };
            }
        }
        Ok(env)
    }

    /// An environment for tests: Linux on amd64, user 1001, no terminal.
    #[cfg(any(test, fuzzing))]
    pub fn fake(vars: &[(&str, &str)]) -> Self {
        Self {
            vars: vars
                .iter()
                .map(|(k, v)| (OsString::from(k), OsString::from(v)))
                .collect(),
            args: Vec::new(),
            cwd: PathBuf::from("/src/agent-runner"),
            os: Os::Linux,
            arch: "amd64".to_owned(),
            user: User {
                euid: 1001,
                uid: 1001,
                gid: 1001,
            },
            stdin_tty: false,
            stdout_tty: false,
        }
    }

    /// A variable's value. An empty variable counts as unset, because shells and CI systems leave empty
    /// variables behind; so does one that is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars
            .get(&OsString::from(name))?
            .to_str()
            .filter(|value| !value.is_empty())
    }

    /// Whether the variable exists, even if it is empty or not UTF-8.
    pub fn has(&self, name: &str) -> bool {
        self.vars.contains_key(&OsString::from(name))
    }

    /// The names of all variables that are UTF-8.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().filter_map(|name| name.to_str())
    }

    /// `$HOME`, if it is set.
    pub fn home(&self) -> Option<PathBuf> {
        self.vars
            .get(&OsString::from("HOME"))
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
    }

    /// The folder of our caches: `$XDG_CACHE_HOME/agent-runner`, else `~/.cache/agent-runner`.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        let caches = self.get("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| self.home().map(|home| home.join(".cache")))?;
        Some(caches.join("agent-runner"))
    }

    /// `$PATH`.
    pub fn path(&self) -> Option<&OsString> {
        self.vars.get(&OsString::from("PATH"))
    }

    /// Expands a path of the configuration: `~` is the home folder, a relative path is relative to
    /// `base`. None if HOME is needed and not set.
    pub fn expand(&self, text: &str, base: &Path) -> Option<PathBuf> {
        let path = match text.strip_prefix('~') {
            Some("") => self.home()?,
            Some(rest) if rest.starts_with('/') => self.home()?.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(text),
        };
        // Collecting the components removes `.`, so that engines and messages have a plain path.
        Some(base.join(path).components().collect())
    }
}

/// The OCI's name of an architecture, for Rust's name.
pub fn oci_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The effective user and group id.
#[allow(unsafe_code)]
fn effective_ids() -> (u32, u32) {
    // SAFETY: both calls take nothing, touch no memory and cannot fail (geteuid(2), getegid(2)).
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let env = Env::fake(&[("VERSION", ""), ("A", "b")]);
        assert_eq!(env.get("VERSION"), None);
        assert!(env.has("VERSION"));
        assert_eq!(env.get("A"), Some("b"));
    }

    #[test]
    fn paths_expand_against_home_and_base() {
        let env = Env::fake(&[("HOME", "/home/me")]);
        let base = Path::new("/src");
        assert_eq!(env.expand("~/w", base).unwrap(), Path::new("/home/me/w"));
        assert_eq!(env.expand("~", base).unwrap(), Path::new("/home/me"));
        assert_eq!(env.expand("./a", base).unwrap(), Path::new("/src/a"));
        assert_eq!(env.expand("/a", base).unwrap(), Path::new("/a"));
        assert_eq!(
            Env::fake(&[]).expand("~/w", base),
            None,
            "no HOME, no place"
        );
    }
}
