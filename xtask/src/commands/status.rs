//! `status`: container, health, uptime, image, version.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::{Context, health};
use crate::{
    cli::JsonArgs,
    engine::{
        Engine,
        container::{self, Container},
        label,
    },
    plan::{Output, Plan, Step},
    ui::human_time,
};

#[derive(Debug, Serialize)]
struct Status {
    container: String,
    /// running, exited, created, …; missing where there is none.
    state: String,
    /// healthy, unhealthy or unknown; null where it does not run.
    health: Option<String>,
    health_message: Option<String>,
    uptime_seconds: Option<u64>,
    exit_code: Option<i32>,
    image: Option<String>,
    version: Option<String>,
    engine: String,
}

pub fn run(cx: &Context, args: &JsonArgs) -> Result<()> {
    let name = &cx.settings.run.container;
    if cx.dry_run {
        let (engine, _) = cx.probe().container(name)?;
        let step = Step::new(
            container::inspect_cmd(&engine.program, name),
            Output::Result,
        );
        return cx.carry_out(&Plan { steps: vec![step] }).map(|_| ());
    }
    let (engine, container) = cx.our_container()?;
    let status = status(cx, &engine, container.as_ref());
    if args.json {
        return Ok(cx
            .ui
            .result(&format!("{}\n", serde_json::to_string_pretty(&status)?))?);
    }
    cx.ui.result(&table(&status))?;
    if !container.is_some_and(|container| container.state.running) {
        cx.ui.hint("start it: `cargo xtask run-local`");
    }
    Ok(())
}

fn status(cx: &Context, engine: &Engine, container: Option<&Container>) -> Status {
    let name = &cx.settings.run.container;
    let mut status = Status {
        container: name.clone(),
        state: container.map_or("missing".to_owned(), |found| found.state.status.clone()),
        health: None,
        health_message: None,
        uptime_seconds: None,
        exit_code: None,
        image: container.map(|found| found.image().to_owned()),
        version: container
            .and_then(|found| found.label(label::VERSION))
            .map(str::to_owned),
        engine: engine.kind.to_string(),
    };
    let Some(container) = container else {
        return status;
    };
    if !container.state.running {
        status.exit_code = Some(container.state.exit_code);
        return status;
    }
    status.uptime_seconds = uptime(&container.state.started_at).map(|uptime| uptime.as_secs());
    let check = container
        .config
        .healthcheck
        .as_ref()
        .and_then(container::Healthcheck::command)
        .or_else(|| health::command(None, &cx.settings.health));
    // Asked now, for an engine's own record may be half a minute old, or never made.
    let answer = check.map(|argv| {
        cx.exec
            .ask(&engine.exec(name, argv), Duration::from_secs(10))
    });
    let (word, message) = match answer {
        Some(Ok(done)) if done.ok() => ("healthy", Some(health::last_words(&done))),
        Some(Ok(done)) => ("unhealthy", Some(health::last_words(&done))),
        Some(Err(_)) => (
            "unhealthy",
            Some("the check did not answer within 10 s".to_owned()),
        ),
        None => (
            "unknown",
            Some("the image has no health check that this engine can see".to_owned()),
        ),
    };
    status.health = Some(word.to_owned());
    status.health_message = message.filter(|message| message != "exit code 0");
    status
}

fn uptime(started_at: &str) -> Option<Duration> {
    let started = humantime::parse_rfc3339_weak(&without_offset(started_at)?).ok()?;
    SystemTime::now().duration_since(started).ok()
}

/// Engines tell UTC as `Z`, or as Podman does with the local offset, which humantime cannot read.
fn without_offset(time: &str) -> Option<String> {
    if time.ends_with('Z') {
        return Some(time.to_owned());
    }
    let (local, sign, offset) = match time.rsplit_once('+') {
        Some((local, offset)) => (local, 1, offset),
        None => time
            .rsplit_once('-')
            .map(|(local, offset)| (local, -1, offset))?,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let offset = sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60);
    let local = humantime::parse_rfc3339_weak(&format!("{local}Z")).ok()?;
    let shift = Duration::from_secs(offset.unsigned_abs());
    let utc = if offset < 0 {
        local.checked_add(shift)
    } else {
        local.checked_sub(shift)
    }?;
    Some(humantime::format_rfc3339(utc).to_string())
}

fn table(status: &Status) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let health = match (&status.health, &status.health_message) {
        (Some(health), Some(message)) => format!("{health} ({message})"),
        (health, _) => text(health),
    };
    let uptime = status
        .uptime_seconds
        .map(|seconds| human_time(Duration::from_secs(seconds)));
    let state = match status.exit_code {
        Some(code) => format!("{} with exit code {code}", status.state),
        None => status.state.clone(),
    };
    [
        ("container", status.container.clone()),
        ("state", state),
        ("health", health),
        ("uptime", text(&uptime)),
        ("image", text(&status.image)),
        ("version", text(&status.version)),
        ("engine", status.engine.clone()),
    ]
    .iter()
    .map(|(name, value)| format!("{name:<10} {value}\n"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_times_are_read() {
        assert_eq!(
            without_offset("2026-01-01T10:00:00.5Z").unwrap(),
            "2026-01-01T10:00:00.5Z"
        );
        assert!(
            without_offset("2026-01-01T10:00:00.500000000+02:00")
                .unwrap()
                .starts_with("2026-01-01T08:00:00.5")
        );
        assert!(
            without_offset("2026-01-01T10:00:00-01:30")
                .unwrap()
                .starts_with("2026-01-01T11:30:00")
        );
        assert_eq!(without_offset("yesterday"), None);
    }
}
