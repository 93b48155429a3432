//! The environment in which xtask was started. No other module reads the environment, so tests can use a
//! fake one.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr, OsString},
    io::IsTerminal,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
};

/// The operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    /// On macOS, engines run containers in a virtual machine.
    Mac,
}

/// The user who runs xtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The effective user id, which the kernel checks.
    pub euid: u32,
    /// The user who should own new files. With `sudo`, this is the user who called it.
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whether root runs xtask, and not a user with `sudo`.
    pub fn is_root_without_sudo(self) -> bool {
        self.uid == 0
    }
}

/// A snapshot of the process's environment.
#[derive(Clone, Debug)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The program's name and its arguments.
    pub args: Vec<OsString>,
    pub cwd: PathBuf,
    pub os: Os,
    /// The OCI name of the host's architecture: `amd64`, `arm64`, …
    pub arch: String,
    pub user: User,
    /// The home folder of the user who called `sudo`; without `sudo`, `$HOME`.
    user_home: Option<PathBuf>,
    pub stdin_tty: bool,
    pub stdout_tty: bool,
}

impl Env {
    /// Takes a snapshot of the real environment.
    ///
    /// # Errors
    /// When the current directory does not exist.
    #[allow(clippy::disallowed_methods)] // the only place that reads the environment
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
            user_home: None,
            stdin_tty: std::io::stdin().is_terminal(),
            stdout_tty: std::io::stdout().is_terminal(),
        };
        env.user_home = env.home();
        if euid == 0 {
            let id = |name| env.get(name).and_then(|id| id.parse().ok());
            if let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) {
                env.user = User { euid, uid, gid };
                if uid != 0 {
                    env.user_home = home_of(uid);
                }
            }
        }
        Ok(env)
    }

    /// An environment for tests: Linux on amd64, user 1001, no terminal.
    #[cfg(any(test, fuzzing))]
    pub fn fake(vars: &[(&str, &str)]) -> Self {
        let mut env = Self {
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
            user_home: None,
            stdin_tty: false,
            stdout_tty: false,
        };
        env.user_home = env.home();
        env
    }

    /// A variable's value. An empty variable counts as unset, because shells and CI systems set variables to
    /// the empty string. A variable that is not UTF-8 counts as unset too.
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

    /// Whether the variable has a value, even if it is not UTF-8.
    pub fn has_value(&self, name: &str) -> bool {
        self.has(name) && !self.is_empty(name)
    }

    /// Whether the variable exists and is empty.
    pub fn is_empty(&self, name: &str) -> bool {
        let value = self.vars.get(&OsString::from(name));
        value.is_some_and(|value| value.is_empty())
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

    /// The folder for caches of xtask: `$XDG_CACHE_HOME/agent-runner`, else `~/.cache/agent-runner`.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        let caches = self.get("XDG_CACHE_HOME").map(PathBuf::from);
        // A relative path is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
        let caches = caches.filter(|folder| folder.is_absolute());
        let caches = caches.or_else(|| self.home().map(|home| home.join(".cache")))?;
        Some(caches.join("agent-runner"))
    }

    /// The folder for compressed layers. None with `sudo`: where it keeps `HOME`, files of root would stay in your home
    /// folder.
    pub fn layer_cache(&self) -> Option<PathBuf> {
        let is_sudo = self.user.uid != self.user.euid;
        let folder = self.cache_folder().filter(|_| !is_sudo)?;
        Some(folder.join("layers"))
    }

    /// `$PATH`.
    pub fn path(&self) -> Option<&OsString> {
        self.vars.get(&OsString::from("PATH"))
    }

    /// Expands a path from the configuration: `~` is your home folder, and a relative path is relative to
    /// `base`. With `sudo`, HOME is root's, but `~` is still yours. None if the path begins with `~` and your home
    /// folder is not known.
    pub fn expand(&self, text: &str, base: &Path) -> Option<PathBuf> {
        let home = || self.user_home.clone();
        let path = match text.strip_prefix('~') {
            Some("") => home()?,
            Some(rest) if rest.starts_with('/') => home()?.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(text),
        };
        // Collecting the components removes `.` from the path.
        Some(base.join(path).components().collect())
    }
}

/// Converts Rust's name of an architecture to the OCI's.
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
    // SAFETY: both functions have no parameters, access no memory and cannot fail (geteuid(2), getegid(2)).
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// The home folder of a user, from the user database.
#[allow(unsafe_code)]
fn home_of(uid: u32) -> Option<PathBuf> {
    let mut texts = vec![0; 16 * 1024];
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = ptr::null_mut();
    // SAFETY: `entry` and `texts` are valid for writes, and `texts` has the length that is given.
    // `getpwuid_r` writes nothing else (getpwuid(3)).
    let code = unsafe {
        libc::getpwuid_r(
            uid,
            entry.as_mut_ptr(),
            texts.as_mut_ptr(),
            texts.len(),
            &raw mut found,
        )
    };
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: `found` is not null, so it points to `entry`, whose texts are in `texts` and end with NUL.
    let home = unsafe { CStr::from_ptr((*found).pw_dir) };
    Some(PathBuf::from(OsStr::from_bytes(home.to_bytes())))
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
        assert_eq!(Env::fake(&[]).expand("~/w", base), None, "without HOME");
        let sudo = Env {
            user_home: Some("/home/caller".into()),
            ..env
        };
        assert_eq!(
            sudo.expand("~/w", base).unwrap(),
            Path::new("/home/caller/w")
        );
        assert_eq!(sudo.home().unwrap(), Path::new("/home/me"), "of the engine");
    }

    #[test]
    fn caches_are_in_a_folder_of_the_user_who_writes_them() {
        let layers = |vars: &[(&str, &str)]| Env::fake(vars).layer_cache();
        let in_home = Some("/home/me/.cache/agent-runner/layers".into());
        let home = ("HOME", "/home/me");
        assert_eq!(layers(&[home]), in_home);
        assert_eq!(layers(&[home, ("XDG_CACHE_HOME", "relative")]), in_home);
        assert_eq!(
            layers(&[home, ("XDG_CACHE_HOME", "/c")]),
            Some("/c/agent-runner/layers".into())
        );
        assert_eq!(layers(&[]), None);
        let mut sudo = Env::fake(&[home]);
        sudo.user.euid = 0;
        sudo.user.uid = 1000;
        assert_eq!(sudo.layer_cache(), None);
    }

    #[test]
    fn the_user_database_has_home_folders() {
        assert_eq!(
            home_of(0).unwrap(),
            Path::new(if cfg!(target_os = "macos") {
                "/var/root"
            } else {
                "/root"
            })
        );
        assert_eq!(home_of(u32::MAX - 7), None);
    }
}
