//! `down`: stops and removes what `up` started, and nothing else.

use anyhow::Result;
use clap::Args;

use crate::{
    base::ui::Clock,
    commands::{
        command::Command,
        removal,
        stack::{Names, belongs_to_stack},
    },
    engine::{Engine, container::Container},
    facts::context::{Context, Ran},
    plan::Plan,
    settings::Settings,
};

/// Stop and remove what `up` started
#[derive(Args, Clone, Debug)]
pub struct Down {}

fn plan(settings: &Settings, engine: &Engine, name: &str, container: &Container) -> Plan {
    removal::steps(engine, name, name, container, settings.run.stop_grace).into()
}

impl Command for Down {
    /// Removes the stack in each engine that has one, as `stop` does.
    fn run(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let names = Names::for_runner(&cx.settings.run.container);
        let (mut ran, mut removed, mut silent) = (Ran::Yes, 0, None);
        // The runner first: it needs the servers to finish its work.
        for name in [&names.runner, &names.server, &names.temporal] {
            let search = cx.search(name)?;
            for (engine, container) in &search.found {
                if !belongs_to_stack(cx.settings, container) {
                    cx.ui.warn(&format!(
                        "`{name}` in {} stays: `up` did not start it",
                        engine.kind
                    ));
                    continue;
                }
                let plan = plan(cx.settings, engine, name, container);
                ran = removal::run_or_print(cx, engine, &plan, &[(name, container)])?;
                removed += 1;
            }
            if let Err(why) = search.fail_if_silent() {
                silent.get_or_insert(why);
            }
        }
        if let Some(why) = silent {
            return Err(why.into());
        }
        match (ran, removed) {
            (Ran::No, _) => {}
            _ if cx.dry_run => {}
            (Ran::Yes, 0) => cx.ui.status("Nothing", "to stop: `up` has started nothing"),
            (Ran::Yes, _) => cx
                .ui
                .status("Down", &format!("in {clock}; the workspace stays")),
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Down {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(&["down"], |_: &Self, settings, _| {
            let container = machine.running_container();
            let name = &settings.run.container;
            Ok(plan(settings, &machine.engine().engine, name, &container))
        })
    }
}
