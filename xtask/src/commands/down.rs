//! `down`: stops and removes what `up` started, and nothing else.

use anyhow::Result;
use clap::Args;

use crate::{
    base::ui::Clock,
    commands::{command::Command, removal, stack::Names},
    engine::{
        EngineFacts,
        container::{Container, Owner},
        label,
    },
    facts::context::{Context, Ran},
    plan::Plan,
    settings::Settings,
};

/// Stop and remove what `up` started
#[derive(Args, Clone, Debug)]
pub struct Down {}

/// A container with one of our names.
struct Found {
    name: String,
    container: Container,
}

fn plan(settings: &Settings, engine: &EngineFacts, found: &[Found]) -> Plan {
    let mut plan = Plan::default();
    for Found { name, container } in found {
        if started_by_up(settings, container) {
            let grace = settings.run.stop_grace;
            let steps = removal::steps(&engine.engine, name, name.as_str(), container, grace);
            plan.steps.extend(steps);
        }
    }
    plan
}

fn started_by_up(settings: &Settings, container: &Container) -> bool {
    container.owner() == Owner::Xtask
        && container.label(label::STACK) == Some(settings.run.container.as_str())
}

impl Command for Down {
    fn run(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let (engine, _) = cx.engine_and_rejected()?;
        let names = Names::for_runner(&cx.settings.run.container);
        let mut found = Vec::new();
        // The runner first: it needs the servers to finish its work.
        for name in [names.runner, names.server, names.temporal] {
            if let Some(container) = cx.container_of(&engine.engine, &name)? {
                if !started_by_up(cx.settings, &container) {
                    cx.ui
                        .warn(&format!("`{name}` stays: `up` did not start it"));
                }
                found.push(Found { name, container });
            }
        }
        let plan = plan(cx.settings, &engine, &found);
        let nothing = plan.steps.is_empty();
        let ours = found
            .iter()
            .filter(|found| started_by_up(cx.settings, &found.container));
        let ours: Vec<_> = ours
            .map(|found| (found.name.as_str(), &found.container))
            .collect();
        if removal::run_or_print(cx, &engine.engine, &plan, &ours)? == Ran::Yes {
            if nothing {
                cx.ui.status("Nothing", "to stop: `up` has started nothing");
            } else {
                cx.ui
                    .status("Down", &format!("in {clock}; the workspace stays"));
            }
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
            let mut container = machine.running_container();
            let stack = (label::STACK.to_owned(), settings.run.container.clone());
            let labels = container.config.labels.get_or_insert_default();
            labels.extend([stack]);
            let found = Found {
                name: settings.run.container.clone(),
                container,
            };
            Ok(plan(settings, &machine.engine(), &[found]))
        })
    }
}
