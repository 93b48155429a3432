//! `up`: starts a Temporal server and a development stigmer-server if none answers, and the runner.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::User, error::Failure},
    build::facts::BuildFacts,
    cli::VersionOption,
    commands::{
        build_image,
        command::Command,
        removal,
        run_local::start::{BACKGROUND, StartedBy, start},
        stack::{
            Names, Ports, READY_BUDGET, build_devserver_steps, devserver_image,
            has_devserver_image, scripted_model, server, show_logs_on_failure, temporal,
            wait_for_devserver,
        },
    },
    engine::container::Container,
    facts::{
        context::{Context, refuse_foreign},
        environment::{RunnerEnv, read_env_file},
        host,
    },
    plan::{Output, Plan, Step},
    settings::{Network, Publish, Settings},
};

/// Start the whole stack: Temporal, a stigmer-server with a scripted model, and the runner
#[derive(Args, Clone, Debug)]
pub struct Up {
    #[command(flatten)]
    version: VersionOption,
}

/// The server's flags for what it shares with the runner, each with the runner's variable.
const SHARED_WITH_RUNNER: &[(&str, &str)] = &[
    ("--namespace", "TEMPORAL_NAMESPACE"),
    (
        "--runner-task-queue",
        "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE",
    ),
];

/// The variables that choose a model. If one of them is set, the runner does not use the scripted one.
const MODEL_VARIABLES: &[&str] = &[
    "STIGMER_LLM_PROVIDER",
    "STIGMER_LLM_MODEL",
    "STIGMER_LLM_BASE_URL",
    "STIGMER_LLM_API_KEY",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
];

/// What the plans need to know.
struct UpFacts {
    build: BuildFacts,
    ports: Ports,
    /// The server's flags of [`SHARED_WITH_RUNNER`].
    shared: Vec<String>,
    temporal: ServerFacts,
    server: ServerFacts,
    has_runner_image: bool,
    has_model: bool,
    invoking_user: User,
}

/// The state of one server.
struct ServerFacts {
    /// Whether something answers at its port, ours or not.
    answers: bool,
    /// The container of its name.
    container: Option<Container>,
    has_image: bool,
}

impl UpFacts {
    fn gather(cx: &Context, names: &Names) -> Result<Self> {
        let settings = cx.settings;
        let file = read_env_file(settings, cx.env)?;
        let runner = RunnerEnv {
            settings,
            env: cx.env,
            file: file.as_ref(),
        };
        let ports = Ports::of(&runner)?;
        let build = BuildFacts::gather(cx)?;
        let engine = &build.engine;
        let has = |reference: &str| -> Result<bool> {
            Ok(!cx.images_of(&engine.engine, &[reference])?.is_empty())
        };
        let server = |name: &str, port: u16, has_image: bool| -> Result<ServerFacts> {
            let container = cx.container_of(&engine.engine, name)?;
            if let Some(container) = &container {
                refuse_foreign(name, container)?;
            }
            Ok(ServerFacts {
                answers: host::listens(&format!("localhost:{port}")),
                container,
                has_image,
            })
        };
        Ok(Self {
            temporal: server(
                &names.temporal,
                ports.temporal,
                has(&settings.stack.temporal_image)?,
            )?,
            server: server(
                &names.server,
                ports.server,
                has_devserver_image(cx, engine)?,
            )?,
            has_runner_image: has(&cx.reference()?)?,
            has_model: MODEL_VARIABLES
                .iter()
                .any(|name| runner.value(name).is_some()),
            shared: SHARED_WITH_RUNNER
                .iter()
                .filter_map(|(flag, name)| Some((flag, runner.value(name)?)))
                .flat_map(|(flag, value)| [(*flag).to_owned(), value.to_owned()])
                .collect(),
            invoking_user: cx.env.user,
            ports,
            build,
        })
    }

    /// Whether the runner uses the scripted model: none is configured, and the server is ours.
    fn scripted(&self) -> bool {
        !self.has_model && (!self.server.answers || self.server.container.is_some())
    }
}

/// Starts Temporal; empty if something answers at its port.
fn plan_temporal(settings: &Settings, facts: &UpFacts, names: &Names) -> Plan {
    let mut plan = Plan::default();
    if facts.temporal.answers {
        return plan;
    }
    let engine = &facts.build.engine;
    if !facts.temporal.has_image {
        let image = &settings.stack.temporal_image;
        let pull = Step::new(engine.engine.pull(image), Output::Progress);
        plan.push(pull.status("Pulling", image.as_str()));
    }
    if let Some(old) = &facts.temporal.container {
        let grace = settings.run.stop_grace;
        let name = names.temporal.as_str();
        plan.steps
            .extend(removal::steps(&engine.engine, name, name, old, grace));
    }
    let network = engine.network(&Network::Auto);
    let mut server = temporal(settings, &names.temporal, network, facts.ports);
    server.stack = Some(&names.runner);
    let start = Step::new(server.run(engine, facts.invoking_user), Output::Quiet);
    plan.push(start.status("Starting", format!("Temporal as {}", names.temporal)));
    plan
}

/// Starts the development stigmer-server and waits for it; empty if something answers at its port.
///
/// # Errors
/// When its image cannot be planned.
fn plan_server(settings: &Settings, facts: &UpFacts, names: &Names) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    if facts.server.answers {
        return Ok(plan);
    }
    let engine = &facts.build.engine;
    if !facts.server.has_image {
        plan.steps
            .extend(build_devserver_steps(settings, &facts.build)?);
    }
    if let Some(old) = &facts.server.container {
        let grace = settings.run.stop_grace;
        let name = names.server.as_str();
        plan.steps
            .extend(removal::steps(&engine.engine, name, name, old, grace));
    }
    let network = engine.network(&Network::Auto);
    let host = engine.host_name_on(&network);
    let image = devserver_image(settings);
    let mut server = server(&names.server, &image, network, host, facts.ports);
    server.command.extend(facts.shared.iter().cloned());
    server.stack = Some(&names.runner);
    let start = Step::new(server.run(engine, facts.invoking_user), Output::Quiet);
    plan.push(start.status("Starting", format!("a stigmer-server as {}", names.server)));
    plan.push(wait_for_devserver(engine, &names.server, facts.ports));
    Ok(plan)
}

/// Waits until something listens on a port of this machine. It is not a step, because no process asks.
fn wait_for_port(cx: &Context, name: &str, port: u16) -> Result<()> {
    let clock = crate::base::ui::Clock::start();
    while !host::listens(&format!("localhost:{port}")) {
        if clock.elapsed() > READY_BUDGET {
            cx.ui.draw(&[]);
            return Err(Failure::new(format!(
                "`{name}` did not listen on port {port} within {}",
                crate::base::ui::human_time(READY_BUDGET)
            ))
            .into());
        }
        cx.ui.draw(&[format!(
            "     Waiting for {name} to listen on port {port}, {clock}"
        )]);
        cx.exec
            .pause(std::time::Duration::from_millis(200))
            .map_err(Failure::signal)?;
    }
    cx.ui.draw(&[]);
    Ok(())
}

impl Command for Up {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let names = Names::for_runner(&cx.settings.run.container);
        let facts = UpFacts::gather(cx, &names)?;
        let engine = &facts.build.engine;
        let temporal = plan_temporal(cx.settings, &facts, &names);
        let server = plan_server(cx.settings, &facts, &names)?;
        if temporal.steps.is_empty() {
            let found = format!("Temporal on localhost:{}", facts.ports.temporal);
            cx.ui.status("Found", &found);
        }
        cx.run_or_print(&temporal)?;
        if !cx.dry_run && !temporal.steps.is_empty() {
            let waited = wait_for_port(cx, &names.temporal, facts.ports.temporal);
            show_logs_on_failure(cx, engine, &[&names.temporal], waited)?;
        }
        if server.steps.is_empty() {
            let found = format!("stigmer-server on localhost:{}", facts.ports.server);
            cx.ui.status("Found", &found);
        }
        show_logs_on_failure(cx, engine, &[&names.server], cx.run_or_print(&server))?;
        if !facts.has_runner_image && cx.settings.channel.publish != Publish::Yes {
            let defaults = build_image::BuildImage::default();
            let plan = build_image::plan(cx.settings, &facts.build, &defaults)?;
            cx.run_or_print(&plan)?;
        }
        start_runner(cx, &facts)
    }
}

/// Starts the runner as `run-local` does. With the scripted model, its variables come first.
fn start_runner(cx: &Context, facts: &UpFacts) -> Result<()> {
    let mut settings = cx.settings.clone();
    if facts.scripted() {
        for (name, value) in scripted_model(facts.ports) {
            settings.run.env.insert(name.to_owned(), value);
        }
        cx.ui.hint("set `STIGMER_LLM_PROVIDER` and its key to use a real model; the scripted model needs no key and answers only a few prompts");
    }
    let cx = Context {
        settings: &settings,
        ..*cx
    };
    start(&cx, BACKGROUND, StartedBy::Up)?;
    if !cx.dry_run {
        // `ask` runs in the image of the same version.
        let version = cx.arguments.version.as_ref();
        let version = version.map_or(String::new(), |version| format!("--version {version} "));
        cx.ui.hint(&format!(
            "next: `cargo xtask ask {version}\"write a haiku into haiku.txt\"`, and `cargo xtask down`"
        ));
    }
    Ok(())
}

#[cfg(test)]
impl crate::commands::testing::Examples for Up {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let missing = || ServerFacts {
            answers: false,
            container: None,
            has_image: false,
        };
        machine.rendered_examples(&["up --version dev-me"], |_: &Self, settings, _| {
            let names = Names::for_runner(&settings.run.container);
            let facts = UpFacts {
                build: machine.build_facts(),
                ports: Ports::DEFAULT,
                shared: vec!["--namespace".to_owned(), "default".to_owned()],
                temporal: missing(),
                server: missing(),
                has_runner_image: true,
                has_model: false,
                invoking_user: machine.user,
            };
            let temporal = plan_temporal(settings, &facts, &names).render();
            Ok(temporal + &plan_server(settings, &facts, &names)?.render())
        })
    }
}
