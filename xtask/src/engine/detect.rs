//! Which engine is behind a program, by what it answers and not by its name: `docker` may be
//! a link to podman, a script that runs it, or a client on Podman's socket.

use serde::Deserialize;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
        image::Platform,
        ui::plain,
    },
    engine::{Engine, EngineFacts, Place},
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// The one question that every engine answers, in 20 to 50 ms. Fields must not be picked in the
/// template: engines fail on the other's (`can't evaluate field Arch in type *define.Version`).
pub fn version_cmd(program: &str) -> Cmd {
    Cmd::new(program).args(["version", "--format", "{{json .}}"])
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    client: Option<Client>,
    server: Option<Server>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Client {
    version: String,
    /// Podman's only.
    os_arch: Option<String>,
    /// Docker's only: the context's name.
    context: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Server {
    version: String,
    os: String,
    arch: String,
    /// Podman's only.
    os_arch: Option<String>,
    platform: Option<Named>,
    components: Vec<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    name: String,
}

/// What a reply leaves open, to be asked with [`EndpointAsk::cmd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAsk {
    /// A docker context that is not the default one: where does it lead?
    DockerContext,
    /// A remote Podman: is it rootless?
    PodmanRemote,
}

impl EndpointAsk {
    pub fn cmd(&self, program: &str) -> Cmd {
        match self {
            Self::DockerContext => Cmd::new(program).args([
                "context",
                "inspect",
                "--format",
                "{{.Endpoints.docker.Host}}",
            ]),
            Self::PodmanRemote => {
                Cmd::new(program).args(["info", "--format", "{{.Host.Security.Rootless}}"])
            }
        }
    }

    /// Adds the answer to the facts.
    pub fn apply(&self, facts: &mut EngineFacts, answer: &Finished) {
        let text = answer.stdout.trim();
        match self {
            Self::DockerContext if answer.ok() => facts.place = place_of(text, &facts.place),
            Self::DockerContext => {}
            Self::PodmanRemote => facts.rootless = text == "true",
        }
    }
}

/// Reads the answer to [`version_cmd`].
///
/// # Errors
/// Why the candidate is passed over, as the rest of a sentence that begins with its name.
pub fn read_version(
    program: &str,
    answer: &Result<Finished, NoAnswer>,
    env: &Env,
) -> Result<(EngineFacts, Option<EndpointAsk>), String> {
    let finished = answered(answer)?;
    let reply: Option<Reply> = serde_json::from_str(finished.stdout.trim()).ok();
    let Some(Reply {
        client: Some(client),
        server,
    }) = reply
    else {
        return Err(format!("does not work: {}", finished.complaint()));
    };
    if let Some(os_arch) = client.os_arch.clone() {
        if !finished.ok() {
            return Err(format!("does not answer: {}", finished.complaint()));
        }
        return Ok(podman(program, &client, &os_arch, server, env));
    }
    match server {
        Some(server)
            if server
                .components
                .iter()
                .any(|part| part.name.contains("Podman")) =>
        {
            Err("is Docker's client on Podman's socket: Podman itself is used instead".to_owned())
        }
        Some(server) => Ok(docker(program, &client, &server, env)),
        None => Err(format!("does not answer: {}", finished.complaint())),
    }
}

/// The answer, or why there is none, as the rest of a sentence that begins with the program's name.
pub(super) fn answered(answer: &Result<Finished, NoAnswer>) -> Result<&Finished, String> {
    answer.as_ref().map_err(ToString::to_string)
}

fn podman(
    program: &str,
    client: &Client,
    os_arch: &str,
    server: Option<Server>,
    env: &Env,
) -> (EngineFacts, Option<EndpointAsk>) {
    let remote = server.is_some();
    let (version, os_arch) = match server {
        Some(server) => (
            server.version,
            server.os_arch.unwrap_or_else(|| os_arch.to_owned()),
        ),
        None => (client.version.clone(), os_arch.to_owned()),
    };
    let endpoint = env.get("CONTAINER_HOST").unwrap_or("");
    let place = match env.os {
        Os::Linux if !remote => Place::Here,
        Os::Linux => place_of(
            endpoint,
            &Place::Remote("its default connection".to_owned()),
        ),
        Os::Mac => Place::Vm,
    };
    let facts = EngineFacts {
        engine: Engine {
            kind: EngineKind::Podman,
            program: program.to_owned(),
        },
        version: plain(&version),
        platform: os_arch
            .parse()
            .unwrap_or_else(|_| Platform::linux(&env.arch)),
        // A local Podman is its user's.
        rootless: env.user.euid != 0,
        place,
    };
    (facts, remote.then_some(EndpointAsk::PodmanRemote))
}

fn docker(
    program: &str,
    client: &Client,
    server: &Server,
    env: &Env,
) -> (EngineFacts, Option<EndpointAsk>) {
    let desktop = server
        .platform
        .as_ref()
        .is_some_and(|name| name.name.contains("Desktop"));
    let here = if desktop || env.os != Os::Linux {
        Place::Vm
    } else {
        Place::Here
    };
    let host = env.get("DOCKER_HOST");
    let place = host.map_or(here.clone(), |host| place_of(host, &here));
    let context = client.context.as_deref().unwrap_or("default");
    let facts = EngineFacts {
        engine: Engine {
            kind: EngineKind::Docker,
            program: program.to_owned(),
        },
        version: plain(&server.version),
        platform: format!("{}/{}", server.os, server.arch)
            .parse()
            .unwrap_or_else(|_| Platform::linux(&env.arch)),
        // The rootless daemon lists the program that makes it so.
        rootless: server
            .components
            .iter()
            .any(|part| part.name == "rootlesskit"),
        place,
    };
    let open = host.is_none() && context != "default" && facts.place == Place::Here;
    (facts, open.then_some(EndpointAsk::DockerContext))
}

/// An endpoint leads to another machine unless it is a socket of this one.
fn place_of(endpoint: &str, otherwise: &Place) -> Place {
    let local = endpoint.is_empty()
        || endpoint.starts_with("unix://")
        || endpoint.starts_with("npipe://")
        || endpoint.starts_with('/');
    if local {
        match otherwise {
            Place::Remote(_) => Place::Here,
            Place::Here | Place::Vm => otherwise.clone(),
        }
    } else {
        Place::Remote(endpoint.to_owned())
    }
}

/// How to get an engine on this OS, for someone who has none.
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
    fn docker_answers() {
        assert_eq!(
            read("docker", &answer(0, DOCKER, ""), &Env::fake(&[])).unwrap(),
            "Docker 28.5.2"
        );
    }

    #[test]
    fn podman_posing_as_docker_is_podman() {
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
    fn a_client_on_podmans_socket_is_passed_over() {
        let reply = DOCKER.replace("\"Engine\"", "\"Podman Engine\"");
        let why = read("docker", &answer(0, &reply, ""), &Env::fake(&[])).unwrap_err();
        assert_eq!(
            why,
            "is Docker's client on Podman's socket: Podman itself is used instead"
        );
    }

    #[test]
    fn a_client_without_a_daemon_says_so() {
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
    fn hung_and_missing_programs_say_so() {
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
    fn rootless_docker_and_docker_desktop_are_seen() {
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
    fn remote_endpoints_are_seen() {
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
        let (mut facts, ask) =
            read_version("docker", &answer(0, &other, ""), &Env::fake(&[])).unwrap();
        assert_eq!(ask, Some(EndpointAsk::DockerContext));
        EndpointAsk::DockerContext.apply(&mut facts, &answer(0, "tcp://box:2376\n", "").unwrap());
        assert_eq!(facts.place, Place::Remote("tcp://box:2376".to_owned()));
    }
}
