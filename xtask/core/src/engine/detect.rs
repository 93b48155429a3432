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
    /// Of the kernel on which containers run. Only Docker has it.
    kernel_version: String,
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
    /// Which endpoint does the selected connection of Podman have? None for the default connection.
    PodmanConnection(Option<String>),
    /// Is the remote Podman rootless, and which kernel has it?
    RemotePodman,
}

/// One of Podman's connections.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Connection {
    name: String,
    #[serde(rename = "URI")]
    uri: String,
    default: bool,
}

/// This machine, for a comparison with the machine that an engine describes.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub env: &'a Env,
    /// The version of its kernel; empty if it is unknown.
    pub kernel: &'a str,
}

impl Here<'_> {
    /// The place of a daemon behind a socket of this machine. The socket may lead into a virtual machine, as
    /// colima's, Rancher Desktop's and Docker Desktop's do. Its kernel shows that.
    fn place_behind_socket(self, kernel: &str) -> Location {
        let other_kernel = !kernel.is_empty() && !self.kernel.is_empty() && kernel != self.kernel;
        match self.env.os {
            Os::Linux if !other_kernel => Location::Host,
            Os::Linux | Os::Mac => Location::VirtualMachine,
        }
    }
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
            Self::PodmanConnection(_) => {
                Cmd::new(program).args(["system", "connection", "list", "--format", "json"])
            }
            Self::RemotePodman => Cmd::new(program).args([
                "info",
                "--format",
                "{{.Host.Security.Rootless}} {{.Host.Kernel}}",
            ]),
        }
    }

    /// Adds the answer to the facts.
    pub fn add_answer(&self, facts: &mut EngineFacts, answer: &Finished, here: Here) {
        let text = answer.stdout.trim();
        match self {
            _ if !answer.ok() => {}
            Self::ContextEndpoint => facts.location = endpoint_location(text, &facts.location),
            Self::PodmanConnection(name) => {
                let known: Vec<Connection> = serde_json::from_str(text).unwrap_or_default();
                let is_selected = |one: &&Connection| match name {
                    Some(name) => one.name == *name,
                    None => one.default,
                };
                if let Some(selected) = known.iter().find(is_selected) {
                    facts.location = podman_location(&selected.uri, here);
                }
            }
            Self::RemotePodman => {
                let (rootless, kernel) = text.split_once(' ').unwrap_or((text, ""));
                facts.rootless = rootless == "true";
                if facts.location == Location::Host {
                    facts.location = here.place_behind_socket(kernel);
                }
            }
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
    here: Here,
) -> Result<(EngineFacts, Vec<FollowUpQuestion>), String> {
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
            Some(server) => Ok(docker(program, &client, &server, here)),
            None => Err(no_answer()),
        },
        EngineKind::Podman if finished.ok() => Ok(podman(program, client, server, here)),
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
    here: Here,
) -> (EngineFacts, Vec<FollowUpQuestion>) {
    let env = here.env;
    let remote = server.is_some();
    let (version, os_arch) = match server {
        Some(server) => (server.version, server.os_arch.or(client.os_arch)),
        None => (client.version, client.os_arch),
    };
    let mut questions = Vec::new();
    let location = match env.get("CONTAINER_HOST") {
        _ if !remote => here.place_behind_socket(""),
        Some(endpoint) => podman_location(endpoint, here),
        None => {
            let name = env.get("CONTAINER_CONNECTION").map(str::to_owned);
            let unknown = name.as_deref().unwrap_or("its default connection");
            let unknown = Location::Remote(unknown.to_owned());
            questions.push(FollowUpQuestion::PodmanConnection(name));
            unknown
        }
    };
    if remote {
        questions.push(FollowUpQuestion::RemotePodman);
    }
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
    (facts, questions)
}

/// Where a Podman at an endpoint runs containers. `podman machine` listens for SSH on the loopback.
fn podman_location(endpoint: &str, here: Here) -> Location {
    let socket = here.place_behind_socket("");
    let host = endpoint.strip_prefix("ssh://").map(|rest| {
        let authority = rest.split('/').next().unwrap_or(rest);
        authority.rsplit('@').next().unwrap_or(authority)
    });
    let is_loopback = |host: &str| {
        ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| {
            host.strip_prefix(name)
                .is_some_and(|port| port.is_empty() || port.starts_with(':'))
        })
    };
    match host {
        Some(host) if is_loopback(host) => Location::VirtualMachine,
        Some(_) | None => endpoint_location(endpoint, &socket),
    }
}

fn docker(
    program: &str,
    client: &Client,
    server: &Server,
    here: Here,
) -> (EngineFacts, Vec<FollowUpQuestion>) {
    let env = here.env;
    let desktop = server
        .platform
        .as_ref()
        .is_some_and(|platform| platform.name.contains("Desktop"));
    let local = if desktop {
        Location::VirtualMachine
    } else {
        here.place_behind_socket(&server.kernel_version)
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
    let follow_up = host.is_none() && context != "default";
    let follow_up = follow_up.then_some(FollowUpQuestion::ContextEndpoint);
    (facts, follow_up.into_iter().collect())
}

/// Where the engine at an endpoint runs containers. An endpoint that is not a socket of this machine is
/// remote. For a socket, `otherwise` tells whether containers run in a virtual machine.
fn endpoint_location(endpoint: &str, otherwise: &Location) -> Location {
    let is_socket = endpoint.is_empty()
        || endpoint.starts_with("unix://")
        || endpoint.starts_with("npipe://")
        || endpoint.starts_with('/');
    if is_socket {
        otherwise.clone()
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

    fn here(env: &Env) -> Here<'_> {
        let kernel = "6.1.0-host";
        Here { env, kernel }
    }

    fn read(
        program: &str,
        answer: &Result<Finished, NoAnswer>,
        env: &Env,
    ) -> Result<String, String> {
        read_version(program, answer, here(env)).map(|(facts, _)| facts.describe())
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

        let env = Env::fake(&[]);
        let other = DOCKER.replace("\"default\"", "\"box\"");
        for os in [Os::Linux, Os::Mac] {
            let mut env = env.clone();
            env.os = os;
            let (mut facts, follow_up) =
                read_version("docker", &answer(0, &other, ""), here(&env)).unwrap();
            assert_eq!(follow_up, [FollowUpQuestion::ContextEndpoint]);
            let endpoint = |text: &str| answer(0, text, "").unwrap();
            let local = facts.location.clone();
            follow_up[0].add_answer(&mut facts, &endpoint("unix:///x.sock\n"), here(&env));
            assert_eq!(facts.location, local);
            follow_up[0].add_answer(&mut facts, &endpoint("tcp://box:2376\n"), here(&env));
            let remote = Location::Remote("tcp://box:2376".to_owned());
            assert_eq!(facts.location, remote, "{os:?}");
        }
    }

    #[test]
    fn a_virtual_machine_behind_a_socket_has_another_kernel() {
        let with_kernel = |kernel: &str| {
            let words = format!("\"Version\":\"28.5.2\",\"KernelVersion\":\"{kernel}\",\"Os\"");
            DOCKER.replacen("\"Version\":\"28.5.2\",\"Os\"", &words, 1)
        };
        let env = Env::fake(&[("DOCKER_HOST", "unix:///home/me/.colima/default/docker.sock")]);
        for env in [&Env::fake(&[]), &env] {
            let place =
                |kernel: &str| read("docker", &answer(0, &with_kernel(kernel), ""), env).unwrap();
            assert_eq!(place("6.1.0-host"), "Docker 28.5.2");
            assert_eq!(place("6.6.30-virt"), "Docker 28.5.2, in a virtual machine");
            assert_eq!(place(""), "Docker 28.5.2");
        }
    }

    #[test]
    fn the_place_of_a_remote_podman_is_that_of_its_connection() {
        let remote = PODMAN.replace(
            "}}",
            "},\"Server\":{\"APIVersion\":\"4.3.1\",\"Version\":\"4.3.1\",\"OsArch\":\"linux/amd64\"}}",
        );
        let connections = r#"[{"Name":"machine","URI":"ssh://core@127.0.0.1:50000/run/podman.sock","Default":true},{"Name":"box","URI":"ssh://me@box/run/podman.sock","Default":false},{"Name":"here","URI":"unix:///run/podman/podman.sock","Default":false}]"#;
        let place = |os: Os, vars: &[(&str, &str)], info: &str| {
            let mut env = Env::fake(vars);
            env.os = os;
            let (mut facts, questions) =
                read_version("podman", &answer(0, &remote, ""), here(&env)).unwrap();
            for question in questions {
                let text = match question {
                    FollowUpQuestion::PodmanConnection(_) => connections,
                    FollowUpQuestion::RemotePodman | FollowUpQuestion::ContextEndpoint => info,
                };
                question.add_answer(&mut facts, &answer(0, text, "").unwrap(), here(&env));
            }
            facts.describe()
        };
        let machine = "Podman 4.3.1, rootless, in a virtual machine";
        let elsewhere = "Podman 4.3.1, rootless, at ssh://me@box/run/podman.sock";
        let named = |name| [("CONTAINER_CONNECTION", name)];
        for os in [Os::Linux, Os::Mac] {
            assert_eq!(place(os, &[], "true 6.6"), machine);
            assert_eq!(place(os, &named("box"), "true 6.6"), elsewhere);
            let host = [("CONTAINER_HOST", "ssh://me@box/run/podman.sock")];
            assert_eq!(place(os, &host, "true 6.6"), elsewhere);
            let unknown = "Podman 4.3.1, at gone";
            assert_eq!(place(os, &named("gone"), "false 6.6"), unknown);
            assert_eq!(place(os, &named("here"), "true 6.6"), machine);
        }
        let here = place(Os::Linux, &named("here"), "false 6.1.0-host");
        assert_eq!(here, "Podman 4.3.1");
        let mac = place(Os::Mac, &named("here"), "false 6.1.0-host");
        assert_eq!(mac, "Podman 4.3.1, in a virtual machine");
    }
}
