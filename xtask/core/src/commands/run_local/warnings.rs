//! What the user may not expect of the container that is started.

use std::{path::Path, time::Duration};

use crate::{
    base::image::human_bytes,
    commands::run_local::{facts::RunFacts, mounts::Mount, network::why_apart_from_host},
    engine::{Location, image::Image, run::IMAGE_USER},
    facts::{
        context::Context,
        environment::{RunnerEnv, env_file_warnings},
        host,
    },
    settings::Settings,
};

/// The warning if the container has no ports of its own.
pub const PORTS_WITHOUT_EFFECT: &str =
    "`run.ports` has no effect: on this network, the container has no ports of its own";

/// The warning if the stigmer CLI's runner runs, too.
const TWO_WORKERS: &str = "the stigmer CLI's runner `stigmer-agent-runner` runs too: an execution goes to either of the two, if both have the same task queue";

/// The hint for [`TWO_WORKERS`].
pub const STOP_STIGMER_CLI: &str = "stop the CLI's runner: `stigmer server stop`; or set another `TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE`";

/// The variable with the seconds that running executions may take after SIGTERM.
const SHUTDOWN_GRACE: &str = "SHUTDOWN_GRACE_SECONDS";

/// The warning and the hint if the engine kills the container while executions may still end.
pub fn short_stop_grace(environment: &RunnerEnv) -> Option<(String, String)> {
    let executions: f64 = environment.value(SHUTDOWN_GRACE)?.trim().parse().ok()?;
    let engine = environment.settings.run.stop_grace;
    let needed = Duration::try_from_secs_f64(executions).ok()?;
    (needed >= engine).then(|| {
        let engine = engine.as_secs();
        (
            format!("`{SHUTDOWN_GRACE}` is {executions}, and the container is killed {engine} s after it is told to stop: executions that still run then are lost"),
            format!("give it more time: `run.stop-grace = \"{}s\"`", needed.as_secs().saturating_add(2)),
        )
    })
}

/// Warns of what the user may not expect, such as an address at which nothing listens.
pub fn warn(cx: &Context, facts: &RunFacts) {
    let run = &cx.settings.run;
    let engine = &facts.state.engine;
    for warning in facts.env_file.iter().flat_map(env_file_warnings) {
        cx.ui.warn(&warning);
    }
    if matches!(engine.location, Location::Remote(_)) {
        cx.ui.warn(&format!(
            "{}: the container cannot reach addresses and folders of this machine",
            engine.describe()
        ));
        return;
    }
    if facts.stigmer_cli_runs {
        cx.ui.warn(TWO_WORKERS);
        cx.ui.hint(STOP_STIGMER_CLI);
    }
    if let Some(other) = facts.runs_in {
        let name = &run.container;
        cx.ui.warn(&format!(
            "a container `{name}` that xtask started also runs in {other}"
        ));
        cx.ui.hint(&format!(
            "stop that one: `cargo xtask stop --engine {}`",
            other.program()
        ));
    }
    if !run.ports.is_empty() && !engine.has_own_ports_on(&run.network) {
        cx.ui.warn(PORTS_WITHOUT_EFFECT);
    }
    let image = facts.state.images.first();
    for folder in unmounted_volumes(image, &run.hardening.tmpfs, &facts.mounts) {
        cx.ui.warn(&format!(
            "nothing is mounted at `{folder}`, a volume of the image: the next container does not get the files in it"
        ));
        cx.ui.hint(&format!(
            "mount a folder: `run.volumes = [\"~/FOLDER:{folder}\"]` in `xtask.local.toml`"
        ));
    }
    warn_of_subordinate_id(cx, facts);
    if let Some((warning, hint)) = short_stop_grace(&facts.runner_env(cx.settings, cx.env)) {
        cx.ui.warn(&warning);
        cx.ui.hint(&hint);
    }
    if let Some(why) = engine.why_localhost_is_unreachable() {
        cx.ui.warn(why);
    }
    warn_of_addresses(cx, facts);
    if cx.env.user.is_root_without_sudo() && engine.location == Location::Host {
        cx.ui.verbose(&format!(
            "you are root: the container runs as uid {IMAGE_USER}, which owns its files"
        ));
    }
    if let Some(memory) = run.limits.memory {
        cx.ui
            .verbose(&format!("memory is limited to {}", human_bytes(memory)));
    }
}

/// Warns if the container's files on the host will not belong to the user.
fn warn_of_subordinate_id(cx: &Context, facts: &RunFacts) {
    let engine = &facts.state.engine;
    let identity = engine.identity(&cx.settings.run.user, cx.env.user);
    // In a virtual machine, file sharing maps the owners.
    if identity.host_owner.is_some() || engine.location != Location::Host {
        return;
    }
    let writable = |mount: &&Mount| mount.folder.is_some() && !mount.is_read_only();
    if let Some(mount) = facts.mounts.iter().find(writable) {
        cx.ui.warn(&format!(
            "with this `run.user`, the container's files in `{}` belong to a subordinate id and not to you, and the container can write only to what everyone can write to",
            mount.host
        ));
        cx.ui.hint("set `run.user = \"auto\"` to own the files");
    }
}

fn warn_of_addresses(cx: &Context, facts: &RunFacts) {
    let addresses = facts.runner_env(cx.settings, cx.env).addresses();
    if let Some(why) = why_apart_from_host(&cx.settings.run.network) {
        if !addresses.is_empty() {
            cx.ui.warn(&why);
        }
        return;
    }
    for (name, value) in addresses {
        if !host::listens(value) {
            cx.ui.warn(&format!(
                "nothing listens at {} ({name})",
                host::describe_address(value)
            ));
            cx.ui.hint(&how_to_start(name, cx.settings));
        }
    }
}

/// The volumes of the image at which nothing is mounted. The engine makes a volume without a name for each.
fn unmounted_volumes<'a>(
    image: Option<&'a Image>,
    tmpfs: &'a [String],
    mounts: &'a [Mount],
) -> impl Iterator<Item = &'a str> {
    let volumes = image.and_then(|image| image.config.volumes.as_ref());
    let volumes = volumes.into_iter().flat_map(|volumes| volumes.keys());
    let targets = mounts.iter().map(|mount| &mount.rest).chain(tmpfs);
    let targets = targets.map(|target| Path::new(target.split(':').next().unwrap_or(target)));
    let is_mounted = move |volume: &str| targets.clone().any(|target| target == Path::new(volume));
    volumes
        .map(String::as_str)
        .filter(move |volume| !is_mounted(volume))
}

/// The hint for an address at which nothing listens, by the name of its variable.
pub fn how_to_start(name: &str, settings: &Settings) -> String {
    let options = settings.given_version_options();
    let stack = format!("or the whole stack: `cargo xtask up{options}`");
    if name.starts_with("TEMPORAL") {
        format!("start Temporal: `temporal server start-dev`, {stack}; the worker waits for it")
    } else if name.starts_with("STIGMER_BACKEND") {
        format!("start stigmer-server: `stigmer server`, {stack}; executions fail until it runs")
    } else {
        "start what should listen there, or set the variable to another address".to_owned()
    }
}
