//! The containers around the runner: a Temporal server, and a stigmer-server for development with a
//! scripted model. `up`, `down`, `ask`, `smoke` and `logs` share this.

use std::time::Duration;

use anyhow::Result;

use crate::{
    base::{env::User, error::Failure, image::VERSION_LABEL},
    build::{facts::BuildFacts, ownership, request},
    engine::{
        EngineFacts,
        container::{Container, EXEC_FAILS_FOR_GOOD, LogOptions, Owner},
        image::Image,
        label,
        run::Run,
    },
    facts::{context::Context, environment::RunnerEnv, host, model::Model},
    plan::{Cmd, Output, Step},
    settings::{Network, Port, Settings},
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
    /// When an address is on another machine or cannot be read, and when two ports are the same.
    pub fn of(runner: &RunnerEnv) -> Result<Self, Failure> {
        let server = port_on_this_machine(runner, SERVER_ADDRESS, Self::DEFAULT.server)?;
        let ports = Self {
            temporal: port_on_this_machine(runner, TEMPORAL_ADDRESS, Self::DEFAULT.temporal)?,
            server,
            model: server.saturating_add(1),
        };
        if [ports.server, ports.model].contains(&ports.temporal) || ports.server == ports.model {
            return Err(Failure::usage(format!(
                "Temporal's port {} must not be the stigmer-server's port, {}, or the scripted model's port, {}",
                ports.temporal, ports.server, ports.model
            ))
            .hint(format!(
                "set `{TEMPORAL_ADDRESS}` or `{SERVER_ADDRESS}` to another port"
            )));
        }
        Ok(ports)
    }
}

pub const TEMPORAL_ADDRESS: &str = "TEMPORAL_SERVICE_ADDRESS";
pub const SERVER_ADDRESS: &str = "STIGMER_BACKEND_ENDPOINT";
pub const NAMESPACE: &str = "TEMPORAL_NAMESPACE";
pub const TEMPORAL_TLS: &str = "TEMPORAL_TLS";
pub const TASK_QUEUE: &str = "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE";

fn port_on_this_machine(runner: &RunnerEnv, name: &str, default: u16) -> Result<u16, Failure> {
    let Some((value, source)) = runner.get(name).filter(|(value, _)| !value.is_empty()) else {
        return Ok(default);
    };
    let place = runner.place_of(source);
    if let Some((host, port)) = host::host_and_port(value.trim())
        && is_this_machine(&host)
    {
        return Ok(port);
    }
    let address = host::describe_address(value.trim());
    Err(Failure::usage(format!(
        "`{name}` in {place} is {address}; the servers of `up` and `ask` must be on this machine"
    ))
    .hint(format!(
        "set `{name}` to `localhost:PORT`, or start only the runner: `cargo xtask run-local{}`",
        runner.settings.given_version_options()
    )))
}

fn is_this_machine(host: &str) -> bool {
    ["localhost", "127.0.0.1", "::1", "0.0.0.0"]
        .iter()
        .any(|local| host.eq_ignore_ascii_case(local))
}

/// The variable of an address and its place, for a message.
pub fn origin_of_address(runner: &RunnerEnv, name: &str) -> String {
    match runner.get(name).filter(|(value, _)| !value.is_empty()) {
        Some((_, source)) => format!("{name} in {}", runner.place_of(source)),
        None => "the default".to_owned(),
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
    settings.image.repository.on_this_machine("devserver")
}

/// The reference of the version's devserver image.
pub fn devserver_image(settings: &Settings) -> String {
    format!(
        "{}:{}",
        devserver_repository(settings),
        settings.version.value
    )
}

/// Whether a container belongs to the stack of `up`, so that `down` removes it.
pub fn belongs_to_stack(settings: &Settings, container: &Container) -> bool {
    container.owner() == Owner::Xtask
        && container.label(label::STACK) == Some(settings.run.container.as_str())
}

/// Whether a server of the stack listens on this port, judged by the arguments of its container.
pub fn serves(container: &Container, port: u16) -> bool {
    let option = ["--port".to_owned(), port.to_string()];
    let command = container.config.cmd.as_ref();
    command.is_none_or(|words| words.windows(2).any(|pair| pair == option))
}

/// The variables of the scripted model. Empty unless the stigmer-server at the runner's address is
/// that of `up` and no model is configured.
pub fn scripted_model(runner: &RunnerEnv, has_own_server: bool) -> Vec<(&'static str, String)> {
    if !has_own_server || Model::of(runner).is_configured() {
        return Vec::new();
    }
    Ports::of(runner).map_or_else(|_| Vec::new(), |ports| model_on(ports).into())
}

/// The variables by which the runner uses the scripted model. It needs no key.
pub fn model_on(ports: Ports) -> [(&'static str, String); 4] {
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
    /// The ports that are published on a bridge network.
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
        // Temporal's image is not ours, and it is not known to which folders it writes.
        run.hardening.read_only = false;
        engine.run_as_image_user(&Run {
            labels,
            ports: if self.network == Network::Bridge {
                self.ports.iter().copied().map(Port::same).collect()
            } else {
                Vec::new()
            },
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
/// When the configuration names no stage with the server, and as [`request::build_for_engine_platform`].
pub fn build_devserver_steps(
    settings: &Settings,
    facts: &BuildFacts,
) -> Result<Vec<Step>, Failure> {
    if settings.stack.server_target.is_empty() {
        return Err(Failure::usage(
            "`stack.server-target` names no stage with a development stigmer-server",
        )
        .hint("`up`, `ask` and `smoke` need one; `run-local` starts the container without it"));
    }
    let mut build = request::build_for_engine_platform(settings, facts)?;
    build.target.clone_from(&settings.stack.server_target);
    build.references = vec![devserver_image(settings)];
    // Without the commit's labels, a commit that changes no sources leads to the same image, so a
    // running server is kept. Another version leads to another image.
    build
        .labels
        .retain(|name, _| name == label::IMAGE || name == VERSION_LABEL);
    let cmd = facts.engine.build(&build);
    let mut steps = request::preparation(facts);
    steps.push(
        facts
            .engine
            .build_step(cmd)
            .status("Building", "the development stigmer-server"),
    );
    Ok(steps)
}

/// The devserver's image, if the engine has it.
///
/// # Errors
/// When its name is that of an image which xtask did not build.
pub fn find_devserver_image(cx: &Context, engine: &EngineFacts) -> Result<Option<Image>, Failure> {
    let reference = devserver_image(cx.settings);
    match cx
        .images_of(&engine.engine, &[&reference])?
        .into_iter()
        .next()
    {
        Some(image) if !image.is_built_by_xtask() => {
            Err(ownership::refusal(cx.settings, engine, &reference))
        }
        found => Ok(found),
    }
}

/// Waits until the devserver says that it is healthy.
pub fn wait_for_devserver(engine: &EngineFacts, name: &str, ports: Ports) -> Step {
    let url = format!("http://127.0.0.1:{}/health", ports.model);
    let cmd = devserver_cmd(engine, name, ["health", "--url", &url]);
    until_it_succeeds(cmd)
}

/// Waits until Temporal answers. `program` is the entry point of its image.
pub fn wait_for_temporal(
    engine: &EngineFacts,
    name: &str,
    program: &[String],
    ports: Ports,
) -> Step {
    let address = format!("127.0.0.1:{}", ports.temporal);
    let question = ["operator", "cluster", "health", "--address", &address];
    let argv = program.iter().map(String::as_str).chain(question);
    until_it_succeeds(engine.engine.exec(name, argv))
}

/// Repeats a question to a container until it succeeds. If the container ends, the step fails at once.
pub fn until_it_succeeds(cmd: Cmd) -> Step {
    Step::new(cmd, Output::Quiet)
        .retry_for(READY_BUDGET)
        .give_up_on(EXEC_FAILS_FOR_GOOD)
}

/// Runs the devserver's program in its container.
pub fn devserver_cmd<'a>(
    engine: &EngineFacts,
    name: &str,
    args: impl IntoIterator<Item = &'a str>,
) -> Cmd {
    let args = args.into_iter().map(str::to_owned);
    engine.engine.exec(name, devserver_command(args))
}

/// The devserver's program with its arguments, as its container has it.
pub fn devserver_command(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let program = DEVSERVER.map(str::to_owned);
    program.into_iter().chain(args).collect()
}

/// If the result is a failure, prints the last lines of the containers' logs, which may explain it.
/// Returns the result unchanged.
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
