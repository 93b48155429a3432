//! A container's facts, and the commands on it.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::{
    base::engine_kind::EngineKind,
    engine::{Engine, detect::answered, label},
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// A container, as both engines describe it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    pub id: String,
    pub created: String,
    pub state: State,
    pub config: Config,
    /// The image's reference in Podman's answer. Docker's has it in `Config.Image`.
    image_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    pub status: String,
    pub running: bool,
    pub exit_code: i32,
    pub started_at: String,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    pub image: String,
    pub user: String,
    pub env: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub healthcheck: Option<Healthcheck>,
}

/// An image's or a container's HEALTHCHECK.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    pub test: Option<Vec<String>>,
}

impl Healthcheck {
    /// The command that the engine would run; none if there is no check.
    pub fn command(&self) -> Option<Vec<String>> {
        let test = self.test.as_deref().unwrap_or_default();
        match test {
            [how, argv @ ..] if how == "CMD" && !argv.is_empty() => Some(argv.to_vec()),
            [how, script] if how == "CMD-SHELL" => {
                Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()])
            }
            _ => None,
        }
    }
}

/// Who started a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Us,
    Somebody,
}

impl Container {
    pub fn owner(&self) -> Owner {
        match self.label(label::CONTAINER) {
            Some(_) => Owner::Us,
            None => Owner::Somebody,
        }
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// The reference of the image it was made from.
    pub fn image(&self) -> &str {
        self.image_name.as_deref().unwrap_or(&self.config.image)
    }

    /// The first characters of the id, as engines show it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The tool that may have made it, recognised by its labels.
    pub fn looks_like(&self) -> String {
        let trace = [
            ("com.docker.compose.project", "Docker Compose, project"),
            ("io.podman.compose.project", "Podman Compose, project"),
            ("com.docker.swarm.service.name", "Docker Swarm, service"),
            ("io.kubernetes.pod.name", "Kubernetes, pod"),
            ("PODMAN_SYSTEMD_UNIT", "systemd, unit"),
            ("dev.containers.id", "a dev container,"),
        ]
        .iter()
        .find_map(|(key, maker)| {
            self.label(key)
                .map(|value| format!("made by {maker} `{value}`"))
        });
        trace.unwrap_or_else(|| "started by hand or by another tool".to_owned())
    }
}

/// Which part of a log is shown, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep showing new lines.
    pub follow: bool,
    /// The number of lines before the end.
    pub tail: Option<u64>,
    /// A time or a duration, as both engines take it.
    pub since: Option<String>,
    pub until: Option<String>,
    pub timestamps: bool,
}

impl LogOptions {
    /// The last lines.
    pub fn last(lines: u64) -> Self {
        Self {
            tail: Some(lines),
            ..Self::default()
        }
    }
}

/// Asks for a container by name. The answer also tells which engine gives it.
pub fn inspect_cmd(program: &str, name: &str) -> Cmd {
    Cmd::new(program).args(["container", "inspect", name])
}

/// Reads the answer to [`inspect_cmd`]: the engine, and the container if it exists. That there is no such
/// container is an answer too.
///
/// # Errors
/// Why the engine gave no answer.
pub fn read_inspect(
    program: &str,
    answer: &Result<Finished, NoAnswer>,
) -> Result<(Engine, Option<Container>), String> {
    let finished = answered(answer)?;
    let engine = |kind| Engine {
        kind,
        program: program.to_owned(),
    };
    if finished.ok() {
        let container = read_containers(&finished.stdout)?.into_iter().next();
        // An empty answer names no engine. Its program then decides.
        let described_by = |kind: &&EngineKind| match &container {
            Some(container) => is_description_of(**kind, container),
            None => kind.program() == program,
        };
        let kind = EngineKind::ALL.iter().find(described_by);
        let kind = kind.ok_or("answers in an unknown form".to_owned())?;
        return Ok((engine(*kind), container));
    }
    if finished.stderr.to_lowercase().contains("no such container") {
        let by_code = |kind: &&EngineKind| exit_code_of_no_container(**kind) == finished.code;
        let kind = EngineKind::ALL.iter().find(by_code);
        return Ok((engine(*kind.unwrap_or(&EngineKind::Docker)), None));
    }
    Err(format!("does not answer: {}", finished.complaint()))
}

/// Whether the description of a container is in an engine's form.
fn is_description_of(kind: EngineKind, container: &Container) -> bool {
    match kind {
        EngineKind::Docker => container.image_name.is_none(),
        EngineKind::Podman => container.image_name.is_some(),
    }
}

/// The exit code with which an engine says that there is no such container.
fn exit_code_of_no_container(kind: EngineKind) -> i32 {
    match kind {
        EngineKind::Docker => 1,
        EngineKind::Podman => 125,
    }
}

/// Reads what `container inspect` prints.
///
/// # Errors
/// When it cannot be read.
pub fn read_containers(text: &str) -> Result<Vec<Container>, String> {
    serde_json::from_str(text.trim())
        .map_err(|error| format!("answers what cannot be read: {error}"))
}

impl Engine {
    /// Stops a container: SIGTERM, and SIGKILL when the grace period is over. Both engines accept a container
    /// that has stopped already.
    pub fn stop(&self, name: &str, grace: Duration) -> Cmd {
        self.cmd()
            .args(["stop", "-t", &grace.as_secs().to_string(), name])
    }

    /// Removes a container at once, with its anonymous volumes, even if it runs. Both engines accept a name
    /// that does not exist.
    pub fn remove(&self, name: &str) -> Cmd {
        let cmd = self.cmd().args(["rm", "--force", "--volumes"]);
        match self.kind {
            EngineKind::Docker => cmd,
            // Podman's `rm --force` waits for the stop timeout first.
            EngineKind::Podman => cmd.args(["--time", "0"]),
        }
        .arg(name)
    }

    /// Runs a command in a running container.
    pub fn exec<I: IntoIterator<Item: Into<String>>>(&self, name: &str, argv: I) -> Cmd {
        self.cmd().args(["exec", name]).args(argv)
    }

    /// Opens an interactive command in a running container.
    pub fn exec_interactive(&self, name: &str, tty: bool, argv: &[String]) -> Cmd {
        let cmd = self.cmd().args(["exec", "--interactive"]);
        let cmd = if tty { cmd.arg("--tty") } else { cmd };
        cmd.arg(name).args(argv)
    }

    /// Shows a container's log.
    pub fn logs(&self, name: &str, options: &LogOptions) -> Cmd {
        let mut cmd = self.cmd().arg("logs");
        if options.follow {
            cmd = cmd.arg("--follow");
        }
        if options.timestamps {
            cmd = cmd.arg("--timestamps");
        }
        if let Some(tail) = options.tail {
            cmd = cmd.args(["--tail", &tail.to_string()]);
        }
        for (flag, time) in [("--since", &options.since), ("--until", &options.until)] {
            if let Some(time) = time {
                cmd = cmd.args([flag, time]);
            }
        }
        cmd.arg(name)
    }

    /// Writes a container's file system to standard output, as a tar archive.
    pub fn export(&self, name: &str) -> Cmd {
        self.cmd().args(["export", name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::finished::answer;

    #[test]
    fn the_answer_tells_the_engine() {
        let docker = r#"[{"Id":"abc","Created":"2026-01-01T00:00:00Z","State":{"Status":"running","Running":true,"ExitCode":0,"StartedAt":"2026-01-01T00:00:01Z"},"Name":"/x","Config":{"Image":"r:1","Labels":{"ai.stigmer.xtask.container":"run"}}}]"#;
        let (engine, container) = read_inspect("docker", &answer(0, docker, "")).unwrap();
        let container = container.unwrap();
        assert_eq!(
            (engine.kind, container.owner(), container.image()),
            (EngineKind::Docker, Owner::Us, "r:1")
        );

        let podman = r#"[{"Id":"abc","State":{"Status":"exited","Running":false,"ExitCode":137,"OOMKilled":false},"ImageName":"localhost/r:1","Name":"x","Config":{"Image":"localhost/r:1","Labels":null}}]"#;
        let (engine, container) = read_inspect(
            "docker",
            &answer(0, podman, "Emulate Docker CLI using podman."),
        )
        .unwrap();
        assert_eq!(
            (engine.kind, container.unwrap().owner()),
            (EngineKind::Podman, Owner::Somebody)
        );
    }

    #[test]
    fn no_such_container_is_an_answer_and_no_daemon_is_none() {
        let read = |answer: &Result<_, _>| {
            read_inspect("docker", answer).map(|(engine, found)| (engine.kind, found.is_some()))
        };
        assert_eq!(
            read(&answer(
                1,
                "\n",
                "Error response from daemon: No such container: x\n"
            )),
            Ok((EngineKind::Docker, false))
        );
        assert_eq!(
            read(&answer(1, "[]\n", "Error: No such container: x\n")),
            Ok((EngineKind::Docker, false))
        );
        assert_eq!(
            read(&answer(
                125,
                "",
                "Error: inspecting object: no such container x\n"
            )),
            Ok((EngineKind::Podman, false))
        );
        assert!(read(&answer(1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n")).is_err());
    }

    #[test]
    fn health_commands() {
        let check = |test: &[&str]| {
            Healthcheck {
                test: Some(test.iter().map(|&word| word.to_owned()).collect()),
            }
            .command()
        };
        assert_eq!(check(&["CMD", "a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(
            check(&["CMD-SHELL", "a || b"]).unwrap(),
            ["/bin/sh", "-c", "a || b"]
        );
        assert_eq!(check(&["NONE"]), None);
        assert_eq!(Healthcheck::default().command(), None);
    }

    #[test]
    fn a_foreign_container_says_whose_it_looks_like() {
        let mut container = Container::default();
        assert_eq!(container.looks_like(), "started by hand or by another tool");
        container.config.labels =
            Some([("com.docker.compose.project".to_owned(), "shop".to_owned())].into());
        assert_eq!(
            container.looks_like(),
            "made by Docker Compose, project `shop`"
        );
    }
}
