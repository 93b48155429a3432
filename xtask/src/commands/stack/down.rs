//! `down`: stops and removes what `up` started, and nothing else.

use anyhow::Result;

use super::{Names, remove_steps};
use crate::{
    commands::{Context, Ran},
    engine::{
        EngineFacts,
        container::{Container, Owner},
        label,
    },
    plan::Plan,
    settings::Settings,
    ui::Clock,
};

/// A container of one of our names.
pub struct Found {
    pub name: String,
    pub container: Container,
}

pub fn plan(settings: &Settings, engine: &EngineFacts, found: &[Found]) -> Plan {
    let mut plan = Plan::default();
    for one in found {
        if started_by_up(settings, &one.container) {
            let steps = remove_steps(engine, &one.name, &one.container, settings.run.stop_grace);
            plan.steps.extend(steps.steps);
        }
    }
    plan
}

fn started_by_up(settings: &Settings, container: &Container) -> bool {
    container.owner() == Owner::Us
        && container.label(label::STACK) == Some(settings.run.container.as_str())
}

pub fn run(cx: &Context) -> Result<()> {
    let clock = Clock::start();
    let (engine, _) = cx.probe().engine_and_others()?;
    let names = Names::beside(&cx.settings.run.container);
    let mut found = Vec::new();
    // The runner first: it is to drain while the others are there.
    for name in [names.runner, names.server, names.temporal] {
        let container = cx.probe().container_of(&engine.engine, &name)?;
        if let Some(container) = container {
            if !started_by_up(cx.settings, &container) {
                cx.ui
                    .warn(&format!("`{name}` stays: `up` did not start it"));
            }
            found.push(Found { name, container });
        }
    }
    let plan = plan(cx.settings, &engine, &found);
    let nothing = plan.steps.is_empty();
    if cx.carry_out(&plan)? == Ran::Yes {
        let what = if nothing {
            "nothing to take down".to_owned()
        } else {
            format!("in {clock}; the workspace stays")
        };
        cx.ui.status("Down", &what);
    }
    Ok(())
}
