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
    fn plan(&self, settings: &Settings, engine: &Engine, container: Option<&Container>) -> Plan {
        let name = &settings.run.container;
        let Some(container) = container else {
            return Plan::default();
        };
        let grace = settings.run.stop_grace;
        let mut steps = removal::steps(engine, name, name.as_str(), container, grace);
        if self.keep {
            steps.pop();
        }
        steps.into()
    }
}

impl Command for Stop {
    fn run(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let name = &cx.settings.run.container;
        let (engine, container) = cx.our_container()?;
        let plan = self.plan(cx.settings, &engine, container.as_ref());
        let ours: Vec<_> = container.iter().map(|ours| (name.as_str(), ours)).collect();
        if removal::run_or_print(cx, &engine, &plan, &ours)? == Ran::No {
            return Ok(());
        }
        let running = container
            .as_ref()
            .is_some_and(|container| container.state.running);
        match (&container, running, self.keep) {
            (None, _, _) => cx
                .ui
                .status("Nothing", &format!("to stop: there is no container {name}")),
            (Some(_), false, true) => cx
                .ui
                .status("Nothing", &format!("to stop: {name} does not run")),
            (Some(_), false, false) => cx.ui.status(
                "Removed",
                &format!("{name}, which was not running, in {clock}"),
            ),
            (Some(_), true, true) => cx.ui.status("Stopped", &format!("{name} in {clock}")),
            (Some(_), true, false) => cx
                .ui
                .status("Stopped", &format!("and removed {name} in {clock}")),
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
            Ok(command.plan(settings, &machine.engine().engine, Some(&container)))
        })
    }
}
