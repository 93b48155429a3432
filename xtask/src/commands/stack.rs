//! The containers around the runner: a Temporal server, and a stigmer-server for development with a
//! scripted model. `up`, `down`, `ask`, `smoke` and `logs` share this.

use std::time::Duration;

use anyhow::Result;

use crate::{
    base::{env::User, error::Failure},
    build::{facts::BuildFacts, ownership, request},
    engine::{EngineFacts, container::LogOptions, label, run::Run},
    facts::{context::Context, environment::RunnerEnv, host},
    plan::{Cmd, Output, Step},
    settings::{Network, Settings},
};

/// The ports on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub temporal: u16,
    pub server: u16,
    /// The scripted model's port, the one after its server's.
    pub model: u16,
}

impl Ports {
    /// The ports of the runner's default addresses.
    pub const DEFAULT: Self = Self {
        temporal: 7233,
        server: 7234,
        model: 7235,
    };

    /// The ports of the addresses that the runner uses.
    ///
    /// # Errors
    /// When an address is on another machine.
    pub fn of(runner: &RunnerEnv) -> Result<Self, Failure> {
        let port = |name: &str, default: u16| {
            let Some((host, port)) = runner.value(name).and_then(host::host_and_port) else {
                return Ok(default);
            };
            if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") {
                return Ok(port);
            }
            Err(Failure::usage(format!(
                "`{name}` is {host}:{port}, but the stack of `up` and `ask` must be on this machine"
            ))
            .hint("set `{name}` to an address on localhost, or start only the runner: `cargo xtask run-local`"))
        };
        let server = port("STIGMER_BACKEND_ENDPOINT", Self::DEFAULT.server)?;
        Ok(Self {
            temporal: port("TEMPORAL_SERVICE_ADDRESS", Self::DEFAULT.temporal)?,
            server,
            model: server.saturating_add(1),
        })
    }
}

/// How long a server may take until it answers.
pub const READY_BUDGET: Duration = Duration::from_secs(60);

/// The program of the devserver's image.
const DEVSERVER: [&str; 3] = ["/venv/bin/python", "-m", "devserver"];

/// The names of the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub temporal: String,
    pub server: String,
    pub runner: String,
}

impl Names {
    /// The names that belong to a runner's.
    pub fn for_runner(runner: &str) -> Self {
        Self {
            temporal: format!("{runner}-temporal"),
            server: format!("{runner}-server"),
            runner: runner.to_owned(),
        }
    }
}

/// The repository of the devserver's images. They are built and used on this machine only.
pub fn devserver_repository(settings: &Settings) -> String {
    let path = settings.image.repository.path();
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("localhost/{name}-devserver")
}

/// The reference of the version's devserver image.
pub fn devserver_image(settings: &Settings) -> String {
    format!(
        "{}:{}",
        devserver_repository(settings),
        settings.version.value
    )
}

/// The variables by which the runner uses the scripted model. It needs no key.
pub fn scripted_model(ports: Ports) -> [(&'static str, String); 4] {
    [
        ("STIGMER_LLM_PROVIDER", "openai".to_owned()),
        ("STIGMER_LLM_MODEL", "scripted".to_owned()),
        (
            "STIGMER_LLM_BASE_URL",
            format!("http://localhost:{}/v1", ports.model),
        ),
        // The runner refuses to start without a key.
        ("STIGMER_LLM_API_KEY", "none-needed".to_owned()),
    ]
}

/// A server around the runner.
pub struct Server<'a> {
    pub name: &'a str,
    pub image: &'a str,
    /// The value of its label.
    pub label: &'static str,
    pub network: Network,
    pub ports: Vec<u16>,
    pub command: Vec<String>,
    /// The runner that it belongs to, for `down`; none if the caller removes it.
    pub stack: Option<&'a str>,
}

impl Server<'_> {
    pub fn run(&self, engine: &EngineFacts, invoking_user: User) -> Cmd {
        let mut labels = vec![(label::CONTAINER.to_owned(), self.label.to_owned())];
        labels.extend(
            self.stack
                .map(|stack| (label::STACK.to_owned(), stack.to_owned())),
        );
        let mut run = Run::restricted(self.name, self.image, invoking_user, self.network.clone());
        // Another project's server may write to any folder.
        run.hardening.read_only = false;
        engine.run_as_image_user(&Run {
            labels,
            ports: self.ports.clone(),
            command: self.command.clone(),
            ..run
        })
    }
}

/// The address that a server listens at: on a bridge, its loopback cannot be reached from outside.
fn listen_address(network: &Network) -> &'static str {
    match network {
        Network::Bridge => "0.0.0.0",
        Network::Auto | Network::Host | Network::Named(_) => "127.0.0.1",
    }
}

/// Temporal's development server, which keeps everything in memory.
pub fn temporal<'a>(
    settings: &'a Settings,
    name: &'a str,
    network: Network,
    ports: Ports,
) -> Server<'a> {
    let port = ports.temporal.to_string();
    let command = [
        "server",
        "start-dev",
        "--headless",
        "--ip",
        listen_address(&network),
        "--port",
        &port,
    ];
    Server {
        name,
        image: &settings.stack.temporal_image,
        label: label::TEMPORAL,
        command: command.map(str::to_owned).into(),
        network,
        ports: vec![ports.temporal],
        stack: None,
    }
}

/// The development stigmer-server, with its model.
pub fn server<'a>(
    name: &'a str,
    image: &'a str,
    network: Network,
    temporal_host: &str,
    ports: Ports,
) -> Server<'a> {
    let temporal = format!("{temporal_host}:{}", ports.temporal);
    let (port, model) = (ports.server.to_string(), ports.model.to_string());
    let command = [
        "serve",
        "--host",
        listen_address(&network),
        "--port",
        &port,
        "--model-port",
        &model,
        "--temporal",
        &temporal,
    ];
    Server {
        name,
        image,
        label: label::SERVER,
        command: command.map(str::to_owned).into(),
        network,
        ports: vec![ports.server, ports.model],
        stack: None,
    }
}

/// The steps that build the devserver's image from this checkout.
///
/// # Errors
/// As [`request::build_for_engine_platform`].
pub fn build_devserver_steps(
    settings: &Settings,
    facts: &BuildFacts,
) -> Result<Vec<Step>, Failure> {
    let mut build = request::build_for_engine_platform(settings, facts)?;
    build.target.clone_from(&settings.stack.server_target);
    build.references = vec![devserver_image(settings)];
    let cmd = facts.engine.build(&build);
    let mut steps = request::preparation(facts);
    steps.push(
        Step::new(cmd, Output::Progress).status("Building", "the development stigmer-server"),
    );
    Ok(steps)
}

/// Whether the engine has the devserver's image.
///
/// # Errors
/// When its name is that of an image which xtask did not build.
pub fn has_devserver_image(cx: &Context, engine: &EngineFacts) -> Result<bool, Failure> {
    let reference = devserver_image(cx.settings);
    match cx.images_of(&engine.engine, &[&reference])?.first() {
        None => Ok(false),
        Some(image) if image.is_built_by_xtask() => Ok(true),
        Some(_) => Err(ownership::refusal(cx.settings, engine, &reference)),
    }
}

/// Waits until the devserver says that it is healthy.
pub fn wait_for_devserver(engine: &EngineFacts, name: &str, ports: Ports) -> Step {
    let url = format!("http://127.0.0.1:{}/health", ports.model);
    let cmd = devserver_cmd(engine, name, ["health", "--url", &url]);
    Step::new(cmd, Output::Quiet).retry_for(READY_BUDGET)
}

/// Runs the devserver's program in its container.
pub fn devserver_cmd<'a>(
    engine: &EngineFacts,
    name: &str,
    args: impl IntoIterator<Item = &'a str>,
) -> Cmd {
    engine
        .engine
        .exec(name, DEVSERVER.iter().copied().chain(args))
}

/// After a failure, shows the end of the logs of the containers, which may explain it. Returns the result
/// that it was given.
pub fn show_logs_on_failure<T>(
    cx: &Context,
    engine: &EngineFacts,
    names: &[&str],
    result: Result<T>,
) -> Result<T> {
    let failed = result.is_err() && cx.exec.stop_signal().is_none();
    for name in names.iter().filter(|_| failed) {
        if let Ok(log) = cx.ask(&engine.engine.logs(name, &LogOptions::last(10))) {
            cx.ui.detail(&format!("the last lines of {name}'s log:"));
            cx.ui.print_unchanged(&log.stdout);
            cx.ui.print_unchanged(&log.stderr);
        }
    }
    result
}
