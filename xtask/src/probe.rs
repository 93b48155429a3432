//! Read-only facts: the engine, git, the host. Asked once a command, all at the same time.

use std::{
    net::{TcpStream, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    catalogue,
    engine::{
        Engine, EngineFacts, Kind,
        container::{self, Container},
        detect,
        image::{self, Image},
    },
    env::Env,
    error::Failure,
    exec::{Exec, Finished, NoAnswer},
    plan::Cmd,
    settings::{EngineSettings, GitValues, Prefer},
};

/// A candidate that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub program: &'static str,
    pub why: String,
}

/// Asks the world; holds what asking needs.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    pub exec: &'a Exec,
    pub env: &'a Env,
    pub engine: &'a EngineSettings,
}

/// What a command wants to know together with the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub container: Option<&'a str>,
    pub images: &'a [String],
}

/// The engine, and what it has of what was wanted.
#[derive(Clone, Debug)]
pub struct World {
    pub engine: EngineFacts,
    pub container: Option<Container>,
    /// Those that it has, in the order in which they were wanted.
    pub images: Vec<Image>,
}

impl Probe<'_> {
    /// The engine to use with all its facts, and what it has of what is wanted: one round of
    /// questions, asked side by side.
    ///
    /// # Errors
    /// When no engine answers: one line a candidate, then what to do.
    pub fn world(&self, wanted: Wanted) -> Result<World, Failure> {
        self.first_that_answers(|program| self.ask_world(program, wanted))
            .map(|(world, _)| world)
    }

    /// The engine to use, and those passed over before it.
    ///
    /// # Errors
    /// When no engine answers.
    pub fn engine_and_others(&self) -> Result<(EngineFacts, Vec<PassedOver>), Failure> {
        self.first_that_answers(|program| self.ask_world(program, Wanted::default()))
            .map(|(world, others)| (world.engine, others))
    }

    /// The engine and one container, with a single process: the answer tells both.
    ///
    /// # Errors
    /// When no engine answers.
    pub fn container(&self, name: &str) -> Result<(Engine, Option<Container>), Failure> {
        self.first_that_answers(|program| {
            let answer = self.ask(&container::inspect_cmd(program, name));
            container::read_inspect(program, &answer, self.engine.timeout)
        })
        .map(|(found, _)| found)
    }

    /// A container of an engine that is known already.
    ///
    /// # Errors
    /// When it does not answer, and when a signal told us to stop.
    pub fn container_of(&self, engine: &Engine, name: &str) -> Result<Option<Container>, Failure> {
        let answer = self.ask(&container::inspect_cmd(&engine.program, name));
        self.exec.check()?;
        container::read_inspect(&engine.program, &answer, self.engine.timeout)
            .map(|(_, container)| container)
            .map_err(Failure::new)
    }

    fn first_that_answers<T>(
        &self,
        ask: impl Fn(&'static str) -> Result<T, String>,
    ) -> Result<(T, Vec<PassedOver>), Failure> {
        let mut passed_over = Vec::new();
        for kind in candidates(self.engine.prefer) {
            let program = kind.program();
            let found = match self.find(program) {
                None => Err("is not installed (not in PATH)".to_owned()),
                Some(_) => ask(program),
            };
            self.exec.check()?;
            match found {
                Ok(found) => return Ok((found, passed_over)),
                Err(why) => passed_over.push(PassedOver { program, why }),
            }
        }
        Err(none_answers(self.env, self.engine.prefer, &passed_over))
    }

    fn ask_world(&self, program: &'static str, wanted: Wanted) -> Result<World, String> {
        let limit = self.engine.timeout;
        thread::scope(|scope| {
            let container = wanted
                .container
                .map(|name| scope.spawn(move || self.ask(&container::inspect_cmd(program, name))));
            let images = (!wanted.images.is_empty()).then(|| {
                scope.spawn(move || self.ask(&image::inspect_cmd(program, wanted.images)))
            });
            let version = self.ask(&detect::version_cmd(program));
            let (mut engine, open) = detect::read_version(program, &version, limit, self.env)?;
            if let Some(open) = open
                && let Ok(answer) = self.ask(&open.cmd(program))
            {
                open.apply(&mut engine, &answer);
            }
            let joined = |handle: thread::ScopedJoinHandle<Result<Finished, NoAnswer>>| {
                handle
                    .join()
                    .unwrap_or(Err(NoAnswer::NotStarted("its thread died".to_owned())))
            };
            let container = match container {
                Some(handle) => container::read_inspect(program, &joined(handle), limit)?.1,
                None => None,
            };
            let images = match images {
                Some(handle) => image::read_inspect(&joined(handle), limit)?,
                None => Vec::new(),
            };
            Ok(World {
                engine,
                container,
                images,
            })
        })
    }

    pub fn ask(&self, cmd: &Cmd) -> Result<Finished, NoAnswer> {
        self.exec.ask(cmd, self.engine.timeout)
    }

    /// Where a program is, if it is in PATH.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        which::which_in(program, self.env.path(), &self.env.cwd).ok()
    }
}

fn candidates(prefer: Prefer) -> Vec<Kind> {
    match prefer {
        Prefer::Auto => Kind::ALL.to_vec(),
        Prefer::Docker => vec![Kind::Docker],
        Prefer::Podman => vec![Kind::Podman],
    }
}

fn none_answers(env: &Env, prefer: Prefer, passed_over: &[PassedOver]) -> Failure {
    let lines: Vec<_> = passed_over
        .iter()
        .map(|one| format!("  {} {}", one.program, one.why))
        .collect();
    let what = match prefer {
        Prefer::Auto => "no container engine answers",
        Prefer::Docker => "Docker was asked for and does not answer",
        Prefer::Podman => "Podman was asked for and does not answer",
    };
    let failure = Failure::new(format!("{what}\n{}", lines.join("\n")));
    match passed_over.iter().find_map(|one| catalogue::find(&one.why)) {
        Some(known) => failure.hints(known.hints()),
        None => failure.hint(detect::how_to_install(env.os)),
    }
}

/// What git says of the work tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Git {
    pub values: GitValues,
    /// When HEAD was committed, in seconds since 1970.
    pub commit_time: Option<u64>,
    /// Tags on HEAD.
    pub tags: Vec<String>,
    /// Uncommitted changes, untracked files among them.
    pub dirty: bool,
}

/// All tags that git knows, and whether the clone is shallow: then some may be missing.
pub fn git_tags(exec: &Exec, root: &Path) -> (Vec<String>, bool) {
    let lines = |args: &[&str]| git_says(exec, root, args).unwrap_or_default();
    let shallow = lines(&["rev-parse", "--is-shallow-repository"]).trim() == "true";
    let tags = lines(&["tag", "--list"])
        .lines()
        .map(str::to_owned)
        .collect();
    (tags, shallow)
}

fn git_says(exec: &Exec, root: &Path, args: &[&str]) -> Option<String> {
    let root = root.to_string_lossy();
    let cmd = Cmd::new("git")
        .args(["-C", &root])
        .args(args.iter().copied());
    exec.ask(&cmd, Duration::from_secs(10))
        .ok()
        .filter(Finished::ok)
        .map(|done| done.stdout)
}

/// Asks git. A folder that is no work tree, or has no commit, or a machine without git,
/// gives nothing: an image can be built all the same.
pub fn git(exec: &Exec, root: &Path) -> Git {
    let git = |args: &[&str]| git_says(exec, root, args);
    thread::scope(|scope| {
        let status = scope.spawn(|| git(&["status", "--porcelain", "--untracked-files=normal"]));
        let head = git(&[
            "log",
            "-1",
            "--no-show-signature",
            "--decorate=full",
            "--format=%H%n%ct%n%D",
        ]);
        let status = status.join().ok().flatten();
        head.map_or_else(Git::default, |head| read_git(&head, status.as_deref()))
    })
}

pub fn read_git(head: &str, status: Option<&str>) -> Git {
    let mut lines = head.lines();
    let hex = |sha: &&str| !sha.is_empty() && sha.bytes().all(|c| b"0123456789abcdef".contains(&c));
    let Some(sha) = lines.next().filter(hex).map(str::to_owned) else {
        return Git {
            dirty: true,
            ..Git::default()
        };
    };
    let commit_time = lines.next().and_then(|time| time.parse().ok());
    let refs = lines.next().unwrap_or("");
    let of = |prefix: &str| {
        refs.split(", ")
            .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
            .collect()
    };
    let branch: Vec<String> = of("HEAD -> refs/heads/");
    Git {
        values: GitValues {
            sha: Some(sha),
            branch: branch.into_iter().next(),
        },
        commit_time,
        tags: of("tag: refs/tags/"),
        dirty: status.is_none_or(|status| !status.trim().is_empty()),
    }
}

/// A folder on the host that the container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    Missing,
    /// Something is there that is no folder, such as a file: it is mounted as it is.
    Other,
    There {
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

/// Looks at a folder.
pub fn folder(path: &Path) -> Folder {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Folder::There {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode(),
        },
        Ok(_) => Folder::Other,
        Err(_) => Folder::Missing,
    }
}

/// Whether SELinux is enforcing on this host.
pub fn selinux_enforcing() -> bool {
    std::fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|state| state.trim() == "1")
}

/// Whether something listens at an address such as `localhost:7233` or `http://localhost:7234`.
pub fn listens(address: &str) -> bool {
    const LIMIT: Duration = Duration::from_millis(300);
    let Some((host, port)) = host_and_port(address) else {
        return true;
    };
    (host.as_str(), port)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.any(|to| TcpStream::connect_timeout(&to, LIMIT).is_ok()))
}

/// The host and port of an address; none where it names no port.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    let (host, port) = bare.rsplit_once(':')?;
    let host = host.rsplit('@').next().unwrap_or(host);
    Some((
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_read() {
        let git = read_git(
            "0123\n1700000000\nHEAD -> refs/heads/main, tag: refs/tags/v1.2.3, refs/remotes/origin/main\n",
            Some(""),
        );
        assert_eq!(git.values.sha.as_deref(), Some("0123"));
        assert_eq!(git.values.branch.as_deref(), Some("main"));
        assert_eq!(
            (git.tags, git.commit_time, git.dirty),
            (vec!["v1.2.3".to_owned()], Some(1_700_000_000), false)
        );

        let detached = read_git(
            "0123\n1700000000\nHEAD, tag: refs/tags/v1\n",
            Some("?? x\n"),
        );
        assert_eq!(detached.values.branch, None);
        assert!(detached.dirty);
        assert!(
            read_git("0123\n", None).dirty,
            "what is not known to be clean is not clean"
        );
    }

    #[test]
    fn addresses() {
        let is = |text: &str, host: &str, port| {
            assert_eq!(host_and_port(text), Some((host.to_owned(), port)), "{text}");
        };
        is("localhost:7233", "localhost", 7233);
        is("http://localhost:7234/v1", "localhost", 7234);
        is("[::1]:7233", "::1", 7233);
        is("http://me:pw@box:1/x", "box", 1);
        assert_eq!(host_and_port("localhost"), None);
        assert_eq!(host_and_port("http://localhost/"), None);
    }

    #[test]
    fn a_listener_is_seen_and_its_absence_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(listens(&address));
        // Not the same port once more: it may be somebody else's by then.
        assert!(!listens("127.0.0.1:1"));
    }
}
