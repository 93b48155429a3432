//! The command that starts a container.

use std::time::Duration;

use crate::{
    base::{engine_kind::EngineKind, env::User},
    engine::{EngineFacts, Place, capabilities::Capability},
    plan::{Cmd, EnvValue},
    settings::{Hardening, Limits, Network, Relabel, RunUser},
};

/// The image's own user: `stigmer`.
pub const IMAGE_USER: u32 = 1000;

/// How a container is started, independent of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub name: String,
    pub image: String,
    pub labels: Vec<(String, String)>,
    pub mode: Mode,
    pub network: Network,
    pub user: RunUser,
    pub person: User,
    /// `HOST:CONTAINER[:OPTIONS]`, with an absolute path on the host.
    pub volumes: Vec<String>,
    /// On the command line, with their values.
    pub env: Vec<(String, String)>,
    /// By name. The value is in our own environment, unless it is given here.
    pub env_by_name: Vec<(String, Option<EnvValue>)>,
    pub env_file: Option<String>,
    pub limits: Limits,
    pub hardening: Hardening,
    pub stop_grace: Duration,
    /// Ports that are published on this machine's loopback, if the network is not the host's.
    pub ports: Vec<u16>,
    /// The arguments of the image's entry point.
    pub command: Vec<String>,
}

impl Run {
    /// A container in the background that may do as little as possible and has nothing of this machine.
    pub fn restricted(name: &str, image: &str, person: User, network: Network) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            labels: Vec::new(),
            mode: Mode::Detached,
            network,
            user: RunUser::Image,
            person,
            volumes: Vec::new(),
            env: Vec::new(),
            env_by_name: Vec::new(),
            env_file: None,
            limits: Limits::default(),
            hardening: Hardening {
                no_new_privileges: true,
                drop_capabilities: vec!["ALL".to_owned()],
                read_only: true,
                tmpfs: vec!["/tmp".to_owned()],
                init: true,
                selinux_relabel: Relabel::Never,
            },
            stop_grace: Duration::from_secs(5),
            ports: Vec::new(),
            command: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the background.
    Detached,
    /// With our terminal. The container is removed when it exits.
    Foreground { tty: bool },
}

/// The container's user, and the owner of its files on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `--user`; none for the image's own.
    pub user: Option<String>,
    /// `--userns`.
    pub userns: Option<String>,
    /// The user id and group id of its files on the host.
    pub on_host: (u32, u32),
}

impl EngineFacts {
    /// The network, with `auto` replaced: the host's if containers run on our kernel, else a bridge.
    pub fn network(&self, wanted: &Network) -> Network {
        match (wanted, &self.place) {
            (Network::Auto, Place::Here) => Network::Host,
            (Network::Auto, Place::Vm | Place::Remote(_)) => Network::Bridge,
            (other, _) => other.clone(),
        }
    }

    /// Why a container cannot reach servers on this machine's `localhost` on any network; none if it can.
    /// <https://docs.docker.com/engine/security/rootless/tips/>
    pub fn hides_this_machine(&self) -> Option<&'static str> {
        match (self.engine.kind, self.rootless) {
            (EngineKind::Docker, true) => Some(
                "rootless Docker's host network is not this machine's: `localhost` in the container is not yours",
            ),
            (EngineKind::Docker, false) | (EngineKind::Podman, _) => None,
        }
    }

    /// The name by which a container on a bridge network reaches the host.
    pub fn host_name(&self) -> &'static str {
        match self.engine.kind {
            EngineKind::Docker => "host.docker.internal",
            EngineKind::Podman => "host.containers.internal",
        }
    }

    /// The name by which a container on a network reaches this machine.
    pub fn host_on(&self, network: &Network) -> &'static str {
        match self.network(network) {
            Network::Host => "localhost",
            Network::Auto | Network::Bridge | Network::Named(_) => self.host_name(),
        }
    }

    /// Whether a container on a bridge can reach this machine's loopback.
    fn reaches_loopback(&self) -> bool {
        self.rootless && self.place == Place::Here && self.can(Capability::LoopbackFromBridge)
    }

    /// The container's user, chosen such that its files belong to the person on the host.
    pub fn identity(&self, wanted: &RunUser, person: User) -> Identity {
        let image = format!("{IMAGE_USER}:{IMAGE_USER}");
        let me = (person.uid, person.gid);
        match (self.engine.kind, self.rootless, wanted) {
            // Podman can map the person to any user in the container.
            (EngineKind::Podman, true, RunUser::Auto | RunUser::Image) => {
                if self.can(Capability::KeepIdTakesIds) {
                    let userns = format!("keep-id:uid={IMAGE_USER},gid={IMAGE_USER}");
                    Identity {
                        user: Some(image),
                        userns: Some(userns),
                        on_host: me,
                    }
                } else {
                    let user = format!("{}:{}", person.uid, person.gid);
                    Identity {
                        user: Some(user),
                        userns: Some("keep-id".to_owned()),
                        on_host: me,
                    }
                }
            }
            (EngineKind::Podman, true, RunUser::Ids(uid, gid)) => Identity {
                user: Some(format!("{uid}:{gid}")),
                userns: Some(format!("keep-id:uid={uid},gid={gid}")),
                on_host: me,
            },
            // In the user namespace of a rootless daemon, user 0 is the person, and has no more rights on the
            // host than the person. Docker has no keep-id.
            (EngineKind::Docker, true, RunUser::Auto) => Identity {
                user: Some("0:0".to_owned()),
                userns: None,
                on_host: me,
            },
            // Agents run commands in the container, so it never runs as root, even if root starts it.
            (_, _, RunUser::Auto) if person.is_plain_root() => Identity {
                user: None,
                userns: None,
                on_host: (IMAGE_USER, IMAGE_USER),
            },
            (_, _, RunUser::Auto) => Identity {
                user: Some(format!("{}:{}", person.uid, person.gid)),
                userns: None,
                on_host: me,
            },
            (_, _, RunUser::Image) => Identity {
                user: None,
                userns: None,
                on_host: (IMAGE_USER, IMAGE_USER),
            },
            (_, _, RunUser::Ids(uid, gid)) => Identity {
                user: Some(format!("{uid}:{gid}")),
                userns: None,
                on_host: (*uid, *gid),
            },
        }
    }

    /// Starts a container as the configured user.
    pub fn run(&self, run: &Run) -> Cmd {
        let identity = self.identity(&run.user, run.person);
        self.run_as(run, identity.user, identity.userns)
    }

    /// A run as the image's own user, without any mapping of users.
    pub fn run_plain(&self, run: &Run) -> Cmd {
        self.run_as(run, None, None)
    }

    fn run_as(&self, run: &Run, user: Option<String>, userns: Option<String>) -> Cmd {
        let mut cmd = self.engine.cmd().arg("run");
        cmd = match run.mode {
            Mode::Detached => cmd.arg("--detach"),
            Mode::Foreground { tty: true } => cmd.args(["--rm", "--interactive", "--tty"]),
            Mode::Foreground { tty: false } => cmd.arg("--rm"),
        };
        cmd = cmd.args(["--name", &run.name]);
        // Otherwise Podman tries for three seconds to pull an image that was built here.
        cmd = cmd.arg("--pull=never");
        for (name, value) in &run.labels {
            cmd = cmd.args(["--label", &format!("{name}={value}")]);
        }
        cmd = self.network_args(cmd, &run.network);
        if self.network(&run.network) == Network::Bridge {
            for port in &run.ports {
                cmd = cmd.args(["--publish", &format!("127.0.0.1:{port}:{port}")]);
            }
        }
        if let Some(userns) = userns {
            cmd = cmd.arg(format!("--userns={userns}"));
        }
        if let Some(user) = user {
            cmd = cmd.args(["--user", &user]);
        }
        for volume in &run.volumes {
            cmd = cmd.args(["--volume", volume]);
        }
        cmd = env_args(cmd, run);
        cmd.args(options(&run.limits, &run.hardening, run.stop_grace))
            .arg(run.image.as_str())
            .args(run.command.clone())
    }

    fn network_args(&self, cmd: Cmd, network: &Network) -> Cmd {
        match (self.network(network), self.engine.kind) {
            (Network::Host, _) => cmd.args(["--network", "host"]),
            (Network::Named(name), _) => cmd.args(["--network", &name]),
            // The default network of both engines is a bridge, or what resembles one for a rootless engine.
            (Network::Auto | Network::Bridge, EngineKind::Docker) => {
                // Since Docker 20.10; Docker Desktop knows the name anyway.
                cmd.args(["--add-host", "host.docker.internal:host-gateway"])
            }
            (Network::Auto | Network::Bridge, EngineKind::Podman) => {
                if self.reaches_loopback() {
                    cmd.args(["--network", "slirp4netns:allow_host_loopback=true"])
                        .args(["--add-host", "host.containers.internal:10.0.2.2"])
                } else {
                    cmd
                }
            }
        }
    }
}

/// The options of every container, which are the same for both engines.
pub fn options(limits: &Limits, hardening: &Hardening, stop_grace: Duration) -> Vec<String> {
    let cmd = hardening_args(limit_args(Cmd::new(""), limits), hardening);
    let grace = stop_grace.as_secs().to_string();
    cmd.args(["--stop-timeout", &grace]).args
}

fn env_args(mut cmd: Cmd, run: &Run) -> Cmd {
    if let Some(file) = &run.env_file {
        cmd = cmd.args(["--env-file", file]);
    }
    for (name, value) in &run.env {
        cmd = cmd.args(["--env", &format!("{name}={value}")]);
    }
    for (name, value) in &run.env_by_name {
        cmd = cmd.args(["--env", name]);
        if let Some(value) = value {
            cmd = cmd.env(name, value.clone());
        }
    }
    cmd
}

fn limit_args(mut cmd: Cmd, limits: &Limits) -> Cmd {
    if let Some(memory) = limits.memory {
        cmd = cmd.args(["--memory", &memory.to_string()]);
    }
    if !limits.cpus.is_empty() {
        cmd = cmd.args(["--cpus", &limits.cpus]);
    }
    if limits.pids > 0 {
        cmd = cmd.args(["--pids-limit", &limits.pids.to_string()]);
    }
    cmd
}

fn hardening_args(mut cmd: Cmd, hardening: &Hardening) -> Cmd {
    if hardening.init {
        cmd = cmd.arg("--init");
    }
    if hardening.read_only {
        cmd = cmd.arg("--read-only");
    }
    for folder in &hardening.tmpfs {
        cmd = cmd.args(["--tmpfs", folder]);
    }
    for capability in &hardening.drop_capabilities {
        cmd = cmd.args(["--cap-drop", capability]);
    }
    if hardening.no_new_privileges {
        cmd = cmd.args(["--security-opt", "no-new-privileges"]);
    }
    cmd
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::image::Platform, engine::Engine};

    fn facts(kind: EngineKind, rootless: bool) -> EngineFacts {
        EngineFacts {
            engine: Engine {
                kind,
                program: kind.program().to_owned(),
            },
            version: "4.3.1".to_owned(),
            platform: Platform::linux("amd64"),
            rootless,
            place: Place::Here,
        }
    }

    const ME: User = User {
        euid: 1001,
        uid: 1001,
        gid: 1002,
    };
    const ROOT: User = User {
        euid: 0,
        uid: 0,
        gid: 0,
    };

    #[test]
    fn files_belong_to_the_person_on_every_engine() {
        let on_host = |kind, rootless, person| {
            facts(kind, rootless)
                .identity(&RunUser::Auto, person)
                .on_host
        };
        assert_eq!(on_host(EngineKind::Docker, false, ME), (1001, 1002));
        assert_eq!(on_host(EngineKind::Docker, true, ME), (1001, 1002));
        assert_eq!(on_host(EngineKind::Podman, true, ME), (1001, 1002));
        assert_eq!(
            on_host(EngineKind::Docker, false, ROOT),
            (IMAGE_USER, IMAGE_USER)
        );
        assert_eq!(
            on_host(EngineKind::Podman, false, ROOT),
            (IMAGE_USER, IMAGE_USER)
        );
    }

    #[test]
    fn under_sudo_the_person_is_who_called_it() {
        let sudo = User {
            euid: 0,
            uid: 1001,
            gid: 1001,
        };
        let identity = facts(EngineKind::Docker, false).identity(&RunUser::Auto, sudo);
        assert_eq!(identity.user.as_deref(), Some("1001:1001"));
    }

    #[test]
    fn an_old_podman_keeps_the_persons_own_id() {
        let old = EngineFacts {
            version: "4.2.0".to_owned(),
            ..facts(EngineKind::Podman, true)
        };
        let identity = old.identity(&RunUser::Auto, ME);
        assert_eq!(identity.userns.as_deref(), Some("keep-id"));
        assert_eq!(identity.user.as_deref(), Some("1001:1002"));
    }

    #[test]
    fn auto_is_host_here_and_bridge_elsewhere() {
        let mut facts = facts(EngineKind::Docker, false);
        assert_eq!(facts.network(&Network::Auto), Network::Host);
        facts.place = Place::Vm;
        assert_eq!(facts.network(&Network::Auto), Network::Bridge);
        assert_eq!(
            facts.network(&Network::Host),
            Network::Host,
            "an explicit choice is kept"
        );
    }
}
