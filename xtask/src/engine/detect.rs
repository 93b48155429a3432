//! Detects the engine behind a program. The program's answer decides, not its name: `docker` can be a link
//! to podman, a script that runs podman, or Docker's client connected to Podman's socket.

use serde::Deserialize;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
        image::Platform,
        ui::single_line,
    },
    engine::{Engine, EngineFacts, Location},
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// Asks for the version. Every engine answers this command within 20 to 50 ms. The template selects no
/// fields: an engine fails if it does not know one of them (`can't evaluate field Arch in type
/// *define.Version`).
pub fn version_cmd(program: &str) -> Cmd {
    Cmd::new(program).args(["version", "--format", "{{json .}}"])
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VersionReply {
    client: Option<Client>,
    server: Option<Server>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Client {
    version: String,
    /// Only Podman has it.
    os_arch: Option<String>,
    /// The context's name. Only Docker has it.
    context: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Server {
    version: String,
    os: String,
    arch: String,
    /// Only Podman has it.
    os_arch: Option<String>,
    platform: Option<Component>,
    components: Vec<Component>,
}

impl Server {
    fn has_component(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.components.iter().any(|part| matches(&part.name))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Component {
    name: String,
}

/// A question that the version reply does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowUpQuestion {
    /// Which endpoint does the selected docker context have?
    ContextEndpoint,
    /// Is the remote Podman rootless?
    RemoteRootless,
}

impl FollowUpQuestion {
    pub fn cmd(&self, program: &str) -> Cmd {
        match self {
            Self::ContextEndpoint => Cmd::new(program).args([
                "context",
                "inspect",
                "--format",
                "{{.Endpoints.docker.Host}}",
            ]),
            Self::RemoteRootless => {
                Cmd::new(program).args(["info", "--format", "{{.Host.Security.Rootless}}"])
            }
        }
    }

    /// Adds the answer to the facts.
    pub fn add_answer(&self, facts: &mut EngineFacts, answer: &Finished) {
        let text = answer.stdout.trim();
        match self {
            Self::ContextEndpoint if answer.ok() => {
                facts.location = endpoint_location(text, &facts.location);
            }
            Self::ContextEndpoint => {}
            Self::RemoteRootless => facts.rootless = text == "true",
        }
    }
}

/// Reads the answer to [`version_cmd`].
///
/// # Errors
/// The reason why the engine cannot be used, as a predicate whose subject is the program.
pub fn read_version(
    program: &str,
    answer: &Result<Finished, NoAnswer>,
    env: &Env,
) -> Result<(EngineFacts, Option<FollowUpQuestion>), String> {
    let finished = require_answer(answer)?;
    let reply: Option<VersionReply> = serde_json::from_str(finished.stdout.trim()).ok();
    let Some(VersionReply {
        client: Some(client),
        server,
    }) = reply
    else {
        return Err(format!("does not work: {}", finished.first_error_line()));
    };
    let no_answer = || format!("does not answer: {}", finished.first_error_line());
    let kind = EngineKind::ALL
        .iter()
        .find(|kind| is_version_reply_of(**kind, &client))
        .ok_or_else(|| "answers in an unknown format".to_owned())?;
    match kind {
        EngineKind::Docker => match server {
            Some(server) if server.has_component(|name| name.contains("Podman")) => Err(
                "is Docker's client connected to Podman's socket; xtask uses Podman directly"
                    .to_owned(),
            ),
            Some(server) => Ok(docker(program, &client, &server, env)),
            None => Err(no_answer()),
        },
        EngineKind::Podman if finished.ok() => Ok(podman(program, client, server, env)),
        EngineKind::Podman => Err(no_answer()),
    }
}

/// Whether the reply to [`version_cmd`] has the format of an engine's client.
fn is_version_reply_of(kind: EngineKind, client: &Client) -> bool {
    match kind {
        EngineKind::Docker => client.os_arch.is_none(),
        EngineKind::Podman => client.os_arch.is_some(),
    }
}

/// The answer.
///
/// # Errors
/// The reason why there is none, as a predicate whose subject is the program.
pub(super) fn require_answer(answer: &Result<Finished, NoAnswer>) -> Result<&Finished, String> {
    answer.as_ref().map_err(ToString::to_string)
}

fn podman(
    program: &str,
    client: Client,
    server: Option<Server>,
    env: &Env,
) -> (EngineFacts, Option<FollowUpQuestion>) {
    let remote = server.is_some();
    let (version, os_arch) = match server {
        Some(server) => (server.version, server.os_arch.or(client.os_arch)),
        None => (client.version, client.os_arch),
    };
    let endpoint = env.get("CONTAINER_HOST").unwrap_or("");
    let location = match env.os {
        Os::Linux if !remote => Location::Host,
        Os::Linux => endpoint_location(
            endpoint,
            &Location::Remote("its default connection".to_owned()),
        ),
        Os::Mac => Location::VirtualMachine,
    };
    let facts = EngineFacts {
        engine: Engine {
            kind: EngineKind::Podman,
            program: program.to_owned(),
        },
        version: single_line(&version),
        platform: os_arch
            .and_then(|platform| platform.parse().ok())
            .unwrap_or_else(|| Platform::linux(&env.arch)),
        // A local Podman runs as the user who calls it.
        rootless: env.user.euid != 0,
        location,
    };
    (facts, remote.then_some(FollowUpQuestion::RemoteRootless))
}

fn docker(
    program: &str,
    client: &Client,
    server: &Server,
    env: &Env,
) -> (EngineFacts, Option<FollowUpQuestion>) {
    let desktop = server
        .platform
        .as_ref()
        .is_some_and(|platform| platform.name.contains("Desktop"));
    let local = if desktop || env.os != Os::Linux {
        Location::VirtualMachine
    } else {
        Location::Host
    };
    let host = env.get("DOCKER_HOST");
    let location = host.map_or(local.clone(), |host| endpoint_location(host, &local));
    let context = client.context.as_deref().unwrap_or("default");
    let facts = EngineFacts {
        engine: Engine {
            kind: EngineKind::Docker,
            program: program.to_owned(),
        },
        version: single_line(&server.version),
        platform: format!("{}/{}", server.os, server.arch)
            .parse()
            .unwrap_or_else(|_| Platform::linux(&env.arch)),
        // A rootless daemon lists the program that starts it.
        rootless: server.has_component(|name| name == "rootlesskit"),
        location,
    };
    let other_context = host.is_none() && context != "default" && facts.location == Location::Host;
    let follow_up = other_context.then_some(FollowUpQuestion::ContextEndpoint);
    (facts, follow_up)
}

/// Where the engine at an endpoint runs containers. An endpoint that is not a socket of this machine is
/// remote. For a socket, `otherwise` tells whether containers run in a virtual machine.
fn endpoint_location(endpoint: &str, otherwise: &Location) -> Location {
    let is_socket = endpoint.is_empty()
        || endpoint.starts_with("unix://")
        || endpoint.starts_with("npipe://")
        || endpoint.starts_with('/');
    if is_socket {
        match otherwise {
            Location::Remote(_) => Location::Host,
            Location::Host | Location::VirtualMachine => otherwise.clone(),
        }
    } else {
        Location::Remote(endpoint.to_owned())
    }
}

/// The hint for a machine without an engine.
pub fn how_to_install(os: Os) -> &'static str {
    match os {
        Os::Linux => {
            "install Docker (https://docs.docker.com/engine/install/) or Podman (`apt-get install podman`, `dnf install podman`); if one is installed, start it: `sudo systemctl start docker`"
        }
        Os::Mac => {
            "install Docker Desktop, or Podman: `brew install podman && podman machine init && podman machine start`; if one is installed, start it: `open -a Docker` or `podman machine start`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::finished::answer;

    fn read(
        program: &str,
        answer: &Result<Finished, NoAnswer>,
        env: &Env,
    ) -> Result<String, String> {
        read_version(program, answer, env).map(|(facts, _)| facts.describe())
    }

    const DOCKER: &str = r#"{"Client":{"Version":"28.2.2","ApiVersion":"1.50","Os":"linux","Arch":"amd64","Context":"default"},"Server":{"Platform":{"Name":""},"Version":"28.5.2","Os":"linux","Arch":"amd64","ApiVersion":"1.51","Components":[{"Name":"Engine","Version":"28.5.2"}]}}"#;
    const PODMAN: &str = r#"{"Client":{"APIVersion":"4.3.1","Version":"4.3.1","GoVersion":"go1.19.8","GitCommit":"","BuiltTime":"Thu Jan  1 00:00:00 1970","Built":0,"OsArch":"linux/amd64","Os":"linux"}}"#;

    #[test]
    fn docker_is_detected() {
        assert_eq!(
            read("docker", &answer(0, DOCKER, ""), &Env::fake(&[])).unwrap(),
            "Docker 28.5.2"
        );
    }

    #[test]
    fn podman_behind_the_name_docker_is_detected() {
        let shim = answer(
            0,
            PODMAN,
            "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.",
        );
        assert_eq!(
            read("docker", &shim, &Env::fake(&[])).unwrap(),
            "Podman 4.3.1, rootless, as `docker`"
        );
    }

    #[test]
    fn dockers_client_on_podmans_socket_is_rejected() {
        let reply = DOCKER.replace("\"Engine\"", "\"Podman Engine\"");
        let why = read("docker", &answer(0, &reply, ""), &Env::fake(&[])).unwrap_err();
        assert_eq!(
            why,
            "is Docker's client connected to Podman's socket; xtask uses Podman directly"
        );
    }

    #[test]
    fn a_client_without_a_daemon_is_reported() {
        let down = answer(
            1,
            r#"{"Client":{"Version":"28.2.2","Context":"default"},"Server":null}"#,
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
        );
        assert_eq!(
            read("docker", &down, &Env::fake(&[])).unwrap_err(),
            "does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
        );
        let context = answer(
            1,
            "",
            "Failed to initialize: unable to resolve docker endpoint: context \"x\": context not found\n",
        );
        assert!(
            read("docker", &context, &Env::fake(&[]))
                .unwrap_err()
                .contains("context not found")
        );
    }

    #[test]
    fn a_timeout_is_reported() {
        assert_eq!(
            read(
                "docker",
                &Err(NoAnswer::TimedOut(std::time::Duration::from_secs(3))),
                &Env::fake(&[])
            )
            .unwrap_err(),
            "did not answer within 3s"
        );
    }

    #[test]
    fn rootless_docker_and_docker_desktop_are_detected() {
        let rootless = DOCKER.replace(
            "[{\"Name\":\"Engine\"",
            "[{\"Name\":\"rootlesskit\"},{\"Name\":\"Engine\"",
        );
        assert_eq!(
            read("docker", &answer(0, &rootless, ""), &Env::fake(&[])).unwrap(),
            "Docker 28.5.2, rootless"
        );
        let desktop = DOCKER.replace(
            "{\"Name\":\"\"}",
            "{\"Name\":\"Docker Desktop 4.40.0 (187762)\"}",
        );
        assert_eq!(
            read("docker", &answer(0, &desktop, ""), &Env::fake(&[])).unwrap(),
            "Docker 28.5.2, in a virtual machine"
        );
    }

    #[test]
    fn remote_endpoints_are_detected() {
        let env = Env::fake(&[("DOCKER_HOST", "ssh://me@box")]);
        assert_eq!(
            read("docker", &answer(0, DOCKER, ""), &env).unwrap(),
            "Docker 28.5.2, at ssh://me@box"
        );
        let env = Env::fake(&[("DOCKER_HOST", "unix:///run/user/1001/docker.sock")]);
        assert_eq!(
            read("docker", &answer(0, DOCKER, ""), &env).unwrap(),
            "Docker 28.5.2"
        );

        let other = DOCKER.replace("\"default\"", "\"box\"");
        let (mut facts, follow_up) =
            read_version("docker", &answer(0, &other, ""), &Env::fake(&[])).unwrap();
        let endpoint = answer(0, "tcp://box:2376\n", "").unwrap();
        assert_eq!(follow_up, Some(FollowUpQuestion::ContextEndpoint));
        follow_up.unwrap().add_answer(&mut facts, &endpoint);
        assert_eq!(
            facts.location,
            Location::Remote("tcp://box:2376".to_owned())
        );
    }
}
