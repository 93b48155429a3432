//! `run-local`: the container, replaced, started, and waited for.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Context, Ran,
    health::{self, Wait, Waited},
    refuse_foreign,
};
use crate::{
    cli::RunArgs,
    config::Origin,
    engine::{
        EngineFacts, Place,
        container::{self, Container},
        label,
        run::{Hardening, IMAGE_USER, Limits, Mode, Run},
    },
    env::{Env, Os},
    error::Failure,
    image::human_bytes,
    plan::{Cmd, EnvValue, OnFailure, Output, Plan, Step},
    probe::{self, Folder, Wanted, World},
    secret,
    settings::{GitValues, Network, Publish, Relabel, Settings},
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
}

/// A mount, its host part absolute where it is a path and not a volume's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host: String,
    /// `CONTAINER` or `CONTAINER:OPTIONS`.
    pub rest: String,
    pub folder: Option<Folder>,
}

/// An environment file as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    pub path: String,
    pub values: Vec<(String, String)>,
}

/// The container's log when it fails: so many lines.
const LAST_LINES: u64 = 20;

fn facts(cx: &Context) -> Result<RunFacts> {
    let settings = cx.settings;
    // Only a template that names git makes us wait for git.
    let needs_git = settings.channel.tags[..]
        .first()
        .is_some_and(|tag| tag.contains("{git."));
    let git = if needs_git {
        probe::git(cx.exec, &settings.root).values
    } else {
        GitValues::default()
    };
    let reference = settings.reference(&git)?;
    let wanted = Wanted {
        container: Some(&settings.run.container),
        image: Some(&reference),
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
    })
}

/// `HOST:CONTAINER[:OPTIONS]`; a host part without a slash, dot or tilde names a volume.
pub fn mount(volume: &str, settings: &Settings, env: &Env) -> Result<Mount, Failure> {
    let (host, rest) = volume.split_once(':').unwrap_or((volume, ""));
    if !host.starts_with(['/', '.', '~']) {
        return Ok(Mount {
            host: host.to_owned(),
            rest: rest.to_owned(),
            folder: None,
        });
    }
    let path: PathBuf = env.expand(host, &settings.root).ok_or_else(|| {
        Failure::usage(format!(
            "the volume `{volume}` needs HOME, which is not set"
        ))
        .hint("set HOME, or give an absolute path in `run.volumes`")
    })?;
    let text = path
        .to_str()
        .filter(|text| !text.contains(':'))
        .ok_or_else(|| {
            Failure::usage(format!(
                "the folder `{}` cannot be mounted: engines take no `:` and only UTF-8 in its path",
                path.display()
            ))
            .hint("mount another folder: `run.volumes` in `xtask.local.toml`")
        })?;
    Ok(Mount {
        host: text.to_owned(),
        rest: rest.to_owned(),
        folder: Some(probe::folder(&path)),
    })
}

/// The environment file, if it is there; one that was asked for by name must be.
fn env_file(settings: &Settings, env: &Env) -> Result<Option<EnvFile>, Failure> {
    let Some(file) = &settings.run.env_file else {
        return Ok(None);
    };
    let base = match file.origin {
        // What is typed is typed where one stands.
        Origin::Flag(_) => &env.cwd,
        Origin::Default | Origin::File { .. } | Origin::Env(_) => &settings.root,
    };
    let path = env
        .expand(&file.value, base)
        .unwrap_or_else(|| PathBuf::from(&file.value));
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_env_file(&path.to_string_lossy(), &text).map(Some),
        Err(error) => match file.origin {
            Origin::Default | Origin::File { .. }
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Origin::Default | Origin::File { .. } | Origin::Env(_) | Origin::Flag(_) => {
                Err(Failure::usage(format!(
                    "cannot read the environment file `{}` (from {}): {error}",
                    path.display(),
                    file.origin
                )))
            }
        },
    }
}

/// Reads a file as both engines do: no quotes, no expansion. What they understand differently
/// is refused: of `export A=1` Docker complains and Podman makes a variable `export A`.
fn parse_env_file(path: &str, text: &str) -> Result<EnvFile, Failure> {
    let mut values = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(fine) {
            // The line itself may hold a secret, so only its number is told.
            return Err(Failure::usage(format!(
                "`{path}:{}`: a line must be `NAME=value`, without `export`, spaces or quotes around the name",
                number + 1
            )));
        }
        values.push((name.to_owned(), value.to_owned()));
    }
    Ok(EnvFile {
        path: path.to_owned(),
        values,
    })
}

/// The container's environment, by the way each value takes.
#[derive(Debug, Default)]
struct ContainerEnv {
    shown: Vec<(String, String)>,
    by_name: Vec<(String, Option<EnvValue>)>,
}

/// Fixed values, then what is handed on from ours. Secrets go by name, and an address on this
/// machine is rewritten where `localhost` would be the container itself.
fn container_env(settings: &Settings, env: &Env, facts: &RunFacts) -> ContainerEnv {
    let engine = &facts.world.engine;
    let bridge = engine.network(&settings.run.network) != Network::Host;
    let rewrite = |name: &str, value: &str| -> Option<String> {
        let is_address = settings.run.addresses.iter().any(|address| address == name);
        (bridge && is_address)
            .then(|| rewrite_localhost(value, engine.host_name()))
            .flatten()
    };
    let mut out = ContainerEnv::default();
    let passed =
        |name: &str| settings.run.pass_env.iter().any(|pass| pass == name) && env.has(name);
    let in_file = |name: &str| {
        facts
            .env_file
            .iter()
            .flat_map(|file| &file.values)
            .any(|(known, _)| known == name)
    };
    for (name, value) in &settings.run.env {
        // A person's own value wins over the project's, be it exported or in their file.
        if passed(name) || in_file(name) {
            continue;
        }
        let value = rewrite(name, value).unwrap_or_else(|| value.clone());
        if secret::is_secret_name(name) || secret::looks_like_secret(&value) {
            out.by_name
                .push((name.clone(), Some(EnvValue::Secret(value))));
        } else {
            out.shown.push((name.clone(), value));
        }
    }
    for name in settings.run.pass_env.iter().filter(|name| env.has(name)) {
        // Docker takes a name that is not set as an order to unset the image's value, so only
        // names that are set are handed on.
        let rewritten = env
            .get(name)
            .and_then(|value| rewrite(name, value))
            .map(|value| {
                if secret::looks_like_secret(&value) {
                    EnvValue::Secret(value)
                } else {
                    EnvValue::Plain(value)
                }
            });
        out.by_name.push((name.clone(), rewritten));
    }
    for (name, value) in facts.env_file.iter().flat_map(|file| &file.values) {
        if let Some(value) = rewrite(name, value).filter(|_| !passed(name)) {
            out.by_name
                .push((name.clone(), Some(EnvValue::Secret(value))));
        }
    }
    out
}

/// `localhost:7233` → `host.docker.internal:7233`; none where the host is another.
fn rewrite_localhost(address: &str, host: &str) -> Option<String> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"]
        .iter()
        .find_map(|local| {
            let tail = rest.strip_prefix(local)?;
            let whole = tail.is_empty() || tail.starts_with([':', '/']);
            whole.then(|| format!("{scheme}{user}{host}{tail}"))
        })
}

/// Steps that make a mounted folder ready: it exists, and the container's user can write to it.
pub fn folder_steps(
    mount: &Mount,
    settings: &Settings,
    env: &Env,
    engine: &EngineFacts,
) -> Result<Vec<Step>, Failure> {
    let Some(folder) = &mount.folder else {
        return Ok(Vec::new());
    };
    if matches!(engine.place, Place::Remote(_)) {
        return Ok(Vec::new());
    }
    let read_only = mount
        .rest
        .split(':')
        .nth(1)
        .is_some_and(|options| options.split(',').any(|option| option == "ro"));
    let (uid, gid) = engine.identity(&settings.run.user, env.user).on_host;
    // In a VM the file sharing maps owners.
    let owners_count = engine.place == Place::Here && !read_only;
    let chown = || {
        Step::new(
            Cmd::new("chown").args([&format!("{uid}:{gid}"), &mount.host]),
            Output::Quiet,
        )
        .say("Handing", format!("{} to uid {uid}", mount.host))
    };
    let mut steps = Vec::new();
    match folder {
        Folder::Missing => {
            steps.push(
                Step::new(Cmd::new("mkdir").args(["-p", &mount.host]), Output::Quiet)
                    .say("Creating", mount.host.as_str()),
            );
            if owners_count && env.user.euid == 0 && uid != 0 {
                steps.push(chown());
            }
        }
        Folder::Other => {}
        Folder::There {
            uid: owner,
            gid: group,
            mode,
        } => {
            let writable =
                *owner == uid || mode & 0o002 != 0 || (*group == gid && mode & 0o020 != 0);
            if owners_count && !writable {
                if env.user.euid != 0 {
                    return Err(Failure::new(format!(
                        "the container's user could not write to `{}`: it belongs to uid {owner}, not to you (uid {uid})",
                        mount.host
                    ))
                    .hint(format!("sudo chown -R {uid}:{gid} {}", crate::plan::quote(&mount.host))));
                }
                steps.push(chown());
            }
        }
    }
    Ok(steps)
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
    Run {
        name: run.container.clone(),
        image: facts.reference.clone(),
        labels: vec![
            (label::CONTAINER.to_owned(), label::RUN.to_owned()),
            (
                label::VERSION.to_owned(),
                settings.version.value.to_string(),
            ),
        ],
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
    if facts.world.image.is_none() {
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
    let clock = Clock::start();
    let facts = facts(cx)?;
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
            remove_leftover(cx, &facts);
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
                Waited::Healthy(_) => cx.ui.status("Healthy", &format!("{name} in {clock}")),
                not @ (Waited::TooLong(_) | Waited::Ended(_)) => {
                    return Err(unhealthy(cx, &facts, not).into());
                }
            }
        }
    }
    cx.ui.hint(
        "next: `cargo xtask logs`, `cargo xtask status`, `cargo xtask shell`, `cargo xtask stop`",
    );
    Ok(cx.ui.result(&format!("{name}\n"))?)
}

/// The check to run. An image that was just pulled is looked at again.
fn health_check(cx: &Context, facts: &RunFacts) -> Option<Vec<String>> {
    let pulled = || {
        let wanted = Wanted {
            container: None,
            image: Some(&facts.reference),
        };
        cx.probe().world(wanted).ok().and_then(|world| world.image)
    };
    let image = facts.world.image.clone().or_else(pulled);
    health::command(image.as_ref(), &cx.settings.health)
}

/// Why it is not healthy, under its last log lines. The container stays, to be looked at.
fn unhealthy(cx: &Context, facts: &RunFacts, how: Waited) -> Failure {
    let name = &cx.settings.run.container;
    let logs = facts
        .world
        .engine
        .engine
        .logs(name, false, Some(LAST_LINES), None);
    if let Ok(done) = cx.exec.ask(&logs, cx.settings.engine.timeout) {
        cx.ui.line(&format!("the last lines of {name}'s log:"));
        cx.ui.raw(&done.stdout);
        cx.ui.raw(&done.stderr);
    }
    match how {
        Waited::Ended(container) => {
            let how = if container.state.oom_killed {
                "was killed for want of memory".to_owned()
            } else {
                format!("ended with exit code {}", container.state.exit_code)
            };
            Failure::new(format!(
                "the container `{name}` {how} before it was healthy"
            ))
            .hint("its whole log: `cargo xtask logs`")
        }
        Waited::Healthy(_) => Failure::new(format!("the container `{name}` is healthy")),
        Waited::TooLong(words) => {
            let budget = human_time(cx.settings.health.budget);
            Failure::new(format!(
                "the container `{name}` was not healthy within {budget}: {words}"
            ))
            .hint("it still runs: `cargo xtask logs`, `cargo xtask shell`, `cargo xtask stop`")
            .hint("a slow machine may need more: `health.budget` in `xtask.local.toml`")
        }
    }
}

/// A run that failed leaves a container that holds the name. It is removed if it is ours.
fn remove_leftover(cx: &Context, facts: &RunFacts) {
    let engine = &facts.world.engine.engine;
    let name = &cx.settings.run.container;
    let limit = cx.settings.engine.timeout;
    let signal = cx.exec.caught();
    cx.exec.forget_signal();
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
    if let Some(signal) = signal {
        cx.exec.remember_signal(signal);
    }
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
    for name in &run.addresses {
        let from_file = facts
            .env_file
            .iter()
            .flat_map(|file| &file.values)
            .find(|(known, _)| known == name);
        let passed = run
            .pass_env
            .contains(name)
            .then(|| cx.env.get(name))
            .flatten();
        let value = passed
            .or(from_file.map(|(_, value)| value.as_str()))
            .or(run.env.get(name).map(String::as_str));
        if let Some(value) = value.filter(|value| !probe::listens(value)) {
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

#[cfg(test)]
mod tests;
