//! `smoke`: an image's proof. The whole stack apart from the world, an agent that writes a file, a
//! runner that is restarted, and the same session again.

use std::time::Duration;

use anyhow::Result;

use super::{
    DEVSERVER, Names, Part, Ports, build_server, find_image, has_server_image, scripted_model,
    server, server_health, server_image, succeeds, temporal, wait_until,
};
use crate::{
    cli::SmokeArgs,
    commands::{
        Context, build_image,
        checks::{self, Check},
        health,
        run_local::{environment::ContainerEnv, hardening},
    },
    engine::{EngineFacts, label, run::Run},
    env::User,
    error::Failure,
    plan::{Cmd, Output, Plan, Step},
    settings::{Network, Settings},
    ui::Clock,
};

/// The longest that one execution may take.
const EXECUTION: Duration = Duration::from_secs(90);

/// Everything that will run, in its order.
pub struct SmokePlan {
    pub images: Plan,
    pub temporal: Step,
    pub server: Step,
    pub server_health: Cmd,
    pub runner: Step,
    pub runner_health: Cmd,
    /// The agent writes a file.
    pub write: Cmd,
    /// What is in the file, in the runner's workspace.
    pub look: Cmd,
    pub restart: Step,
    /// The same session again: what it wrote, and what it was asked.
    pub read: Cmd,
    pub remember: Cmd,
    pub after: Plan,
    names: Names,
}

impl SmokePlan {
    fn render(&self) -> String {
        let quiet = |cmd: &Cmd| Step::new(cmd.clone(), Output::Quiet);
        let steps = vec![
            self.temporal.clone(),
            self.server.clone(),
            quiet(&self.server_health),
            self.runner.clone(),
            quiet(&self.runner_health),
            quiet(&self.write),
            quiet(&self.look),
            self.restart.clone(),
            quiet(&self.runner_health),
            quiet(&self.read),
            quiet(&self.remember),
        ];
        self.images.render() + &Plan { steps }.render() + &self.after.render()
    }
}

/// The runner, as its image is, but for the model.
fn runner(
    settings: &Settings,
    engine: &EngineFacts,
    names: &Names,
    person: User,
    image: &str,
) -> Cmd {
    let mut env = ContainerEnv::default();
    let model = scripted_model(Ports::USUAL);
    for (name, value) in &settings.run.env {
        if model.iter().all(|(other, _)| other != name) {
            env.fix(name, value.clone());
        }
    }
    // Its key is none: it can be shown.
    env.shown
        .extend(model.map(|(name, value)| (name.to_owned(), value)));
    engine.run_plain(&Run {
        labels: vec![(label::CONTAINER.to_owned(), label::TEST.to_owned())],
        // A volume of its own, which outlives a restart and goes with the rest.
        volumes: vec![format!("{}:/workspace", names.runner)],
        env: env.shown,
        env_by_name: env.by_name,
        hardening: hardening(settings),
        stop_grace: settings.run.stop_grace,
        ..Run::of(&names.runner, image, person, beside(&names.temporal))
    })
}

/// The network of another container: all of them are on one loopback, which nobody else is on.
fn beside(container: &str) -> Network {
    Network::Named(format!("container:{container}"))
}

/// What a plan needs to know.
pub struct SmokeFacts {
    pub build: build_image::BuildFacts,
    pub reference: String,
    pub check: Vec<String>,
    pub has_temporal_image: bool,
    pub has_server_image: bool,
    pub person: User,
    /// Tells two runs at once apart.
    pub run_id: u32,
}

pub fn plan(settings: &Settings, facts: &SmokeFacts) -> Result<SmokePlan, Failure> {
    let engine = &facts.build.engine;
    let names = Names::beside(&format!(
        "{}-smoke-{}",
        settings.run.container, facts.run_id
    ));
    let mut images = Plan::default();
    if !facts.has_temporal_image {
        let image = &settings.stack.temporal_image;
        images.push(
            Step::new(engine.engine.pull(image), Output::Talk).say("Pulling", image.as_str()),
        );
    }
    if !facts.has_server_image {
        images.steps.extend(build_server(settings, &facts.build)?);
    }
    let image = server_image(settings);
    let start = |part: &Part| Step::new(part.run(engine, facts.person), Output::Quiet);
    let apart = Network::Named("none".to_owned());
    let ask = |message: &str| {
        let words = ["ask", "--session", "smoke", message];
        engine
            .engine
            .exec(&names.server, DEVSERVER.iter().copied().chain(words))
    };
    let remove = |name: &str| Step::new(engine.engine.remove(name), Output::Quiet).or_go_on();
    let volume = engine
        .engine
        .cmd()
        .args(["volume", "rm", "--force", &names.runner]);
    Ok(SmokePlan {
        images,
        temporal: start(&temporal(settings, &names.temporal, apart, Ports::USUAL)).say(
            "Starting",
            "Temporal, a stigmer-server and the runner, apart from all else",
        ),
        server: start(&server(
            &names.server,
            &image,
            beside(&names.temporal),
            "localhost",
            Ports::USUAL,
        )),
        server_health: server_health(engine, &names.server, Ports::USUAL),
        runner: Step::new(
            runner(settings, engine, &names, facts.person, &facts.reference),
            Output::Quiet,
        ),
        runner_health: engine.engine.exec(&names.runner, facts.check.clone()),
        write: ask("write a haiku into haiku.txt"),
        look: engine.engine.exec(
            &names.runner,
            ["/bin/sh", "-c", "cat $(find /workspace -name haiku.txt)"],
        ),
        restart: Step::new(
            engine.engine.cmd().args(["restart", &names.runner]),
            Output::Quiet,
        )
        .say("Restarting", "the runner"),
        read: ask("read haiku.txt"),
        remember: ask("what did I ask before?"),
        after: Plan {
            steps: vec![
                remove(&names.runner),
                remove(&names.server),
                remove(&names.temporal),
                Step::new(volume, Output::Quiet).or_go_on(),
            ],
        },
        names,
    })
}

pub fn run(cx: &Context, args: &SmokeArgs) -> Result<()> {
    let facts = facts(cx)?;
    if cx.dry_run {
        return Ok(cx.ui.result(&plan(cx.settings, &facts)?.render())?);
    }
    let clock = Clock::start();
    let checks = prove(cx, &facts)?;
    let engine = facts.build.engine.describe();
    checks::report(cx, args.json, &facts.reference, &engine, &checks, clock)
}

/// What `push-image` and `push-multiarch` ask of an image that is here, before they publish it.
///
/// # Errors
/// When it does not keep a promise.
pub fn must_hold(cx: &Context) -> Result<()> {
    let checks = prove(cx, &facts(cx)?)?;
    let failed = checks.iter().find(|check| !check.ok);
    failed.map_or(Ok(()), |check| {
        let message = format!(
            "`smoke` failed, so nothing was pushed: {}: {}",
            check.name, check.detail
        );
        let version = &cx.settings.version.value;
        Err(Failure::new(message)
            .hint(format!(
                "see it by itself: `cargo xtask smoke --version {version}`"
            ))
            .into())
    })
}

fn prove(cx: &Context, facts: &SmokeFacts) -> Result<Vec<Check>> {
    let plan = plan(cx.settings, facts)?;
    let checks = cx
        .exec
        .run(&plan.images)
        .and_then(|()| carry_out(cx, facts, &plan));
    // Also after a failure or Ctrl-C: all of it goes.
    cx.exec.cleaning(|| {
        for step in &plan.after.steps {
            let _ = cx.exec.step(step);
        }
    });
    checks
}

fn facts(cx: &Context) -> Result<SmokeFacts> {
    let settings = cx.settings;
    let reference = cx.reference()?;
    let build = build_image::facts(cx)?;
    let has = |reference: &str| find_image(cx, &build.engine, reference);
    let image = has(&reference)?.ok_or_else(|| {
        let version = &settings.version.value;
        Failure::new(format!("there is no image `{reference}` here")).hint(format!(
            "build it: `cargo xtask build-image --version {version}`"
        ))
    })?;
    let check = health::command(Some(&image), &settings.health).ok_or_else(|| {
        Failure::new(format!(
            "`{reference}` has no health check that this engine can see"
        ))
        .hint("set `health.command` in xtask.toml")
    })?;
    Ok(SmokeFacts {
        has_temporal_image: has(&settings.stack.temporal_image)?.is_some(),
        has_server_image: has_server_image(cx, &build.engine)?,
        reference,
        check,
        build,
        person: cx.env.user,
        run_id: std::process::id(),
    })
}

fn carry_out(cx: &Context, facts: &SmokeFacts, plan: &SmokePlan) -> Result<Vec<Check>> {
    let engine = &facts.build.engine;
    let Names {
        temporal,
        server,
        runner,
    } = &plan.names;
    let mut checks = Vec::new();
    cx.exec.step(&plan.temporal)?;
    cx.exec.step(&plan.server)?;
    wait_until(cx, engine, &[temporal, server], || {
        succeeds(cx, &plan.server_health)
    })?;
    let clock = Clock::start();
    cx.exec.step(&plan.runner)?;
    wait_until(cx, engine, &[temporal, server, runner], || {
        succeeds(cx, &plan.runner_health)
    })?;
    checks.push(Check::new("healthy", true, format!("in {clock}")));

    let clock = Clock::start();
    let wrote = ask(cx, &plan.write)?;
    checks.push(Check::new(
        "an agent runs",
        wrote.is_ok(),
        told(&wrote, clock),
    ));
    let haiku = cx
        .exec
        .step(&Step::new(plan.look.clone(), Output::Quiet).or_go_on())?;
    let lines = haiku.stdout.lines().count();
    checks.push(Check::new(
        "it wrote its file",
        haiku.ok() && lines > 0,
        format!("{lines} lines"),
    ));

    cx.exec.step(&plan.restart)?;
    wait_until(cx, engine, &[temporal, server, runner], || {
        succeeds(cx, &plan.runner_health)
    })?;
    let clock = Clock::start();
    let read = ask(cx, &plan.read)?;
    let first = haiku.stdout.lines().next().unwrap_or("?").trim().to_owned();
    let kept = read
        .as_ref()
        .is_ok_and(|answer| !first.is_empty() && answer.contains(&first));
    checks.push(Check::new("files are kept", kept, told(&read, clock)));
    let clock = Clock::start();
    let memory = ask(cx, &plan.remember)?;
    let remembers = memory
        .as_ref()
        .is_ok_and(|answer| answer.contains("write a haiku"));
    checks.push(Check::new(
        "a session remembers",
        remembers,
        told(&memory, clock),
    ));
    Ok(checks)
}

/// Runs one execution to its end; the answer, or why there is none.
fn ask(cx: &Context, cmd: &Cmd) -> Result<Result<String, String>> {
    let answer = cx.exec.ask(cmd, EXECUTION);
    cx.exec.check()?;
    Ok(match answer {
        Ok(done) if done.ok() => Ok(done.stdout),
        Ok(done) => Err(done.stderr.trim().replace('\n', "; ")),
        Err(why) => Err(format!("{why:?}")),
    })
}

fn told(answer: &Result<String, String>, clock: Clock) -> String {
    match answer {
        Ok(answer) => {
            let first = answer.lines().next().unwrap_or_default();
            format!("in {clock}: {first}")
        }
        Err(why) => why.clone(),
    }
}
