//! The real engines of this machine, and a checkout of this repository for each.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// An engine, and how it is reached.
pub struct RealEngine {
    pub name: &'static str,
    pub program: &'static str,
    env: Vec<(String, String)>,
    /// Who runs it, where that is not us.
    user: Option<String>,
}

/// The engines by their names, for the message where one is missing.
pub const DOCKER: &str = "docker";
pub const DOCKER_CONTAINERD: &str = "docker-containerd";
pub const PODMAN: &str = "podman";
pub const PODMAN_ROOTLESS: &str = "podman-rootless";
/// Those of other ages, reached by a program of the same name in a folder of theirs.
pub const DOCKER_20: &str = "docker-20";
pub const DOCKER_20_CLIENT: &str = "docker-20-client";
pub const DOCKER_26: &str = "docker-26";
pub const DOCKER_26_CONTAINERD: &str = "docker-26-containerd";
pub const PODMAN_5: &str = "podman-5";

impl RealEngine {
    /// The engine, if this machine has it. Where it has not, that is said, and in CI
    /// (`XTASK_E2E_REQUIRE` lists the engines that must be there) it is a failure.
    pub fn find(name: &'static str) -> Option<Self> {
        let engine = Self::describe(name).filter(|engine| {
            engine
                .command(&["version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        });
        if engine.is_none() {
            let required = var("XTASK_E2E_REQUIRE").unwrap_or_default();
            assert!(
                !required.split_whitespace().any(|one| one == name),
                "{name} is required and does not answer"
            );
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = writeln!(std::io::stderr(), "skipped: no {name}");
        }
        engine
    }

    fn describe(name: &'static str) -> Option<Self> {
        let root = effective_uid() == 0;
        let env = |pairs: &[(&str, String)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect()
        };
        let engine = |program, env, user| {
            Some(Self {
                name,
                program,
                env,
                user,
            })
        };
        match name {
            DOCKER => engine("docker", Vec::new(), None),
            DOCKER_CONTAINERD => {
                let host = var("XTASK_E2E_DOCKER_CONTAINERD_HOST")?;
                engine("docker", env(&[("DOCKER_HOST", host)]), None)
            }
            PODMAN if root => engine("podman", Vec::new(), None),
            PODMAN_ROOTLESS if !root => engine("podman", Vec::new(), None),
            PODMAN_ROOTLESS => {
                let user = var("XTASK_E2E_ROOTLESS_USER")?;
                let runtime = var("XTASK_E2E_ROOTLESS_RUNTIME_DIR")?;
                engine("podman", env(&[("XDG_RUNTIME_DIR", runtime)]), Some(user))
            }
            DOCKER_20 | DOCKER_20_CLIENT | DOCKER_26 | DOCKER_26_CONTAINERD => {
                engine("docker", env(&[("PATH", path_of_age(name)?)]), None)
            }
            PODMAN_5 => engine("podman", env(&[("PATH", path_of_age(name)?)]), None),
            _ => None,
        }
    }

    /// A command as the one who uses this engine.
    pub fn command_of(&self, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut all: Vec<(&str, &str)> = self
            .env
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        all.extend(env);
        match &self.user {
            None => {
                let mut command = Command::new(program);
                command.args(args).envs(all);
                command
            }
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--", "env"]);
                command.arg(format!("HOME={}", self.home()));
                // On runuser's own command line a secret would show, so it goes by its environment.
                command.envs(
                    all.iter()
                        .filter(|(name, _)| *name != "XDG_RUNTIME_DIR")
                        .copied(),
                );
                command.args(
                    all.iter()
                        .filter(|(name, _)| *name == "XDG_RUNTIME_DIR")
                        .map(|(k, v)| format!("{k}={v}")),
                );
                command.arg(program).args(args).current_dir("/");
                command
            }
        }
    }

    /// The engine's own program.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(self.program), args, &[])
    }

    /// What the engine's own program answers.
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        command_output(&self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// One `inspect` as JSON.
    pub fn inspect(&self, what: &str, name: &str) -> Option<Value> {
        let answer = self.run(&[what, "inspect", name]);
        let found: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        found.get(0).cloned()
    }

    /// Gives a folder and all that is in it to the one who runs the engine.
    pub fn hand_over(&self, folder: &Path) {
        if self.user.is_none() {
            return;
        }
        let (uid, gid) = (self.id("-u"), self.id("-g"));
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            chown(&folder, Some(uid), Some(gid)).unwrap();
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    chown(&path, Some(uid), Some(gid)).unwrap();
                }
            }
        }
    }

    fn home(&self) -> String {
        let entry = self.user.as_ref().map(|user| {
            command_output(
                &Command::new("getent")
                    .args(["passwd", user])
                    .output()
                    .unwrap(),
            )
            .stdout
        });
        entry
            .and_then(|entry| entry.split(':').nth(5).map(str::to_owned))
            .unwrap_or_default()
    }

    /// Whose the files on the host are to be: the person's, and uid 1000's where that is root.
    pub fn expected_owner(&self) -> u32 {
        match self.id("-u") {
            0 => 1000,
            uid => uid,
        }
    }

    fn id(&self, which: &str) -> u32 {
        match &self.user {
            None if which == "-u" => effective_uid(),
            None => command_output(&Command::new("id").arg(which).output().unwrap())
                .stdout
                .trim()
                .parse()
                .unwrap(),
            Some(user) => command_output(&Command::new("id").args([which, user]).output().unwrap())
                .stdout
                .trim()
                .parse()
                .unwrap(),
        }
    }
}

/// A checkout of this repository in a folder of its own, for one test with one engine.
pub struct Checkout<'a> {
    pub engine: &'a RealEngine,
    folder: TempDir,
    pub container: String,
    pub version: String,
}

/// When every commit of a checkout was made.
const COMMITTED: &str = "2026-01-01T00:00:00Z";

/// What a run left, whole.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl<'a> Checkout<'a> {
    pub fn new(engine: &'a RealEngine, purpose: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("xtask-e2e-")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let src = folder.path().join("src");
        fs::create_dir(&src).unwrap();
        for part in [
            "agent-runner",
            "Dockerfile",
            ".dockerignore",
            "xtask.toml",
            ".gitignore",
        ] {
            // What git knows of it: no caches, no virtual environments.
            let listed = Command::new("git")
                .args(["-C"])
                .arg(root)
                .args(["ls-files", "-z", "--", part])
                .output()
                .unwrap();
            for file in String::from_utf8_lossy(&listed.stdout)
                .split('\0')
                .filter(|file| !file.is_empty())
            {
                fs::create_dir_all(src.join(file).parent().unwrap()).unwrap();
                fs::copy(root.join(file), src.join(file)).unwrap();
            }
        }
        fs::copy(env!("CARGO_BIN_EXE_xtask"), folder.path().join("xtask")).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        let checkout = Self {
            engine,
            container: format!("xtask-e2e-{}-{purpose}", engine.name),
            version: format!("dev-e2e-{}-{purpose}", engine.name),
            folder,
        };
        checkout.engine.hand_over(checkout.folder.path());
        checkout.commit();
        checkout
    }

    fn commit(&self) {
        for args in [
            &["init", "-q"][..],
            &["add", "-A"],
            &["commit", "-q", "-m", "x"],
        ] {
            assert_eq!(self.git(args).code, 0);
        }
    }

    pub fn git(&self, args: &[&str]) -> CommandOutput {
        let src = self.src();
        let src = src.to_str().unwrap();
        let who = [
            "-C",
            src,
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.com",
            "-c",
            "safe.directory=*",
        ];
        // The same files make the same commit in every checkout, so that builds find their labels'
        // steps in the engine's cache.
        let dates = ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"].map(|name| (name, COMMITTED));
        command_output(
            &self
                .engine
                .command_of(Path::new("git"), &[&who, args].concat(), &dates)
                .output()
                .unwrap(),
        )
    }

    pub fn src(&self) -> PathBuf {
        self.folder.path().join("src")
    }

    /// The folder on the host that the container has as /workspace.
    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("home/data/workspace")
    }

    pub fn reference(&self) -> String {
        format!("ghcr.io/stigmer/agent-runner:{}", self.version)
    }

    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let volume = format!("{}:/workspace", self.workspace().display());
        let mut all = vec![
            ("XTASK_ENGINE", self.engine.program),
            ("XTASK_RUN_CONTAINER", self.container.as_str()),
            ("XTASK_RUN_VOLUMES", volume.as_str()),
            ("VERSION", self.version.as_str()),
        ];
        all.extend(env);
        // Run from a folder within the workspace, as a person might.
        let src = self.src().join("agent-runner");
        let script = "cd \"$1\" && shift && exec \"$@\"";
        let xtask = self.folder.path().join("xtask");
        let words = [
            &[
                "-c",
                script,
                "sh",
                src.to_str().unwrap(),
                xtask.to_str().unwrap(),
            ][..],
            args,
        ]
        .concat();
        let mut command = self.engine.command_of(Path::new("sh"), &words, &all);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A command with a terminal, which `script` makes; what is typed is its standard input.
    pub fn on_terminal(&self, line: &str) -> Command {
        let xtask = self.folder.path().join("xtask");
        let mut command = Command::new("script");
        command
            .args(["-qec", &format!("{} {line}", xtask.display()), "/dev/null"])
            .current_dir(self.src())
            .env("XTASK_ENGINE", self.engine.program)
            .env("XTASK_RUN_CONTAINER", &self.container)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A command that is given something on standard input.
    pub fn command_with_input(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = self.command(args, env);
        command.stdin(Stdio::piped());
        command
    }

    /// Makes a folder that belongs to the one who runs the engine.
    pub fn make_folder(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        self.engine.hand_over(self.folder.path());
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        command_output(&self.command(args, env).output().unwrap())
    }

    pub fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(args, &[])
    }

    /// Runs what must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(
            output.code, 0,
            "{} {args:?}: {}\n{}",
            self.engine.name, output.stdout, output.stderr
        );
        output.stdout
    }

    /// A shell line in the container.
    pub fn inside(&self, script: &str) -> CommandOutput {
        self.run(&["shell", "--", "sh", "-c", script])
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        // Whatever a failed test left; `clean` itself is tested for removing it.
        for name in [
            self.container.clone(),
            format!("{}-foreign", self.container),
        ] {
            let _ = self.engine.command(&["rm", "-f", &name]).output();
        }
        let _ = self
            .engine
            .command(&["image", "rm", &self.reference()])
            .output();
    }
}

pub fn command_output(output: &Output) -> CommandOutput {
    CommandOutput {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `PATH` with the engine's folder at its head.
fn path_of_age(name: &str) -> Option<String> {
    let ages = var("XTASK_E2E_AGES")?;
    Some(format!("{ages}/{name}:{}", var("PATH")?))
}

pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn effective_uid() -> u32 {
    #[allow(unsafe_code)]
    // SAFETY: takes nothing, touches no memory and cannot fail (geteuid(2)).
    unsafe {
        libc::geteuid()
    }
}
