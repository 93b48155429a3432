//! Starts the runner's container. `run-local`, `watch` and `up` share it.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    base::{
        env::Env,
        error::Failure,
        ui::{Clock, human_time},
    },
    catalogue,
    commands::{
        health::{self, Unhealthy, Wait},
        removal,
        run_local::{
            environment::container_env,
            facts::{RunFacts, StartedBy},
            mounts::folder_steps,
            network::refuse_unusable_network,
            ports::refuse_used_ports,
            warnings::warn,
        },
    },
    engine::{
        Engine, Location,
        container::{Container, LogOptions, Owner},
        image::Image,
        label,
        run::{Mode, Run},
    },
    facts::{
        context::{Context, Ran, refuse_foreign},
        model::Model,
    },
    plan::{Output, Plan, Step},
    settings::{Publish, Relabel, Restart, Settings},
};

/// How the container is started.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions {
    /// Wait until it is healthy.
    pub wait: bool,
    /// Hand the terminal over to the container.
    pub foreground: bool,
}

/// In the background. xtask waits until it is healthy.
pub const BACKGROUND: StartOptions = StartOptions {
    wait: true,
    foreground: false,
};

/// When xtask looks for the second time whether a container without a health check has ended.
const SECOND_LOOK: Duration = Duration::from_millis(700);

/// How many lines of the log are shown when the container fails.
const LAST_LINES: u64 = 20;

fn run_request(settings: &Settings, env: &Env, facts: &RunFacts, options: StartOptions) -> Run {
    let run = &settings.run;
    let relabel = match run.hardening.selinux_relabel {
        Relabel::Always => true,
        Relabel::Never => false,
        Relabel::IfEnforcing => {
            facts.selinux_enforcing && facts.state.engine.location == Location::Host
        }
    };
    let container_env = container_env(&facts.runner_env(settings, env), &facts.state.engine);
    let mut labels = vec![
        (label::CONTAINER.to_owned(), label::RUN.to_owned()),
        (
            label::VERSION.to_owned(),
            settings.version.value.to_string(),
        ),
    ];
    if facts.is_in_stack {
        labels.push((label::STACK.to_owned(), run.container.clone()));
    }
    Run {
        name: run.container.clone(),
        image: facts.reference.clone(),
        labels,
        mode: if options.foreground {
            Mode::Foreground {
                tty: env.stdin_tty && env.stdout_tty,
            }
        } else {
            Mode::Detached
        },
        network: run.network.clone(),
        user: run.user.clone(),
        invoking_user: env.user,
        volumes: facts
            .mounts
            .iter()
            .map(|mount| mount.volume(relabel))
            .collect(),
        env: container_env.shown,
        env_by_name: container_env.by_name,
        env_file: facts.env_file.as_ref().map(|file| file.path.clone()),
        limits: run.limits.clone(),
        hardening: run.hardening.clone(),
        stop_grace: run.stop_grace,
        restart: run.restart,
        log_options: facts.state.engine.log_limits(&facts.log_driver).to_vec(),
        ports: run.ports.clone(),
        command: run.command.clone(),
    }
}

/// The plan: pull a missing image, prepare the folders, replace our earlier container, start.
///
/// # Errors
/// When the image is missing and not published, the container is somebody else's, or a folder cannot
/// be written by the container.
pub fn plan(
    settings: &Settings,
    env: &Env,
    facts: &RunFacts,
    options: StartOptions,
) -> Result<Plan, Failure> {
    let engine = &facts.state.engine;
    let name = &settings.run.container;
    let mut plan = Plan::default();
    if facts.state.images.is_empty() {
        plan.push(pull_step(settings, facts)?);
    }
    if let Some(container) = &facts.state.container {
        refuse_foreign(name, container)?;
    }
    refuse_unusable_network(&settings.run.network, &facts.network, engine)?;
    refuse_used_ports(&facts.used_ports)?;
    for mount in &facts.mounts {
        plan.steps
            .extend(folder_steps(mount, settings, env, engine)?);
    }
    if let Some(container) = &facts.state.container {
        let say = format!("our earlier container {name} ({})", container.short_id());
        let grace = settings.run.stop_grace;
        plan.steps
            .extend(removal::steps(&engine.engine, name, say, container, grace));
    }
    let run = run_request(settings, env, facts, options);
    let output = if options.foreground {
        Output::ReplaceProcess
    } else {
        Output::Quiet
    };
    plan.push(Step::new(engine.run(&run), output).status(
        "Starting",
        format!("{name} from {} with {}", facts.reference, engine.describe()),
    ));
    Ok(plan)
}

/// A local image is preferred. A missing one is pulled if its channel publishes images.
fn pull_step(settings: &Settings, facts: &RunFacts) -> Result<Step, Failure> {
    let reference = &facts.reference;
    match settings.channel.publish {
        Publish::Yes => {
            let pull = facts.state.engine.engine.pull(reference);
            Ok(Step::new(pull, Output::Progress).status("Pulling", reference.as_str()))
        }
        Publish::ByName | Publish::No => Err(Failure::new(format!(
            "there is no image `{reference}` here, and the channel `{}` does not publish any",
            settings.channel.name
        ))
        .hint(format!(
            "build it: `cargo xtask build-image {}`",
            settings.version_options()
        ))),
    }
}

/// Prints what [`start`] would run if the version's image existed.
///
/// # Errors
/// When the plan cannot be made or printed.
pub fn preview(cx: &Context, started_by: StartedBy) -> Result<()> {
    let mut facts = RunFacts::gather(cx, started_by)?;
    if facts.state.images.is_empty() {
        facts.state.images.push(Image::default());
    }
    let plan = plan(cx.settings, cx.env, &facts, BACKGROUND)?;
    Ok(cx.ui.print_plan(&plan.render())?)
}

/// Starts the container, and waits until it is healthy.
///
/// # Errors
/// When it does not start, or is not healthy in time.
pub fn start(cx: &Context, options: StartOptions, started_by: StartedBy) -> Result<()> {
    let clock = Clock::start();
    let facts = RunFacts::gather(cx, started_by)?;
    let plan = plan(cx.settings, cx.env, &facts, options)
        .map_err(|error| cx.name_engine_with_image(error, &facts.state, &facts.reference))?;
    if !cx.dry_run {
        if Model::is_used_by(cx.settings) {
            let model = Model::of(&facts.runner_env(cx.settings, cx.env));
            cx.ui.status("Model", &model.describe());
        }
        warn(cx, &facts);
    }
    let engine = &facts.state.engine.engine;
    let name = &cx.settings.run.container;
    match cx.run_or_print(&plan) {
        Ok(Ran::No) => return Ok(()),
        Ok(Ran::Yes) => {}
        Err(error) => {
            if !is_name_taken(&error) {
                remove_leftover(cx, &facts);
            }
            return Err(error);
        }
    }
    let check = health_check(cx, &facts);
    match (options.wait, check) {
        (false, _) => cx.ui.status(
            "Started",
            &format!("{name} in {clock}, without waiting until it is healthy"),
        ),
        (true, None) => {
            if let Some(ended) = ended_at_once(cx, engine, name)? {
                return Err(unhealthy(cx, &facts, Unhealthy::Exited(Box::new(ended))).into());
            }
            cx.ui.status("Started", &format!("{name} in {clock}"));
            if cx.settings.require.health_check {
                cx.ui.warn(
                    "the engine reports no health check for the image, so the container's health is unknown",
                );
                cx.ui.hint(&format!(
                    "add a HEALTHCHECK to the Dockerfile, or set `health.command`; Podman shows it only if the image was built with `cargo xtask build-image {}`",
                    cx.settings.version_options()
                ));
            }
        }
        (true, Some(argv)) => {
            let check = engine.exec(name, argv);
            let wait = Wait {
                cx,
                engine,
                container: name,
                check: &check,
                budget: cx.settings.health.budget,
            };
            match wait.run()? {
                Ok(_) => cx.ui.status("Healthy", &format!("{name} in {clock}")),
                Err(why) => return Err(unhealthy(cx, &facts, why).into()),
            }
        }
    }
    Ok(cx.ui.print(&format!("{name}\n"))?)
}

/// A container without a health check, if its program has ended. A program that cannot work often ends only after it
/// has read its configuration, so xtask looks a second time.
fn ended_at_once(cx: &Context, engine: &Engine, name: &str) -> Result<Option<Container>> {
    for pause in [Duration::ZERO, SECOND_LOOK] {
        thread::sleep(pause);
        cx.exec.fail_if_interrupted()?;
        let found = cx.container_of(engine, name)?;
        if let Some(ended) = found.filter(health::has_ended) {
            return Ok(Some(ended));
        }
    }
    Ok(None)
}

/// The health check to run. An image that was just pulled was not known before.
fn health_check(cx: &Context, facts: &RunFacts) -> Option<Vec<String>> {
    let pulled = || {
        let engine = &facts.state.engine.engine;
        let found = cx.images_of(engine, std::slice::from_ref(&facts.reference));
        found.ok()?.into_iter().next()
    };
    let image = facts.state.images.first().cloned().or_else(pulled);
    health::command(image.as_ref(), &cx.settings.health)
}

/// The failure of a container that did not become healthy, below the end of its log. The container
/// stays, so that you can look at it.
fn unhealthy(cx: &Context, facts: &RunFacts, why: Unhealthy) -> Failure {
    let name = &cx.settings.run.container;
    let engine = &facts.state.engine.engine;
    let mut known = Vec::new();
    if let Ok(log) = cx.ask(&engine.logs(name, &LogOptions::last(LAST_LINES))) {
        cx.ui.detail(&format!("the last lines of {name}'s log:"));
        cx.ui.print_unchanged(&log.stdout);
        cx.ui.print_unchanged(&log.stderr);
        known = catalogue::hints_for_output(&format!("{}\n{}", log.stdout, log.stderr));
    }
    match why {
        Unhealthy::Exited(container) => {
            let how = if container.state.oom_killed {
                "was killed because it exceeded its memory limit".to_owned()
            } else {
                format!("exited with code {}", container.state.exit_code)
            };
            let failure = Failure::new(format!(
                "the container `{name}` {how} before it was healthy"
            ))
            .hint("read its whole log: `cargo xtask logs`");
            let failure = match cx.settings.run.restart {
                Restart::No => failure,
                Restart::OnFailure | Restart::UnlessStopped => failure.hint(
                    "with `run.restart`, the engine starts it again and again: end that with `cargo xtask stop`",
                ),
            };
            failure.hints(known)
        }
        Unhealthy::TimedOut(words) => {
            let budget = human_time(cx.settings.health.budget);
            Failure::new(format!(
                "the container `{name}` was not healthy within {budget}: {words}"
            ))
            .hint("inspect or stop the container, which still runs: `cargo xtask logs`, `cargo xtask shell`, `cargo xtask stop`")
            .hint("increase `health.budget` in `xtask.local.toml` on a slow machine")
        }
    }
}

/// Whether another run took the container's name at the same time. Its container may just be starting.
fn is_name_taken(error: &anyhow::Error) -> bool {
    let output = error.downcast_ref::<Failure>().map(Failure::output);
    output
        .and_then(catalogue::find_in_output)
        .is_some_and(|entry| entry.code == "name-taken")
}

/// Removes the container that a failed start leaves behind, if it is ours and never ran.
fn remove_leftover(cx: &Context, facts: &RunFacts) {
    let engine = &facts.state.engine.engine;
    let name = &cx.settings.run.container;
    cx.exec.with_deferred_signals(|| {
        if let Ok(Some(container)) = cx.container_of(engine, name)
            && never_ran(&container)
        {
            let step = Step::new(engine.remove(name), Output::Quiet).ignore_failure();
            let _ = cx.exec.step(&step);
        }
    });
}

fn never_ran(container: &Container) -> bool {
    container.owner() == Owner::Xtask && container.state.status == "created"
}
