//! The runner with all that it works with: a Temporal server, a stigmer-server for development with
//! a scripted model, and the runner itself.

pub mod ask;
pub mod down;
pub mod smoke;
pub mod up;

use std::time::Duration;

use anyhow::Result;

use super::{Context, build_image, health::last_words};
use crate::{
    engine::{
        EngineFacts,
        container::Container,
        image::{self, Image},
        label,
        run::Run,
    },
    env::{Env, User},
    error::Failure,
    plan::{Cmd, Output, Plan, Step},
    probe,
    settings::{Network, Settings},
    ui::{Clock, human_time},
};

/// Where everything listens on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub temporal: u16,
    pub server: u16,
    /// The scripted model's, beside its server's.
    pub model: u16,
}

impl Ports {
    /// Those of the runner's defaults.
    pub const USUAL: Self = Self {
        temporal: 7233,
        server: 7234,
        model: 7235,
    };

    /// Those of the addresses that the runner is told.
    ///
    /// # Errors
    /// When one of them is on another machine.
    pub fn of(settings: &Settings, env: &Env) -> Result<Self, Failure> {
        let port = |name: &str, usual: u16| {
            let handed_on = settings.run.pass_env.iter().any(|one| one == name);
            let value = env.get(name).filter(|_| handed_on).or(settings
                .run
                .env
                .get(name)
                .map(String::as_str));
            let Some((host, port)) = value.and_then(probe::host_and_port) else {
                return Ok(usual);
            };
            if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") {
                return Ok(port);
            }
            Err(Failure::usage(format!(
                "`{name}` is {host}:{port}, and `up` starts what is missing on this machine"
            ))
            .hint("start the runner alone: `cargo xtask run-local`"))
        };
        let server = port("STIGMER_BACKEND_ENDPOINT", Self::USUAL.server)?;
        Ok(Self {
            temporal: port("TEMPORAL_SERVICE_ADDRESS", Self::USUAL.temporal)?,
            server,
            model: server.saturating_add(1),
        })
    }
}

/// What the runner is told of a variable: yours where it is handed on, else the fixed one.
fn told<'a>(settings: &'a Settings, env: &'a Env, name: &str) -> Option<&'a str> {
    let handed_on = settings.run.pass_env.iter().any(|one| one == name);
    env.get(name)
        .filter(|_| handed_on)
        .or(settings.run.env.get(name).map(String::as_str))
}

/// How long a part may take until it answers.
const BUDGET: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
const ONE_QUESTION: Duration = Duration::from_secs(10);

/// What the devserver's image starts its program with.
const DEVSERVER: [&str; 3] = ["/venv/bin/python", "-m", "devserver"];

/// The names of one stack's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub temporal: String,
    pub server: String,
    pub runner: String,
}

impl Names {
    /// Beside the configured runner.
    pub fn beside(runner: &str) -> Self {
        Self {
            temporal: format!("{runner}-temporal"),
            server: format!("{runner}-server"),
            runner: runner.to_owned(),
        }
    }
}

/// The devserver's image: built here, for here.
pub fn server_image(settings: &Settings) -> String {
    let path = settings.image.repository.path();
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("localhost/{name}-devserver:{}", settings.version.value)
}

/// The model that answers without a key: what the runner is told of it.
pub fn scripted_model(ports: Ports) -> [(&'static str, String); 4] {
    [
        ("STIGMER_LLM_PROVIDER", "openai".to_owned()),
        ("STIGMER_LLM_MODEL", "scripted".to_owned()),
        (
            "STIGMER_LLM_BASE_URL",
            format!("http://localhost:{}/v1", ports.model),
        ),
        // The model asks for none, and the runner for some.
        ("STIGMER_LLM_API_KEY", "none-needed".to_owned()),
    ]
}

/// A container of the stack that is not the runner.
struct Part<'a> {
    name: &'a str,
    image: &'a str,
    what: &'static str,
    network: Network,
    ports: Vec<u16>,
    command: Vec<String>,
    /// The stack's mark, for `down`; none where the caller removes it itself.
    mark: Option<&'a str>,
}

impl Part<'_> {
    fn run(&self, engine: &EngineFacts, person: User) -> Cmd {
        let mut labels = vec![(label::CONTAINER.to_owned(), self.what.to_owned())];
        labels.extend(
            self.mark
                .map(|mark| (label::STACK.to_owned(), mark.to_owned())),
        );
        let mut run = Run::of(self.name, self.image, person, self.network.clone());
        // A server of somebody else's may want to write somewhere.
        run.hardening.read_only = false;
        engine.run_plain(&Run {
            labels,
            ports: self.ports.clone(),
            command: self.command.clone(),
            ..run
        })
    }
}

/// Temporal's server for development, in memory.
fn temporal<'a>(settings: &'a Settings, name: &'a str, network: Network, ports: Ports) -> Part<'a> {
    let everywhere = matches!(network, Network::Bridge);
    let ip = if everywhere { "0.0.0.0" } else { "127.0.0.1" };
    let port = ports.temporal.to_string();
    let command = [
        "server",
        "start-dev",
        "--headless",
        "--ip",
        ip,
        "--port",
        &port,
    ];
    Part {
        name,
        image: &settings.stack.temporal_image,
        what: label::TEMPORAL,
        network,
        ports: vec![ports.temporal],
        command: command.map(str::to_owned).into(),
        mark: None,
    }
}

/// The development stigmer-server, with its model.
fn server<'a>(
    name: &'a str,
    image: &'a str,
    network: Network,
    temporal_host: &str,
    ports: Ports,
) -> Part<'a> {
    let everywhere = matches!(network, Network::Bridge);
    let ip = if everywhere { "0.0.0.0" } else { "127.0.0.1" };
    let temporal = format!("{temporal_host}:{}", ports.temporal);
    let (port, model) = (ports.server.to_string(), ports.model.to_string());
    let command = [
        "serve",
        "--host",
        ip,
        "--port",
        &port,
        "--model-port",
        &model,
        "--temporal",
        &temporal,
    ];
    Part {
        name,
        image,
        what: label::SERVER,
        network,
        ports: vec![ports.server, ports.model],
        command: command.map(str::to_owned).into(),
        mark: None,
    }
}

/// Builds the devserver's image, from this checkout.
fn build_server(
    settings: &Settings,
    facts: &build_image::BuildFacts,
) -> Result<Vec<Step>, Failure> {
    let mut build = build_image::request(settings, facts, None)?;
    build.target.clone_from(&settings.stack.server_target);
    build.references = vec![server_image(settings)];
    let cmd = facts.engine.build(&build);
    let mut steps: Vec<_> = build_image::cache_step(facts).into_iter().collect();
    steps.push(Step::new(cmd, Output::Talk).say("Building", "the development stigmer-server"));
    Ok(steps)
}

/// Whether the server's image is there.
///
/// # Errors
/// When its name is somebody else's: a build would take it.
fn has_server_image(cx: &Context, engine: &EngineFacts) -> Result<bool, Failure> {
    let reference = server_image(cx.settings);
    match find_image(cx, engine, &reference)? {
        None => Ok(false),
        Some(image) if image.is_ours() => Ok(true),
        Some(_) => Err(build_image::not_ours(cx.settings, engine, &reference)),
    }
}

/// The image, if the engine has it.
///
/// # Errors
/// When a signal told us to stop.
fn find_image(
    cx: &Context,
    engine: &EngineFacts,
    reference: &str,
) -> Result<Option<Image>, Failure> {
    let cmd = image::inspect_cmd(&engine.engine.program, &[reference]);
    let answer = cx.exec.ask(&cmd, ONE_QUESTION);
    cx.exec.check()?;
    let found = image::read_inspect(&answer, ONE_QUESTION).unwrap_or_default();
    Ok(found.into_iter().next())
}

/// Asks until a question has a good answer.
///
/// # Errors
/// When it has none within the budget: what it said last, and the last lines of the containers
/// that it depends on, its own at the end.
fn wait_until(
    cx: &Context,
    engine: &EngineFacts,
    names: &[&str],
    mut ask: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let clock = Clock::start();
    let name = names.last().copied().unwrap_or_default();
    loop {
        let Err(why) = ask() else {
            cx.ui.progress_done();
            return Ok(());
        };
        cx.exec.check()?;
        if clock.elapsed() > BUDGET {
            cx.ui.progress_done();
            for name in names {
                let logs = engine.engine.logs(name, false, Some(10), None);
                if let Ok(done) = cx.exec.ask(&logs, ONE_QUESTION) {
                    cx.ui.line(&format!("the last lines of {name}'s log:"));
                    cx.ui.raw(&done.stdout);
                    cx.ui.raw(&done.stderr);
                }
            }
            let budget = human_time(BUDGET);
            return Err(
                Failure::new(format!("`{name}` did not answer within {budget}: {why}")).into(),
            );
        }
        let time = human_time(clock.elapsed());
        cx.ui
            .progress(&format!("     Waiting for {name}, {time} ({why})"));
        cx.exec.pause(PAUSE).map_err(Failure::signal)?;
    }
}

/// Whether a command in a container succeeds.
fn succeeds(cx: &Context, cmd: &Cmd) -> Result<(), String> {
    match cx.exec.ask(cmd, ONE_QUESTION) {
        Ok(done) if done.ok() => Ok(()),
        Ok(done) => Err(last_words(&done)),
        Err(why) => Err(format!("{why:?}")),
    }
}

/// The devserver's own word on its health.
fn server_health(engine: &EngineFacts, name: &str, ports: Ports) -> Cmd {
    let url = format!("http://127.0.0.1:{}/health", ports.model);
    let words = ["health", "--url", &url];
    engine
        .engine
        .exec(name, DEVSERVER.iter().copied().chain(words))
}

/// Removes one of our containers: asked to stop first, where it runs.
fn remove_steps(engine: &EngineFacts, name: &str, container: &Container, grace: Duration) -> Plan {
    let mut plan = Plan::default();
    if container.state.running {
        let stop = Step::new(engine.engine.stop(name, grace), Output::Quiet);
        plan.push(stop.say("Stopping", name));
    }
    plan.push(Step::new(engine.engine.remove(name), Output::Quiet));
    plan
}
