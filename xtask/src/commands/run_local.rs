//! `run-local`: the container, replaced, started, and waited for.

pub mod environment;
pub mod mounts;

use anyhow::Result;
use environment::{EnvFile, addresses, container_env, env_file};
use mounts::{Mount, folder_steps, mount};

use super::{
    Context, Ran,
    health::{self, Unhealthy, Wait},
    refuse_foreign,
};
use crate::{
    catalogue,
    cli::RunArgs,
    engine::{
        Place,
        container::{self, Container},
        image::Image,
        label,
        run::{Hardening, IMAGE_USER, Limits, Mode, Run},
    },
    env::{Env, Os},
    error::Failure,
    image::human_bytes,
    plan::{OnFailure, Output, Plan, Step},
    probe::{self, Wanted, World},
    settings::{Publish, Relabel, Settings},
    ui::{Clock, human_time},
};

/// What the plan needs to know.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub world: World,
    pub reference: String,
    /// Each mount that is a folder of the host's, in the settings' order.
    pub mounts: Vec<Mount>,
    pub selinux_enforcing: bool,
    pub env_file: Option<EnvFile>,
    pub started_by: StartedBy,
}

/// The container's log when it fails: so many lines.
const LAST_LINES: u64 = 20;

/// Which command starts it: what `up` starts, `down` removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    RunLocal,
    Up,
}

/// Asks for them.
///
/// # Errors
/// When no engine answers, or a folder or a file of the settings is not as it must be.
pub fn facts(cx: &Context, started_by: StartedBy) -> Result<RunFacts> {
    let settings = cx.settings;
    let reference = cx.reference()?;
    let wanted = Wanted {
        container: Some(&settings.run.container),
        images: std::slice::from_ref(&reference),
    };
    let world = cx.probe().world(wanted)?;
    let mounts = settings
        .run
        .volumes
        .iter()
        .map(|volume| mount(volume, settings, cx.env))
        .collect::<Result<_, _>>()?;
    Ok(RunFacts {
        mounts,
        selinux_enforcing: cx.env.os == Os::Linux && probe::selinux_enforcing(),
        env_file: env_file(settings, cx.env)?,
        world,
        reference,
        started_by,
    })
}

fn run_request(settings: &Settings, env: &Env, facts: &RunFacts, args: &RunArgs) -> Run {
    let run = &settings.run;
    let relabel = match run.relabel {
        Relabel::Always => true,
        Relabel::Never => false,
        Relabel::WhereEnforcing => {
            facts.selinux_enforcing && facts.world.engine.place == Place::Here
        }
    };
    let volume = |mount: &Mount| {
        let plain = format!("{}:{}", mount.host, mount.rest);
        match (relabel && mount.folder.is_some(), mount.rest.contains(':')) {
            (false, _) => plain,
            (true, false) => format!("{plain}:z"),
            (true, true) => format!("{plain},z"),
        }
    };
    let container_env = container_env(settings, env, facts);
    let mut labels = vec![
        (label::CONTAINER.to_owned(), label::RUN.to_owned()),
        (
            label::VERSION.to_owned(),
            settings.version.value.to_string(),
        ),
    ];
    match facts.started_by {
        StartedBy::RunLocal => {}
        StartedBy::Up => labels.push((label::STACK.to_owned(), run.container.clone())),
    }
    Run {
        name: run.container.clone(),
        image: facts.reference.clone(),
        labels,
        mode: if args.foreground {
            Mode::Foreground {
                tty: env.stdin_tty && env.stdout_tty,
            }
        } else {
            Mode::Detached
        },
        network: run.network.clone(),
        user: run.user.clone(),
        person: env.user,
        volumes: facts.mounts.iter().map(volume).collect(),
        env: container_env.shown,
        env_by_name: container_env.by_name,
        env_file: facts.env_file.as_ref().map(|file| file.path.clone()),
        limits: Limits {
            memory: run.memory,
            cpus: run.cpus.clone(),
            pids: run.pids,
        },
        hardening: hardening(settings),
        stop_grace: run.stop_grace,
        ports: Vec::new(),
        command: Vec::new(),
    }
}

/// The configured hardening.
pub fn hardening(settings: &Settings) -> Hardening {
    let run = &settings.run;
    Hardening {
        no_new_privileges: run.no_new_privileges,
        drop_capabilities: run.drop_capabilities.clone(),
        read_only: run.read_only,
        tmpfs: run.tmpfs.clone(),
        init: run.init,
    }
}

pub fn plan(
    settings: &Settings,
    env: &Env,
    facts: &RunFacts,
    args: &RunArgs,
) -> Result<Plan, Failure> {
    let engine = &facts.world.engine;
    let name = &settings.run.container;
    let mut plan = Plan::default();
    if facts.world.images.is_empty() {
        plan.push(pull_step(settings, facts)?);
    }
    if let Some(container) = &facts.world.container {
        refuse_foreign(name, container)?;
    }
    for mount in &facts.mounts {
        for step in folder_steps(mount, settings, env, engine)? {
            plan.push(step);
        }
    }
    if let Some(container) = &facts.world.container {
        let say = format!("our earlier container {name} ({})", container.short_id());
        if container.state.running {
            let stop = Step::new(
                engine.engine.stop(name, settings.run.stop_grace),
                Output::Quiet,
            );
            plan.push(stop.say("Stopping", say));
        }
        plan.push(Step::new(engine.engine.remove(name), Output::Quiet));
    }
    let run = run_request(settings, env, facts, args);
    let cmd = engine.run(&run);
    let output = if args.foreground {
        Output::Handover
    } else {
        Output::Quiet
    };
    plan.push(Step::new(cmd, output).say(
        "Starting",
        format!("{name} from {} with {}", facts.reference, engine.describe()),
    ));
    Ok(plan)
}

/// An image that is here is preferred; one that is not is pulled if it was published.
fn pull_step(settings: &Settings, facts: &RunFacts) -> Result<Step, Failure> {
    let reference = &facts.reference;
    match settings.channel.publish {
        Publish::Yes => Ok(
            Step::new(facts.world.engine.engine.pull(reference), Output::Talk)
                .say("Pulling", reference.as_str()),
        ),
        Publish::ByName | Publish::No => Err(Failure::new(format!(
            "there is no image `{reference}` here, and the channel `{}` does not publish any",
            settings.channel.name
        ))
        .hint(format!(
            "build it: `cargo xtask build-image --version {}`",
            settings.version.value
        ))),
    }
}

pub fn run(cx: &Context, args: &RunArgs) -> Result<()> {
    start(cx, args, StartedBy::RunLocal)?;
    if !cx.dry_run {
        cx.ui.hint(
            "next: `cargo xtask logs`, `cargo xtask status`, `cargo xtask shell`, `cargo xtask stop`",
        );
    }
    Ok(())
}

/// What [`start`] would run if the version's image were here.
///
/// # Errors
/// When the plan cannot be made or printed.
pub fn preview(cx: &Context, args: &RunArgs) -> Result<()> {
    let mut facts = facts(cx, StartedBy::RunLocal)?;
    if facts.world.images.is_empty() {
        facts.world.images.push(Image::default());
    }
    let plan = plan(cx.settings, cx.env, &facts, args)?;
    Ok(cx.ui.result(&plan.render())?)
}

/// Starts it, and waits until it is healthy.
///
/// # Errors
/// When it does not start, or is not healthy in time.
pub fn start(cx: &Context, args: &RunArgs, started_by: StartedBy) -> Result<()> {
    let clock = Clock::start();
    let facts = facts(cx, started_by)?;
    let plan = plan(cx.settings, cx.env, &facts, args)?;
    if !cx.dry_run {
        warnings(cx, &facts);
    }
    let engine = &facts.world.engine.engine;
    let name = &cx.settings.run.container;
    match cx.carry_out(&plan) {
        Ok(Ran::No) => return Ok(()),
        Ok(Ran::Yes) => {}
        Err(error) => {
            if !took_our_name(&error) {
                remove_leftover(cx, &facts);
            }
            return Err(error);
        }
    }
    let check = health_check(cx, &facts);
    match (args.no_wait, check) {
        (true, _) => cx.ui.status(
            "Started",
            &format!("{name} in {clock}, not waiting for its health"),
        ),
        (false, None) => {
            cx.ui.status("Started", &format!("{name} in {clock}"));
            cx.ui.warn(
                "the image has no health check that this engine can see, so its health is unknown",
            );
            cx.ui
                .hint("build it with `cargo xtask build-image`, or set `health.command`");
        }
        (false, Some(argv)) => {
            let check = engine.exec(name, argv);
            let wait = Wait {
                exec: cx.exec,
                ui: cx.ui,
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
    Ok(cx.ui.result(&format!("{name}\n"))?)
}

/// The check to run. An image that was just pulled is looked at again.
fn health_check(cx: &Context, facts: &RunFacts) -> Option<Vec<String>> {
    let pulled = || {
        let wanted = Wanted {
            container: None,
            images: std::slice::from_ref(&facts.reference),
        };
        let world = cx.probe().world(wanted).ok()?;
        world.images.into_iter().next()
    };
    let image = facts.world.images.first().cloned().or_else(pulled);
    health::command(image.as_ref(), &cx.settings.health)
}

/// Why it is not healthy, under its last log lines. The container stays, to be looked at.
fn unhealthy(cx: &Context, facts: &RunFacts, why: Unhealthy) -> Failure {
    let name = &cx.settings.run.container;
    let logs = facts
        .world
        .engine
        .engine
        .logs(name, false, Some(LAST_LINES), None);
    let mut known = Vec::new();
    if let Ok(done) = cx.exec.ask(&logs, cx.settings.engine.timeout) {
        cx.ui.line(&format!("the last lines of {name}'s log:"));
        cx.ui.raw(&done.stdout);
        cx.ui.raw(&done.stderr);
        known = catalogue::hints_for(&format!("{}\n{}", done.stdout, done.stderr));
    }
    match why {
        Unhealthy::Exited(container) => {
            let how = if container.state.oom_killed {
                "was killed for want of memory".to_owned()
            } else {
                format!("ended with exit code {}", container.state.exit_code)
            };
            Failure::new(format!(
                "the container `{name}` {how} before it was healthy"
            ))
            .hint("its whole log: `cargo xtask logs`")
            .hints(known)
        }
        Unhealthy::TimedOut(words) => {
            let budget = human_time(cx.settings.health.budget);
            Failure::new(format!(
                "the container `{name}` was not healthy within {budget}: {words}"
            ))
            .hint("it still runs: `cargo xtask logs`, `cargo xtask shell`, `cargo xtask stop`")
            .hint("a slow machine may need more: `health.budget` in `xtask.local.toml`")
        }
    }
}

/// Whether the name was taken by a run at the same time: what has it now is that one's, and may
/// just be starting.
fn took_our_name(error: &anyhow::Error) -> bool {
    let said = error.downcast_ref::<Failure>().map(Failure::said);
    said.and_then(catalogue::find)
        .is_some_and(|entry| entry.code == "name-taken")
}

/// A run that failed leaves a container that holds the name. It is removed if it is ours.
fn remove_leftover(cx: &Context, facts: &RunFacts) {
    let engine = &facts.world.engine.engine;
    let name = &cx.settings.run.container;
    let limit = cx.settings.engine.timeout;
    cx.exec.cleaning(|| {
        let answer = cx
            .exec
            .ask(&container::inspect_cmd(&engine.program, name), limit);
        if let Ok((_, Some(container))) = container::read_inspect(&engine.program, &answer, limit)
            && never_ran(&container)
        {
            let mut step = Step::new(engine.remove(name), Output::Quiet);
            step.on_failure = OnFailure::GoOn;
            let _ = cx.exec.step(&step);
        }
    });
}

fn never_ran(container: &Container) -> bool {
    container.owner() == container::Owner::Us && container.state.status == "created"
}

/// What will surprise: nothing listens where the container will look.
fn warnings(cx: &Context, facts: &RunFacts) {
    let run = &cx.settings.run;
    let engine = &facts.world.engine;
    if matches!(engine.place, Place::Remote(_)) {
        cx.ui.warn(&format!(
            "{}: addresses and folders of this machine are not there",
            engine.describe()
        ));
        return;
    }
    if let Some(why) = engine.hides_this_machine() {
        cx.ui.warn(why);
    }
    for (name, value) in addresses(cx.settings, cx.env, facts.env_file.as_ref()) {
        if !probe::listens(value) {
            cx.ui.warn(&format!(
                "nothing listens at {} ({name})",
                shown_address(value)
            ));
            cx.ui.hint(how_to_start(name));
        }
    }
    if cx.env.user.is_plain_root() && engine.place == Place::Here {
        cx.ui.verbose(&format!(
            "you are root: the container runs as uid {IMAGE_USER}, and its files belong to that"
        ));
    }
    if let Some(memory) = run.memory {
        cx.ui
            .verbose(&format!("memory is limited to {}", human_bytes(memory)));
    }
}

/// An address may hold a password.
fn shown_address(address: &str) -> String {
    probe::host_and_port(address).map_or_else(
        || "its address".to_owned(),
        |(host, port)| format!("{host}:{port}"),
    )
}

pub fn how_to_start(name: &str) -> &'static str {
    if name.starts_with("TEMPORAL") {
        "start Temporal: `temporal server start-dev`; the worker waits for it"
    } else if name.starts_with("STIGMER_BACKEND") {
        "start stigmer-server: `stigmer server`; executions fail until it is there"
    } else {
        "start what should listen there, or set the variable to where it does"
    }
}
