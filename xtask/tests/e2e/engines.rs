//! The real engines of this machine, and checkouts of this repository for the tests.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// An engine, and the environment and user with which it is called.
pub struct RealEngine {
    pub name: &'static str,
    pub program: &'static str,
    env: Vec<(String, String)>,
    /// The user who runs the engine; none for the user who runs the tests.
    user: Option<String>,
}

/// Tests run side by side, and an engine may be slow to answer then.
const ENGINE_TIMEOUT: &str = "60s";

/// The personal file of a checkout. With a budget for the download, `test-image` compresses the image to measure it,
/// which takes seconds.
pub const NO_DOWNLOAD_BUDGET: &str = "schema = 1\n[budget]\ncompressed = ''\n";

/// The names of the engines, as in `XTASK_E2E_REQUIRE`.
pub const DOCKER: &str = "docker";
pub const DOCKER_CONTAINERD: &str = "docker-containerd";
pub const PODMAN: &str = "podman";
pub const PODMAN_ROOTLESS: &str = "podman-rootless";
/// Other versions, whose programs are in folders of these names.
pub const DOCKER_20: &str = "docker-20";
pub const DOCKER_20_CLIENT: &str = "docker-20-client";
pub const DOCKER_26: &str = "docker-26";
pub const DOCKER_26_CONTAINERD: &str = "docker-26-containerd";
pub const DOCKER_29: &str = "docker-29";
pub const DOCKER_ROOTLESS: &str = "docker-rootless";
pub const PODMAN_5: &str = "podman-5";
pub const PODMAN_6: &str = "podman-6";

impl RealEngine {
    /// Finds an engine. The test is skipped if this machine does not have it, but fails if
    /// `XTASK_E2E_REQUIRE`, a list of names, contains it.
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
            // The test harness would capture the output of `eprintln!`.
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
            DOCKER_20 | DOCKER_20_CLIENT | DOCKER_26 | DOCKER_26_CONTAINERD | DOCKER_29 => {
                engine("docker", env(&[("PATH", path_of_age(name)?)]), None)
            }
            DOCKER_ROOTLESS => {
                let user = var("XTASK_E2E_ROOTLESS_USER")?;
                engine("docker", env(&[("PATH", path_of_age(name)?)]), Some(user))
            }
            PODMAN_5 | PODMAN_6 => engine("podman", env(&[("PATH", path_of_age(name)?)]), None),
            _ => None,
        }
    }

    /// A command that runs as the engine's user.
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
                // Secrets would be visible in runuser's arguments, so they are passed in its environment.
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

    /// A command of the engine's own program.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(self.program), args, &[])
    }

    /// Runs the engine's own program.
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        command_output(&self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Inspects an object. The result is JSON.
    pub fn inspect(&self, what: &str, name: &str) -> Option<Value> {
        let answer = self.run(&[what, "inspect", name]);
        let found: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        found.get(0).cloned()
    }

    /// Changes the owner of a folder and its contents to the engine's user.
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

    /// The expected owner of files that a container writes to the host: the engine's user, or user 1000 for
    /// root.
    pub fn expected_owner(&self) -> u32 {
        match self.id("-u") {
            0 => 1000,
            uid => uid,
        }
    }

    pub fn id(&self, which: &str) -> u32 {
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

/// A checkout of this repository in a temporary folder, for one test with one engine.
pub struct Checkout<'a> {
    pub engine: &'a RealEngine,
    folder: TempDir,
    pub container: String,
    pub version: String,
}

/// The time of every commit in a checkout.
const COMMITTED: &str = "2026-01-01T00:00:00Z";

/// The exit code and the complete output of a finished command.
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
            // Only files that git tracks, without caches and virtual environments.
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
        fs::write(src.join("xtask.local.toml"), NO_DOWNLOAD_BUDGET).unwrap();
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

    /// Removes the personal file, so that the repository's own budgets apply.
    pub fn restore_budgets(&self) {
        fs::remove_file(self.src().join("xtask.local.toml")).unwrap();
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

    /// Changes the modes of the checkout as on a file system that has no execute bit.
    pub fn make_all_executable(&self) {
        assert_eq!(self.git(&["config", "core.fileMode", "false"]).code, 0);
        for file in self.git(&["ls-files"]).stdout.lines() {
            fs::set_permissions(self.src().join(file), fs::Permissions::from_mode(0o777)).unwrap();
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
        // With fixed dates, the commit has the same id in every checkout. Builds then find the steps with
        // their labels in the engine's cache.
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

    /// The folder on the host that is mounted as /workspace.
    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("home/data/workspace")
    }

    pub fn reference(&self) -> String {
        format!("ghcr.io/stigmer/agent-runner:{}", self.version)
    }

    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let workspace = self.workspace().display().to_string();
        let mut all = vec![
            ("XTASK_ENGINE", self.engine.program),
            ("XTASK_ENGINE_TIMEOUT", ENGINE_TIMEOUT),
            ("XTASK_RUN_CONTAINER", self.container.as_str()),
            ("XTASK_RUN_WORKSPACE", workspace.as_str()),
            ("VERSION", self.version.as_str()),
        ];
        all.extend(env);
        // The working directory is a folder in the checkout, not its root.
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

    /// A command on a pseudo terminal, which `script` creates. Its input is read from standard input.
    pub fn on_terminal(&self, line: &str) -> Command {
        let xtask = self.folder.path().join("xtask");
        let mut command = Command::new("script");
        command
            .args(["-qec", &format!("{} {line}", xtask.display()), "/dev/null"])
            .current_dir(self.src())
            .envs(self.engine.env.iter().cloned())
            .env("XTASK_ENGINE", self.engine.program)
            .env("XTASK_ENGINE_TIMEOUT", ENGINE_TIMEOUT)
            .env("XTASK_RUN_CONTAINER", &self.container)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A command that reads from standard input.
    pub fn command_with_input(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = self.command(args, env);
        command.stdin(Stdio::piped());
        command
    }

    /// Creates a folder that belongs to the engine's user.
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

    /// Runs a command that is written as one line, without quotes.
    pub fn run_line(&self, line: &str, env: &[(&str, &str)]) -> CommandOutput {
        self.run_with(&line.split(' ').collect::<Vec<_>>(), env)
    }

    /// Runs a command that must succeed. Returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(
            output.code, 0,
            "{} {args:?}: {}\n{}",
            self.engine.name, output.stdout, output.stderr
        );
        output.stdout
    }

    /// Runs a shell script in the container.
    pub fn inside(&self, script: &str) -> CommandOutput {
        self.run(&["shell", "--", "sh", "-c", script])
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        // Removes what a failed test has left. Tests of `clean` check what that command removes.
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

/// `PATH`, with the engine's folder first.
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
