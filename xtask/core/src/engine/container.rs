//! What an engine reports about a container, and the commands that act on containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    base::engine_kind::EngineKind,
    engine::{Engine, detect::require_answer, label},
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// The name of the runner that the stigmer CLI starts, with `docker run` and without labels.
pub const STIGMER_CLI_CONTAINER: &str = "stigmer-agent-runner";

/// A variable that the CLI sets, and that no runner reads.
const STIGMER_CLI_VARIABLE: &str = "WORKSPACE_ROOT=";

/// A container, as both engines describe it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    pub id: String,
    /// Docker's begins with a slash.
    name: String,
    pub created: String,
    pub state: State,
    pub config: Config,
    host_config: HostConfig,
    /// The image's id. Docker's has the prefix `sha256:`.
    image: String,
    /// The image's reference. Only Podman has this field; Docker uses `Config.Image`.
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
struct HostConfig {
    log_config: LogConfig,
    /// The host's ports of each port of the container, such as `80/tcp`.
    port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
struct PortBinding {
    host_port: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
struct LogConfig {
    r#type: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    pub image: String,
    /// The arguments for the entry point.
    pub cmd: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    env: Option<Vec<String>>,
    pub healthcheck: Option<Healthcheck>,
}

impl State {
    pub fn is_paused(&self) -> bool {
        self.status == "paused"
    }

    /// Whether its processes exist. Docker calls a paused container running, Podman does not.
    pub fn is_up(&self) -> bool {
        self.running || self.is_paused()
    }
}

/// The HEALTHCHECK of an image or container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    pub test: Option<Vec<String>>,
}

impl Healthcheck {
    /// The check's command; none if there is no health check.
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

/// Texts of the engines' errors after which a command can never run in a container: the container
/// has ended, or it does not have the program.
pub const EXEC_FAILS_FOR_GOOD: &[&str] = &[
    // Docker
    "is not running",
    "No such container",
    // Podman
    "container state improper",
    "no such container",
    "no container with name or ID",
    // both
    "executable file not found",
];

/// Who started a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Xtask,
    Other,
}

impl Container {
    pub fn owner(&self) -> Owner {
        match self.label(label::CONTAINER) {
            Some(_) => Owner::Xtask,
            None => Owner::Other,
        }
    }

    pub fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether the engine keeps a log of it. With every other log driver, both engines can show the log.
    pub fn has_log(&self) -> bool {
        self.host_config.log_config.r#type != "none"
    }

    /// The ports of the host that it publishes while it runs.
    pub fn published_ports(&self) -> BTreeSet<u16> {
        let bindings = self.host_config.port_bindings.iter().flatten();
        let bindings = bindings.flat_map(|(_, bindings)| bindings.iter().flatten());
        bindings
            .filter_map(|binding| binding.host_port.parse().ok())
            .collect()
    }

    /// The reference of the container's image.
    pub fn image(&self) -> &str {
        self.image_name.as_deref().unwrap_or(&self.config.image)
    }

    /// The id of its image, without the prefix `sha256:`.
    pub fn image_id(&self) -> &str {
        self.image.trim_start_matches("sha256:")
    }

    /// The id's first 12 characters, as engines print it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Whether the stigmer CLI started it, as `stigmer server` does.
    pub fn is_of_stigmer_cli(&self) -> bool {
        let mut env = self.config.env.iter().flatten();
        self.owner() == Owner::Other
            && self.name() == STIGMER_CLI_CONTAINER
            && env.any(|variable| variable.starts_with(STIGMER_CLI_VARIABLE))
    }

    /// The tool that probably created the container, judged by its labels and its name.
    pub fn likely_creator(&self) -> String {
        if self.is_of_stigmer_cli() {
            return "created by the stigmer CLI".to_owned();
        }
        let creator = [
            ("com.docker.compose.project", "Docker Compose, project"),
            ("io.podman.compose.project", "Podman Compose, project"),
            ("com.docker.swarm.service.name", "Docker Swarm, service"),
            ("io.kubernetes.pod.name", "Kubernetes, pod"),
            ("PODMAN_SYSTEMD_UNIT", "systemd, unit"),
            ("dev.containers.id", "a dev container,"),
        ]
        .iter()
        .find_map(|(key, tool)| {
            self.label(key)
                .map(|value| format!("created by {tool} `{value}`"))
        });
        creator.unwrap_or_else(|| "created manually or by an unknown tool".to_owned())
    }
}

/// The options of `logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Prints new lines until interrupted.
    pub follow: bool,
    /// The number of lines to print from the log's end; none for the whole log.
    pub tail: Option<u64>,
    /// A time or a duration, in a format that both engines accept.
    pub since: Option<String>,
    pub until: Option<String>,
    pub timestamps: bool,
}

impl LogOptions {
    /// Prints the last lines.
    pub fn last(lines: u64) -> Self {
        Self {
            tail: Some(lines),
            ..Self::default()
        }
    }
}

/// Inspects containers by name or id.
pub fn inspect_all_cmd(program: &str, names: &[&str]) -> Cmd {
    let cmd = Cmd::new(program).args(["container", "inspect"]);
    cmd.args(names.iter().copied())
}

/// Inspects a container by name. The answer also identifies the engine.
pub fn inspect_cmd(program: &str, name: &str) -> Cmd {
    inspect_all_cmd(program, &[name])
}

/// Reads the answer to [`inspect_cmd`]: the engine, and the container if it exists.
///
/// # Errors
/// The reason why the engine did not answer, as a predicate whose subject is the program.
pub fn read_inspect(
    program: &str,
    answer: &Result<Finished, NoAnswer>,
) -> Result<(Engine, Option<Container>), String> {
    let finished = require_answer(answer)?;
    let missing = finished.stderr.to_lowercase().contains("no such container");
    let container = if finished.ok() {
        read_containers(&finished.stdout)?.into_iter().next()
    } else if missing {
        None
    } else {
        return Err(format!("does not answer: {}", finished.first_error_line()));
    };
    let is_answer_of = |kind: EngineKind| match &container {
        Some(container) => is_description_of(kind, container),
        None => missing && missing_container_code(kind) == finished.code,
    };
    // An empty list does not identify the engine, so the program's name has to.
    let is_usual_program = |kind: EngineKind| container.is_none() && kind.program() == program;
    let find = |matches: &dyn Fn(EngineKind) -> bool| {
        EngineKind::ALL.iter().copied().find(|kind| matches(*kind))
    };
    let kind = find(&is_answer_of)
        .or_else(|| find(&is_usual_program))
        .ok_or("answers in an unknown format")?;
    let engine = Engine {
        kind,
        program: program.to_owned(),
    };
    Ok((engine, container))
}

/// Whether an engine describes containers in this format.
fn is_description_of(kind: EngineKind, container: &Container) -> bool {
    match kind {
        EngineKind::Docker => container.image_name.is_none(),
        EngineKind::Podman => container.image_name.is_some(),
    }
}

/// An engine's exit code if there is no container of the name.
fn missing_container_code(kind: EngineKind) -> i32 {
    match kind {
        EngineKind::Docker => 1,
        EngineKind::Podman => 125,
    }
}

/// Reads the output of `container inspect`.
///
/// # Errors
/// When the output is not a list of containers.
pub fn read_containers(text: &str) -> Result<Vec<Container>, String> {
    serde_json::from_str(text.trim())
        .map_err(|error| format!("answers in an unknown format: {error}"))
}

impl Engine {
    /// Whether a new container can share the network of this one. Podman starts one that is stopped.
    pub fn can_share_network_of(&self, container: &Container) -> bool {
        match self.kind {
            EngineKind::Docker => ["running", "paused"].contains(&container.state.status.as_str()),
            EngineKind::Podman => true,
        }
    }

    /// Lists the ids of all containers.
    pub fn list_containers(&self) -> Cmd {
        self.cmd().args(["ps", "--all", "--quiet", "--no-trunc"])
    }

    /// Stops a container with SIGTERM, and with SIGKILL after the grace period. Both engines accept a
    /// container that is already stopped.
    pub fn stop(&self, name: &str, grace: Duration) -> Cmd {
        self.cmd()
            .args(["stop", "-t", &grace.as_secs().to_string(), name])
    }

    /// Lets the processes of a paused container run again.
    pub fn unpause(&self, name: &str) -> Cmd {
        self.cmd().args(["unpause", name])
    }

    /// Removes a container, without stopping it first. Its anonymous volumes stay, because they can hold files
    /// of the user. Both engines accept a name that does not exist.
    pub fn remove(&self, name: &str) -> Cmd {
        self.remove_forced(name, &[])
    }

    /// Removes a container that xtask started for a test, and its anonymous volumes.
    pub fn remove_with_volumes(&self, name: &str) -> Cmd {
        self.remove_forced(name, &["--volumes"])
    }

    fn remove_forced(&self, name: &str, options: &[&str]) -> Cmd {
        let cmd = self
            .cmd()
            .args(["rm", "--force"])
            .args(options.iter().copied());
        match self.kind {
            EngineKind::Docker => cmd,
            // Podman's `rm --force` first waits for the stop timeout.
            EngineKind::Podman => cmd.args(["--time", "0"]),
        }
        .arg(name)
    }

    /// Runs a command in a running container.
    pub fn exec<I: IntoIterator<Item: Into<String>>>(&self, name: &str, argv: I) -> Cmd {
        self.cmd().args(["exec", name]).args(argv)
    }

    /// As [`Self::exec`], as root.
    pub fn exec_as_root<I: IntoIterator<Item: Into<String>>>(&self, name: &str, argv: I) -> Cmd {
        self.cmd().args(["exec", "--user", "0", name]).args(argv)
    }

    /// Runs an interactive command in a running container.
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
    fn an_answer_identifies_the_engine() {
        let docker = r#"[{"Id":"abc","Created":"2026-01-01T00:00:00Z","State":{"Status":"running","Running":true,"ExitCode":0,"StartedAt":"2026-01-01T00:00:01Z"},"Name":"/x","Config":{"Image":"r:1","Labels":{"ai.stigmer.xtask.container":"run"}}}]"#;
        let (engine, container) = read_inspect("docker", &answer(0, docker, "")).unwrap();
        let container = container.unwrap();
        assert_eq!(
            (engine.kind, container.owner(), container.image()),
            (EngineKind::Docker, Owner::Xtask, "r:1")
        );

        let podman = r#"[{"Id":"abc","State":{"Status":"exited","Running":false,"ExitCode":137,"OOMKilled":false},"ImageName":"localhost/r:1","Name":"x","Config":{"Image":"localhost/r:1","Labels":null}}]"#;
        let (engine, container) = read_inspect(
            "docker",
            &answer(0, podman, "Emulate Docker CLI using podman."),
        )
        .unwrap();
        assert_eq!(
            (engine.kind, container.unwrap().owner()),
            (EngineKind::Podman, Owner::Other)
        );
    }

    #[test]
    fn a_missing_container_is_an_answer_and_a_missing_daemon_is_an_error() {
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
    fn the_stigmer_clis_container_is_recognised() {
        let is_clis = |json: &str| {
            let (_, found) = read_inspect("docker", &answer(0, json, "")).unwrap();
            let found = found.unwrap();
            assert_eq!(
                found.is_of_stigmer_cli(),
                found.likely_creator().contains("stigmer CLI")
            );
            found.is_of_stigmer_cli()
        };
        let docker = r#"[{"Id":"1","Name":"/stigmer-agent-runner","Config":{"Image":"x","Env":["A=1","WORKSPACE_ROOT=/workspace"]}}]"#;
        let podman = docker.replace("/stigmer", "stigmer");
        assert!(is_clis(docker) && is_clis(&podman));
        assert!(!is_clis(&docker.replace("-runner\"", "-runner-2\"")));
        let by_hand = docker.replace("WORKSPACE_ROOT", "LOG_LEVEL");
        assert!(!is_clis(&by_hand), "Homebrew's script, or a person");
        let ours = r#""Config":{"Labels":{"ai.stigmer.xtask.container":"run"},"#;
        assert!(!is_clis(&docker.replace(r#""Config":{"#, ours)));
    }

    #[test]
    fn labels_name_the_likely_creator() {
        let mut container = Container::default();
        assert_eq!(
            container.likely_creator(),
            "created manually or by an unknown tool"
        );
        container.config.labels =
            Some([("com.docker.compose.project".to_owned(), "shop".to_owned())].into());
        assert_eq!(
            container.likely_creator(),
            "created by Docker Compose, project `shop`"
        );
    }
}
