//! `status`: the container's state, health, uptime, image and version.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    base::{error::Failure, ui::human_time},
    cli::JsonOption,
    commands::{
        command::Command,
        health,
        json::{self, JsonEngine},
    },
    engine::{
        Engine,
        container::{self, Container},
        label,
    },
    facts::{
        context::{Context, paused_failure},
        search::Search,
    },
    plan::{Output, Step},
};

/// How long the health check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// Show the container's state, health, uptime, image and version
#[derive(Args, Clone, Debug)]
pub struct Status {
    #[command(flatten)]
    json: JsonOption,
    /// Fail if the container does not run or is not healthy
    #[arg(long)]
    exit_code: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    container: String,
    /// running, paused, exited, created, …; missing if there is no container; unknown if an engine that may
    /// have it gave no answer.
    state: String,
    /// healthy, unhealthy or unknown; null if it does not run or is paused.
    health: Option<&'static str>,
    health_message: Option<String>,
    uptime_seconds: Option<u64>,
    exit_code: Option<i32>,
    image: Option<String>,
    version: Option<String>,
    /// Only with `--json`: it takes one more question.
    engine: Option<JsonEngine>,
    /// The engines that gave no answer, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    no_answer: Vec<String>,
    #[serde(skip)]
    engine_name: String,
}

impl Command for Status {
    fn run(&self, cx: &Context) -> Result<()> {
        let name = &cx.settings.run.container;
        let search = cx.search(name)?;
        let found = search.one_of_ours(cx)?;
        let engine = found.as_ref().map(|(engine, _)| engine.clone());
        let engine = engine.or_else(|| search.any_engine());
        if let (true, Some(engine)) = (cx.dry_run, &engine) {
            let cmd = container::inspect_cmd(&engine.program, name);
            let plan = vec![Step::new(cmd, Output::Result)].into();
            return cx.run_or_print(&plan).map(|_| ());
        }
        let mut report = report(cx, &search, found.as_ref())?;
        if self.json.json {
            let engine = engine.map(|engine| cx.facts_of(&engine)).transpose()?;
            report.engine = engine.as_ref().map(Into::into);
            json::print(cx.ui, &report)?;
        } else {
            cx.ui.print(&table(&report))?;
            search.warn_of_silence(cx);
            match &found {
                Some((engine, container)) if container.state.is_paused() => {
                    for hint in paused_failure(engine, name).hint_lines() {
                        cx.ui.hint(hint);
                    }
                }
                Some((_, container)) if container.state.is_up() => {}
                _ if search.silent.is_empty() => cx.ui.hint("start it: `cargo xtask run-local`"),
                _ => {}
            }
        }
        match report.health {
            _ if !self.exit_code => Ok(()),
            Some("healthy") => Ok(()),
            Some("unknown") if !cx.settings.require.health_check => Ok(()),
            Some("unknown") => {
                let why = format!(
                    "the health of the container `{name}` is not known: the engine reports no health check for its image"
                );
                Err(Failure::new(why)
                    .hint("set `health.command`, or `require.health-check = false`")
                    .into())
            }
            Some(health) => Err(Failure::new(format!("the container `{name}` is {health}")).into()),
            None if report.state == "paused" => {
                Err(Failure::new(format!("the container `{name}` is paused")).into())
            }
            None => {
                search.fail_if_silent()?;
                Err(Failure::new(format!("the container `{name}` does not run")).into())
            }
        }
    }
}

fn report(cx: &Context, search: &Search, found: Option<&(Engine, Container)>) -> Result<Report> {
    let name = &cx.settings.run.container;
    let container = found.map(|(_, container)| container);
    let silent = search.silent.iter();
    let missing = match search.silent.len() {
        0 => "missing",
        _ => "unknown",
    };
    let answered: Vec<_> = match found {
        Some((engine, _)) => vec![engine],
        None => search.without.iter().collect(),
    };
    let answered: Vec<_> = answered.iter().map(|one| one.kind.to_string()).collect();
    let mut report = Report {
        container: name.clone(),
        state: container.map_or(missing.to_owned(), |found| found.state.status.clone()),
        health: None,
        health_message: None,
        uptime_seconds: None,
        exit_code: None,
        image: container.map(|found| found.image().to_owned()),
        version: container
            .and_then(|found| found.label(label::VERSION))
            .map(str::to_owned),
        engine: None,
        no_answer: silent
            .map(|one| format!("{} {}", one.program, one.why))
            .collect(),
        engine_name: answered.join(", "),
    };
    let Some((engine, container)) = found else {
        return Ok(report);
    };
    if container.state.is_paused() {
        return Ok(report);
    }
    if !container.state.running || health::has_ended(container) {
        report.exit_code = Some(container.state.exit_code);
        return Ok(report);
    }
    report.uptime_seconds = uptime(&container.state.started_at).map(|uptime| uptime.as_secs());
    let check = container
        .config
        .healthcheck
        .as_ref()
        .and_then(container::Healthcheck::command)
        .or_else(|| health::command(None, &cx.settings.health));
    // The check runs now: an engine's own record may be half a minute old, or missing.
    let answer = check.map(|argv| cx.exec.capture(&engine.exec(name, argv), CHECK_LIMIT));
    cx.exec.fail_if_interrupted()?;
    let (health, message) = match answer {
        Some(Ok(done)) if done.ok() => ("healthy", done.last_line()),
        Some(Ok(done)) => ("unhealthy", done.last_line()),
        Some(Err(why)) => ("unhealthy", format!("the check {why}")),
        None => (
            "unknown",
            "the engine reports no health check for the image".to_owned(),
        ),
    };
    report.health = Some(health);
    report.health_message = Some(message).filter(|message| message != "exit code 0");
    Ok(report)
}

fn uptime(started_at: &str) -> Option<Duration> {
    let started = humantime::parse_rfc3339_weak(&without_offset(started_at)?).ok()?;
    SystemTime::now().duration_since(started).ok()
}

/// Converts a time to UTC. Docker's times end with `Z`, Podman's with an offset, which humantime cannot read.
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

fn table(status: &Report) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let health = match (&status.health, &status.health_message) {
        (Some(health), Some(message)) => format!("{health} ({message})"),
        (health, _) => health.unwrap_or("-").to_owned(),
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
        ("engine", status.engine_name.clone()),
    ]
    .iter()
    .map(|(name, value)| format!("{name:<10} {value}\n"))
    .collect()
}

#[cfg(test)]
impl crate::commands::testing::Examples for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_engines_are_read() {
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
