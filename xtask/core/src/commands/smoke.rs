//! `smoke`: tests an image with an agent. It starts the whole stack on a network of its own, has an agent
//! write a file, restarts the runner, and continues the same session.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::User, error::Failure, ui::human_time},
    build::facts::BuildFacts,
    cli::{FlavourOption, JsonOption, VersionOption},
    commands::{
        checks::{self, CheckResult},
        command::Command,
        health,
        run_local::environment::ContainerEnv,
        stack::{
            NAMESPACE, Names, Ports, SERVER_ADDRESS, Server, TASK_QUEUE, TEMPORAL_ADDRESS,
            build_devserver_steps, devserver_cmd, devserver_image, find_devserver_image, model_on,
            server, show_logs_on_failure, temporal, until_it_succeeds, wait_for_devserver,
        },
    },
    engine::{EngineFacts, label, run::Run},
    exec::Finished,
    facts::context::{Context, missing_image_failure},
    plan::{Cmd, Output, Plan, Step},
    settings::{Network, Restart, Settings},
};

/// How long one execution may take.
const EXECUTION_LIMIT: std::time::Duration = std::time::Duration::from_secs(90);

/// Test the image with an agent at work, isolated from everything else
#[derive(Args, Clone, Debug)]
pub struct Smoke {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    json: JsonOption,
}

/// What the plan needs to know.
struct SmokeFacts {
    build: BuildFacts,
    reference: String,
    /// The image's health check.
    check: Vec<String>,
    has_temporal_image: bool,
    invoking_user: User,
    /// Makes the names of this run differ from those of another at the same time.
    run_id: u32,
}

/// The plans, in their order. What one prints decides whether the next one runs.
struct SmokePlans {
    /// Pulls and builds the missing images.
    images: Plan,
    /// Starts the servers and waits for them.
    servers: Plan,
    /// Starts the runner and waits until it is healthy.
    runner: Plan,
    /// Asks the agent, before and after a restart of the runner: see [`Answers`].
    executions: Plan,
    /// Removes everything. It has no steps but its cleanup.
    cleanup: Plan,
}

impl SmokePlans {
    fn all(&self) -> [&Plan; 5] {
        [
            &self.images,
            &self.servers,
            &self.runner,
            &self.executions,
            &self.cleanup,
        ]
    }

    fn render(&self) -> String {
        self.all().iter().map(|plan| plan.render()).collect()
    }
}

/// The variables of the servers. Those of `smoke` have the runner's defaults.
const OF_SERVERS: &[&str] = &[TEMPORAL_ADDRESS, SERVER_ADDRESS, NAMESPACE, TASK_QUEUE];

/// The runner as its image is, with the scripted model.
fn runner(settings: &Settings, engine: &EngineFacts, names: &Names, facts: &SmokeFacts) -> Cmd {
    let mut env = ContainerEnv::default();
    let model = model_on(Ports::DEFAULT);
    for (name, value) in &settings.run.env {
        let is_ours = OF_SERVERS.contains(&name.as_str());
        if !is_ours && model.iter().all(|(other, _)| other != name) {
            env.add(name, value.clone());
        }
    }
    // The key of the scripted model is not a secret.
    env.shown
        .extend(model.map(|(name, value)| (name.to_owned(), value)));
    engine.run_as_image_user(&Run {
        labels: vec![(label::CONTAINER.to_owned(), label::TEST.to_owned())],
        // A volume of its own, which outlives a restart and is removed in the end.
        volumes: vec![format!("{}:/workspace", names.runner)],
        env: env.shown,
        env_by_name: env.by_name,
        hardening: settings.run.hardening.clone(),
        stop_grace: settings.run.stop_grace,
        restart: Restart::No,
        log_options: Vec::new(),
        ..Run::restricted(
            &names.runner,
            &facts.reference,
            facts.invoking_user,
            network_of(&names.temporal),
        )
    })
}

/// The network of another container: all containers share one loopback, which nothing else can reach.
fn network_of(container: &str) -> Network {
    Network::Named(format!("container:{container}"))
}

fn names(settings: &Settings, facts: &SmokeFacts) -> Names {
    let runner = format!("{}-smoke-{}", settings.run.container, facts.run_id);
    Names::for_runner(&runner)
}

fn plan(settings: &Settings, facts: &SmokeFacts) -> Result<SmokePlans, Failure> {
    let engine = &facts.build.engine;
    let names = names(settings, facts);
    let mut images = Plan::default();
    if !facts.has_temporal_image {
        let image = &settings.stack.temporal_image;
        let pull = Step::new(engine.engine.pull(image), Output::Progress);
        images.push(pull.status("Pulling", image.as_str()));
    }
    // Its sources may have changed since it was built.
    images
        .steps
        .extend(build_devserver_steps(settings, &facts.build)?);
    let devserver_image = devserver_image(settings);
    let quiet = |cmd: Cmd| Step::new(cmd, Output::Quiet);
    let start = |server: &Server| quiet(server.run(engine, facts.invoking_user));
    let isolated = Network::Named("none".to_owned());
    let servers = vec![
        start(&temporal(
            settings,
            &names.temporal,
            isolated,
            Ports::DEFAULT,
        ))
        .status(
            "Starting",
            "Temporal, a stigmer-server and the runner, isolated from everything else",
        ),
        start(&server(
            &names.server,
            &devserver_image,
            network_of(&names.temporal),
            "localhost",
            Ports::DEFAULT,
        )),
        wait_for_devserver(engine, &names.server, Ports::DEFAULT),
    ];
    let healthy = || until_it_succeeds(engine.engine.exec(&names.runner, facts.check.clone()));
    let ask = |message: &str| {
        let cmd = devserver_cmd(
            engine,
            &names.server,
            ["ask", "--session", "smoke", message],
        );
        quiet(cmd).limit(EXECUTION_LIMIT).ignore_failure()
    };
    let show_file = ["/bin/sh", "-c", "cat $(find /workspace -name haiku.txt)"];
    let executions = vec![
        ask("write a haiku into haiku.txt"),
        quiet(engine.engine.exec(&names.runner, show_file)).ignore_failure(),
        quiet(engine.engine.cmd().args(["restart", &names.runner]))
            .status("Restarting", "the runner"),
        healthy(),
        ask("read haiku.txt"),
        ask("what did I ask before?"),
    ];
    let remove = |name: &str| quiet(engine.engine.remove_with_volumes(name)).ignore_failure();
    let remove_volume = ["volume", "rm", "--force", &names.runner];
    let cleanup = vec![
        remove(&names.runner),
        remove(&names.server),
        remove(&names.temporal),
        quiet(engine.engine.cmd().args(remove_volume)).ignore_failure(),
    ];
    Ok(SmokePlans {
        images,
        servers: servers.into(),
        runner: vec![quiet(runner(settings, engine, &names, facts)), healthy()].into(),
        executions: executions.into(),
        cleanup: Plan {
            steps: Vec::new(),
            cleanup,
        },
    })
}

impl SmokeFacts {
    fn gather(cx: &Context) -> Result<Self> {
        let settings = cx.settings;
        let reference = cx.reference()?;
        let build = BuildFacts::gather(cx)?;
        let engine = &build.engine.engine;
        let images = cx.images_of(engine, std::slice::from_ref(&reference))?;
        let image = images
            .first()
            .ok_or_else(|| missing_image_failure(settings, &reference))?;
        let check = health::command(Some(image), &settings.health).ok_or_else(|| {
            Failure::new(format!(
                "the engine reports no health check for `{reference}`"
            ))
            .hint("set `health.command` in xtask.toml")
        })?;
        let temporal_image = std::slice::from_ref(&settings.stack.temporal_image);
        find_devserver_image(cx, &build.engine)?;
        Ok(Self {
            has_temporal_image: !cx.images_of(engine, temporal_image)?.is_empty(),
            reference,
            check,
            build,
            invoking_user: cx.env.user,
            run_id: std::process::id(),
        })
    }
}

impl Command for Smoke {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let facts = SmokeFacts::gather(cx)?;
        if cx.dry_run {
            return Ok(cx.ui.print_plan(&plan(cx.settings, &facts)?.render())?);
        }
        let clock = crate::base::ui::Clock::start();
        let checks = run_checks(cx, &facts)?;
        let engine = &facts.build.engine;
        checks::report(cx, self.json, &facts.reference, engine, &checks, clock)
    }
}

/// Tests the version's image before it is published.
///
/// # Errors
/// When a check fails.
pub fn require_success(cx: &Context) -> Result<()> {
    let checks = run_checks(cx, &SmokeFacts::gather(cx)?)?;
    let failed = checks.iter().find(|check| !check.ok);
    failed.map_or(Ok(()), |check| {
        let message = format!(
            "`smoke` failed, so nothing was pushed: {}: {}",
            check.name, check.detail
        );
        let options = cx.settings.version_options();
        Err(Failure::new(message)
            .hint(format!("run it by itself: `cargo xtask smoke {options}`"))
            .into())
    })
}

/// Runs all plans. The cleanup runs also after a failure or Ctrl-C.
fn run_checks(cx: &Context, facts: &SmokeFacts) -> Result<Vec<CheckResult>> {
    let plans = plan(cx.settings, facts)?;
    let names = names(cx.settings, facts);
    let checks = cx
        .exec
        .run(&plans.images)
        .and_then(|()| run_plans(cx, &plans));
    let containers = [&names.temporal, &names.server, &names.runner].map(String::as_str);
    let checks = show_logs_on_failure(cx, &facts.build.engine, &containers, checks);
    cx.exec.clean_up(&plans.cleanup);
    checks
}

fn run_plans(cx: &Context, plans: &SmokePlans) -> Result<Vec<CheckResult>> {
    cx.exec.run(&plans.servers)?;
    let clock = crate::base::ui::Clock::start();
    cx.exec.run(&plans.runner)?;
    let healthy = CheckResult::new("healthy", true, format!("in {clock}"));
    let outputs = cx.exec.outputs(&plans.executions)?;
    let [wrote, haiku, _restarted, _healthy, read, remembered] = <[Finished; 6]>::try_from(outputs)
        .map_err(|_| Failure::new("internal error: `smoke` has other steps than results"))?;
    let first_line = haiku.stdout.lines().next().unwrap_or("").trim();
    let lines = haiku.stdout.lines().count();
    Ok(vec![
        healthy,
        CheckResult::new("an agent runs", wrote.ok(), answer(&wrote)),
        CheckResult::new(
            "it wrote its file",
            haiku.ok() && lines > 0,
            format!("{lines} lines"),
        ),
        CheckResult::new(
            "files are kept",
            read.ok() && !first_line.is_empty() && read.stdout.contains(first_line),
            answer(&read),
        ),
        CheckResult::new(
            "a session remembers",
            remembered.ok() && remembered.stdout.contains("write a haiku"),
            answer(&remembered),
        ),
    ])
}

/// The first line of an execution's answer and its duration, or why there is no answer.
fn answer(execution: &Finished) -> String {
    if execution.ok() {
        let first = execution.stdout.lines().next().unwrap_or_default();
        format!("in {}: {first}", human_time(execution.took))
    } else {
        execution.stderr.trim().replace('\n', "; ")
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Smoke {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let line = "smoke --version dev-me";
        machine.rendered_examples(&[line], |_: &Self, settings, _| {
            let facts = SmokeFacts {
                build: machine.build_facts(),
                reference: machine.reference(settings),
                check: vec!["probe".to_owned()],
                has_temporal_image: false,
                invoking_user: machine.user,
                run_id: 7,
            };
            Ok(plan(settings, &facts)?.render())
        })
    }
}
