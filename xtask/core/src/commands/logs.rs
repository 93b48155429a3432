//! `logs`: the log of a container. On a terminal it follows the log.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    base::error::Failure,
    commands::{command::Command, stack::Names},
    engine::{Engine, container::LogOptions},
    facts::context::Context,
    plan::{Output, Plan, Step},
    settings::Settings,
};

/// Show the log of the container
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// Whose log: the runner's, or that of a server that `up` started
    #[arg(value_enum, default_value = "runner", value_name = "CONTAINER")]
    container: LogSource,
    /// Keep showing new lines [default on a terminal]
    #[arg(long, short, overrides_with = "no_follow")]
    follow: bool,
    /// Show the lines that exist, and end
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// Begin with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<u64>,
    /// Show only lines since a time or a duration ago, such as 2026-01-31T12:00:00 or 10m
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Show only lines until a time or a duration ago
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Show the time of each line
    #[arg(long, short)]
    timestamps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogSource {
    Runner,
    Temporal,
    Server,
}

impl Logs {
    fn container_name(&self, settings: &Settings) -> String {
        let names = Names::for_runner(&settings.run.container);
        match self.container {
            LogSource::Runner => names.runner,
            LogSource::Temporal => names.temporal,
            LogSource::Server => names.server,
        }
    }

    fn plan(&self, settings: &Settings, engine: &Engine, follow: bool) -> Plan {
        let options = LogOptions {
            follow,
            tail: self.tail,
            since: self.since.clone(),
            until: self.until.clone(),
            timestamps: self.timestamps,
        };
        let cmd = engine.logs(&self.container_name(settings), &options);
        vec![Step::new(cmd, Output::ReplaceProcess)].into()
    }
}

impl Command for Logs {
    fn run(&self, cx: &Context) -> Result<()> {
        let name = self.container_name(cx.settings);
        let search = cx.search(&name)?;
        let found = search.one_of_ours(cx).map_err(|foreign| {
            let program = search.found.first().map(|(engine, _)| &engine.program);
            foreign.hints(program.map(|program| format!("read its log: `{program} logs {name}`")))
        })?;
        if let Some((engine, container)) = &found
            && !container.has_log()
        {
            return Err(Failure::new(format!(
                "the container `{name}` keeps no log: the log driver of {} is `none`",
                engine.kind
            ))
            .hint(format!(
                "set another log driver: {}",
                engine.log_driver_setting()
            ))
            .into());
        }
        let engine = found.map(|(engine, _)| engine);
        let Some(engine) = engine.or_else(|| search.any_engine().filter(|_| cx.dry_run)) else {
            search.fail_if_silent()?;
            let start = match self.container {
                LogSource::Runner => "run-local",
                LogSource::Temporal | LogSource::Server => "up",
            };
            return Err(Failure::new(format!("there is no container `{name}`"))
                .hint(format!("start it: `cargo xtask {start}`"))
                .into());
        };
        let follow = self.follow || (cx.env.stdout_tty && !self.no_follow && self.until.is_none());
        cx.run_or_print(&self.plan(cx.settings, &engine, follow))
            .map(|_| ())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Logs {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let lines = ["logs --tail 10", "logs server -t --until 5m"];
        machine.examples(&lines, |command: &Self, settings, _| {
            Ok(command.plan(settings, &machine.engine().engine, command.until.is_none()))
        })
    }
}
