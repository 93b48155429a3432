//! The command that starts a container.

use std::time::Duration;

use crate::{
    base::{engine_kind::EngineKind, env::User},
    engine::{EngineFacts, Location, capabilities::Capability},
    plan::{Cmd, EnvValue},
    settings::{Hardening, Limits, Network, Port, Relabel, Restart, RunUser},
};

/// The user id and group id of the image's own user, `stigmer`.
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
    /// The user who runs xtask.
    pub invoking_user: User,
    /// `HOST:CONTAINER[:OPTIONS]`, with an absolute path on the host.
    pub volumes: Vec<String>,
    /// Variables whose values are on the command line.
    pub env: Vec<(String, String)>,
    /// Variables whose names only are on the command line. The engine inherits the value from the
    /// environment of xtask, or gets the one here.
    pub env_by_name: Vec<(String, Option<EnvValue>)>,
    pub env_file: Option<String>,
    pub limits: Limits,
    pub hardening: Hardening,
    pub stop_grace: Duration,
    pub restart: Restart,
    /// The values of `--log-opt`, see [`EngineFacts::log_limits`].
    pub log_options: Vec<&'static str>,
    /// Ports that are published on the host's loopback, unless the container is on the host's network.
    pub ports: Vec<Port>,
    /// The arguments for the image's entry point.
    pub command: Vec<String>,
}

impl Run {
    /// A background container with the fewest possible rights, and without folders or variables of the host.
    pub fn restricted(name: &str, image: &str, invoking_user: User, network: Network) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            labels: Vec::new(),
            mode: Mode::Detached,
            network,
            user: RunUser::Image,
            invoking_user,
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
            restart: Restart::No,
            log_options: Vec::new(),
            ports: Vec::new(),
            command: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Detached,
    /// Connected to xtask's terminal. The container stays when it has ended.
    Foreground {
        tty: bool,
    },
    /// Connected to xtask's output. When the container ends, the engine removes it and its unnamed volumes.
    Once,
}

/// The user of a container, and the owner of its files on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `--user`; none for the image's own user.
    pub user: Option<String>,
    /// `--userns`.
    pub userns: Option<String>,
    /// The uid and gid that own the container's files on the host; none if the owner is a
    /// subordinate id, which is not known here.
    pub host_owner: Option<(u32, u32)>,
}

impl EngineFacts {
    /// Resolves `auto`: the host's network if containers run on the host, else a bridge.
    pub fn network(&self, network: &Network) -> Network {
        match network {
            Network::Auto => match self.location {
                Location::Host => Network::Host,
                Location::VirtualMachine | Location::Remote(_) => Network::Bridge,
            },
            Network::Host | Network::Bridge | Network::Named(_) => network.clone(),
        }
    }

    /// The reason why a container cannot reach servers on the host's `localhost` through any network; none
    /// if it can. <https://docs.docker.com/engine/security/rootless/tips/>
    pub fn why_localhost_is_unreachable(&self) -> Option<&'static str> {
        match self.engine.kind {
            EngineKind::Docker => self.rootless.then_some(
                "a container of rootless Docker cannot reach `localhost` of this machine: its host network is a network namespace of its own",
            ),
            EngineKind::Podman => None,
        }
    }

    /// The host's name in a container on a bridge network.
    pub fn host_name(&self) -> &'static str {
        match self.engine.kind {
            EngineKind::Docker => "host.docker.internal",
            EngineKind::Podman => "host.containers.internal",
        }
    }

    /// The host's name in a container on this network.
    pub fn host_name_on(&self, network: &Network) -> &'static str {
        match self.network(network) {
            Network::Host => "localhost",
            Network::Auto | Network::Bridge | Network::Named(_) => self.host_name(),
        }
    }

    /// Whether a container on this network must use a name to reach the host. That name then
    /// replaces `localhost` in addresses.
    pub fn has_host_name_on(&self, network: &Network) -> bool {
        self.has_own_ports_on(network)
    }

    /// Whether a container on this network has ports of its own, which can be published.
    pub fn has_own_ports_on(&self, network: &Network) -> bool {
        self.network(network) != Network::Host && !network.is_apart_from_host()
    }

    /// The values of `--publish` for a container on this network. Empty if it has no ports of its own.
    pub fn published_ports(&self, network: &Network, ports: &[Port]) -> Vec<String> {
        if !self.has_own_ports_on(network) {
            return Vec::new();
        }
        let ports = ports.iter();
        ports
            .map(|Port { host, container }| format!("127.0.0.1:{host}:{container}"))
            .collect()
    }

    /// Whether a container on this network can reach the servers of `up`, which listen on the loopback only.
    pub fn reaches_servers_on(&self, network: &Network) -> bool {
        match (self.network(network), &self.location) {
            (_, Location::Remote(_)) | (Network::Host, Location::VirtualMachine) => false,
            (Network::Host, Location::Host) => true,
            (Network::Auto | Network::Bridge, Location::Host) => self.reaches_loopback(),
            (Network::Named(_), Location::Host) => false,
            // A virtual machine's network leads to the loopback of this machine.
            (Network::Auto | Network::Bridge | Network::Named(_), Location::VirtualMachine) => {
                self.has_host_name_on(network)
            }
        }
    }

    /// Whether a container on a bridge network can reach the host's loopback.
    fn reaches_loopback(&self) -> bool {
        self.rootless && self.location == Location::Host && self.can(Capability::LoopbackFromBridge)
    }

    /// Chooses the container's user such that its files on the host belong to the user who runs xtask.
    pub fn identity(&self, wanted: &RunUser, invoking_user: User) -> Identity {
        if !self.rootless {
            return rootful_identity(wanted, invoking_user);
        }
        match self.engine.kind {
            EngineKind::Docker => rootless_docker_identity(wanted, invoking_user),
            EngineKind::Podman => self.rootless_podman_identity(wanted, invoking_user),
        }
    }

    /// Podman's keep-id maps the user to a user of the container.
    fn rootless_podman_identity(&self, wanted: &RunUser, invoking_user: User) -> Identity {
        let mine = (invoking_user.uid, invoking_user.gid);
        let can_map = self.can(Capability::KeepIdWithIds);
        let (uid, gid) = match wanted {
            RunUser::Image => return IMAGE_USER_UNMAPPED,
            RunUser::Ids(uid, gid) => (*uid, *gid),
            RunUser::Auto if can_map => (IMAGE_USER, IMAGE_USER),
            RunUser::Auto => mine,
        };
        let mapped = can_map.then(|| format!("keep-id:uid={uid},gid={gid}"));
        let (userns, host_owner) = match mapped {
            Some(mapped) => (Some(mapped), Some(mine)),
            None if (uid, gid) == mine => (Some("keep-id".to_owned()), Some(mine)),
            // Without a mapping, root of the container is the user who runs Podman.
            None if (uid, gid) == (0, 0) => (None, Some(mine)),
            None => (None, None),
        };
        Identity {
            user: Some(format!("{uid}:{gid}")),
            userns,
            host_owner,
        }
    }

    /// Starts a container as the configured user.
    pub fn run(&self, run: &Run) -> Cmd {
        let identity = self.identity(&run.user, run.invoking_user);
        self.run_as(run, identity.user, identity.userns)
    }

    /// Starts a container as the image's own user, without a mapping of user ids.
    pub fn run_as_image_user(&self, run: &Run) -> Cmd {
        self.run_as(run, None, None)
    }

    fn run_as(&self, run: &Run, user: Option<String>, userns: Option<String>) -> Cmd {
        let mut cmd = self.engine.cmd().arg("run");
        cmd = match run.mode {
            Mode::Detached => {
                let cmd = cmd.arg("--detach");
                match run.restart {
                    Restart::No => cmd,
                    Restart::OnFailure => cmd.args(["--restart", "on-failure"]),
                    Restart::UnlessStopped => cmd.args(["--restart", "unless-stopped"]),
                }
            }
            // Never restarted: Ctrl-C ends it.
            Mode::Foreground { tty: true } => cmd.args(["--interactive", "--tty"]),
            Mode::Foreground { tty: false } => cmd,
            Mode::Once => cmd.arg("--rm"),
        };
        cmd = cmd.args(["--name", &run.name]);
        // Without this option, Podman tries for three seconds to pull an image that was built locally.
        cmd = cmd.arg("--pull=never");
        for (name, value) in &run.labels {
            cmd = cmd.args(["--label", &format!("{name}={value}")]);
        }
        // Podman would pass the proxies of xtask's environment, with their passwords. Docker passes none.
        cmd = match self.engine.kind {
            EngineKind::Docker => cmd,
            EngineKind::Podman => cmd.arg("--http-proxy=false"),
        };
        cmd = self.network_args(cmd, &run.network);
        for port in self.published_ports(&run.network, &run.ports) {
            cmd = cmd.args(["--publish", &port]);
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
        for option in &run.log_options {
            cmd = cmd.args(["--log-opt", option]);
        }
        cmd.args(options(&run.limits, &run.hardening, run.stop_grace))
            .arg(run.image.as_str())
            .args(run.command.clone())
    }

    /// Asks for the log driver of new containers, if options for the log depend on it.
    pub fn log_driver_question(&self) -> Option<Cmd> {
        match self.engine.kind {
            EngineKind::Docker => {
                let question = ["info", "--format", "{{.LoggingDriver}}"];
                Some(self.engine.cmd().args(question))
            }
            EngineKind::Podman => None,
        }
    }

    /// The options for a log that takes at most 30 MB of the disk. Without them, Docker's and Podman's
    /// log files grow without end. Docker refuses these options for other drivers.
    /// <https://docs.docker.com/engine/logging/configure/>
    pub fn log_limits(&self, driver: &str) -> &'static [&'static str] {
        match (self.engine.kind, driver) {
            (EngineKind::Docker, "json-file" | "local") => &["max-size=10m", "max-file=3"],
            (EngineKind::Docker, _) => &[],
            // journald has its own limits, and ignores the option.
            (EngineKind::Podman, _) => &["max-size=30mb"],
        }
    }

    fn network_args(&self, cmd: Cmd, network: &Network) -> Cmd {
        match self.network(network) {
            Network::Host => cmd.args(["--network", "host"]),
            Network::Named(name) => {
                let cmd = cmd.args(["--network", &name]);
                match self.engine.kind {
                    EngineKind::Docker if self.has_host_name_on(network) => cmd.args(ADD_HOST),
                    // Podman defines the host's name on every network.
                    EngineKind::Docker | EngineKind::Podman => cmd,
                }
            }
            // The default network is a bridge, or similar to one if the engine is rootless.
            Network::Auto | Network::Bridge => match self.engine.kind {
                EngineKind::Docker => cmd.args(ADD_HOST),
                EngineKind::Podman if self.reaches_loopback() => cmd
                    .args(["--network", "slirp4netns:allow_host_loopback=true"])
                    .args(["--add-host", "host.containers.internal:10.0.2.2"]),
                EngineKind::Podman => cmd,
            },
        }
    }
}

/// Docker 20.10 or later. Docker Desktop defines the name in any case.
const ADD_HOST: [&str; 2] = ["--add-host", "host.docker.internal:host-gateway"];

fn rootful_identity(wanted: &RunUser, invoking_user: User) -> Identity {
    let image_user = Identity {
        user: None,
        userns: None,
        host_owner: Some((IMAGE_USER, IMAGE_USER)),
    };
    match wanted {
        RunUser::Image => image_user,
        // Agents run commands in the container, so it never runs as root, even if root starts it.
        RunUser::Auto if invoking_user.is_root_without_sudo() => image_user,
        RunUser::Auto => same_ids(invoking_user.uid, invoking_user.gid),
        RunUser::Ids(uid, gid) => same_ids(*uid, *gid),
    }
}

fn rootless_docker_identity(wanted: &RunUser, invoking_user: User) -> Identity {
    let (uid, gid) = match wanted {
        // In the user namespace of a rootless daemon, user 0 is the user who runs the daemon, without
        // further rights on the host. Docker has no keep-id.
        RunUser::Auto => (0, 0),
        RunUser::Ids(uid, gid) => (*uid, *gid),
        RunUser::Image => return IMAGE_USER_UNMAPPED,
    };
    Identity {
        user: Some(format!("{uid}:{gid}")),
        userns: None,
        host_owner: ((uid, gid) == (0, 0)).then_some((invoking_user.uid, invoking_user.gid)),
    }
}

/// The image's own user, whatever it is, in the user namespace of a rootless engine.
const IMAGE_USER_UNMAPPED: Identity = Identity {
    user: None,
    userns: None,
    host_owner: None,
};

/// An identity with the same ids in the container and on the host.
fn same_ids(uid: u32, gid: u32) -> Identity {
    Identity {
        user: Some(format!("{uid}:{gid}")),
        userns: None,
        host_owner: Some((uid, gid)),
    }
}

/// The options of every container. They are the same for both engines.
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
    if let Some(pids) = limits.pids_limit() {
        cmd = cmd.args(["--pids-limit", &pids.to_string()]);
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
            location: Location::Host,
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
        let owner = |kind, rootless, invoking_user| {
            facts(kind, rootless)
                .identity(&RunUser::Auto, invoking_user)
                .host_owner
                .unwrap()
        };
        assert_eq!(owner(EngineKind::Docker, false, ME), (1001, 1002));
        assert_eq!(owner(EngineKind::Docker, true, ME), (1001, 1002));
        assert_eq!(owner(EngineKind::Podman, true, ME), (1001, 1002));
        let image_user = (IMAGE_USER, IMAGE_USER);
        assert_eq!(owner(EngineKind::Docker, false, ROOT), image_user);
        assert_eq!(owner(EngineKind::Podman, false, ROOT), image_user);
    }

    #[test]
    fn with_sudo_files_belong_to_the_invoking_user() {
        let sudo = User {
            euid: 0,
            uid: 1001,
            gid: 1001,
        };
        let identity = facts(EngineKind::Docker, false).identity(&RunUser::Auto, sudo);
        assert_eq!(identity.user.as_deref(), Some("1001:1001"));
    }

    #[test]
    fn podman_before_4_3_keeps_the_persons_own_id() {
        let old = EngineFacts {
            version: "4.2.0".to_owned(),
            ..facts(EngineKind::Podman, true)
        };
        let identity = old.identity(&RunUser::Auto, ME);
        assert_eq!(identity.userns.as_deref(), Some("keep-id"));
        assert_eq!(identity.user.as_deref(), Some("1001:1002"));
    }

    #[test]
    fn old_podman_maps_no_other_ids() {
        let old = EngineFacts {
            version: "4.2.0".to_owned(),
            ..facts(EngineKind::Podman, true)
        };
        let of = |uid, gid| {
            let identity = old.identity(&RunUser::Ids(uid, gid), ME);
            assert_eq!(identity.user, Some(format!("{uid}:{gid}")));
            (identity.userns, identity.host_owner)
        };
        assert_eq!(
            of(1001, 1002),
            (Some("keep-id".to_owned()), Some((1001, 1002)))
        );
        assert_eq!(of(0, 0), (None, Some((1001, 1002))));
        assert_eq!(of(1000, 1000), (None, None));
    }

    #[test]
    fn the_images_own_user_is_left_as_it_is() {
        for kind in [EngineKind::Docker, EngineKind::Podman] {
            for rootless in [true, false] {
                let identity = facts(kind, rootless).identity(&RunUser::Image, ME);
                assert_eq!((identity.user, identity.userns), (None, None));
                assert_eq!(identity.host_owner.is_none(), rootless);
            }
        }
        let ids = facts(EngineKind::Docker, true).identity(&RunUser::Ids(7, 7), ME);
        assert_eq!(ids.host_owner, None, "a subordinate id of rootless Docker");
    }

    #[test]
    fn the_automatic_network_is_host_on_the_host_and_bridge_in_a_virtual_machine() {
        let mut facts = facts(EngineKind::Docker, false);
        assert_eq!(facts.network(&Network::Auto), Network::Host);
        facts.location = Location::VirtualMachine;
        assert_eq!(facts.network(&Network::Auto), Network::Bridge);
        assert_eq!(
            facts.network(&Network::Host),
            Network::Host,
            "auto does not override an explicit choice"
        );
    }
}
