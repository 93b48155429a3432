//! `stop`: stops the container with SIGTERM, with SIGKILL when its grace period is over, and removes it.

use anyhow::Result;
use clap::Args;

use crate::{
    base::ui::Clock,
    commands::{command::Command, removal},
    engine::{Engine, container::Container},
    facts::context::{Context, Ran},
    plan::Plan,
    settings::Settings,
};

/// Stop and remove the container
#[derive(Args, Clone, Debug)]
pub struct Stop {
    /// Keep the stopped container, for its log
    #[arg(long)]
    keep: bool,
}

impl Stop {
    fn plan(&self, settings: &Settings, engine: &Engine, container: &Container) -> Plan {
        let name = &settings.run.container;
        let grace = settings.run.stop_grace;
        if self.keep {
            removal::stop_steps(engine, name, name.as_str(), container, grace).into()
        } else {
            removal::steps(engine, name, name.as_str(), container, grace).into()
        }
    }

    /// What was done to a container.
    fn done(&self, name: &str, container: &Container, clock: Clock) -> (&'static str, String) {
        match (container.state.is_up(), self.keep) {
            (false, true) => ("Nothing", format!("to stop: {name} does not run")),
            (false, false) => (
                "Removed",
                format!("{name}, which was not running, in {clock}"),
            ),
            (true, true) => ("Stopped", format!("{name} in {clock}")),
            (true, false) => ("Stopped", format!("and removed {name} in {clock}")),
        }
    }
}

impl Command for Stop {
    /// Stops the container in each engine that has one: a runner that stays would take further work.
    fn run(&self, cx: &Context) -> Result<()> {
        let name = &cx.settings.run.container;
        let search = cx.search(name)?;
        let ours = search.ours()?;
        for (engine, container) in &ours {
            let clock = Clock::start();
            let plan = self.plan(cx.settings, engine, container);
            if removal::run_or_print(cx, engine, &plan, &[(name, container)])? == Ran::No {
                continue;
            }
            let shown = match ours.len() {
                1 => name.clone(),
                _ => format!("{name} in {}", engine.kind),
            };
            let (verb, what) = self.done(&shown, container, clock);
            cx.ui.status(verb, &what);
        }
        if ours.is_empty() {
            search.fail_if_silent()?;
            if !cx.dry_run {
                let nothing = format!("to stop: there is no container {name}");
                cx.ui.status("Nothing", &nothing);
            }
        } else {
            search.warn_of_silence(cx);
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Stop {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(&["stop", "stop --keep"], |command: &Self, settings, _| {
            let container = machine.running_container();
            Ok(command.plan(settings, &machine.engine().engine, &container))
        })
    }
}
