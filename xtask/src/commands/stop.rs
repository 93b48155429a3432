//! `stop`: SIGTERM, and SIGKILL when the grace is over. What is stopped already is a success.

use anyhow::Result;

use super::{Context, Ran};
use crate::{
    engine::{Engine, container::Container},
    plan::{Output, Plan, Step},
    settings::Settings,
    ui::Clock,
};

pub fn plan(settings: &Settings, engine: &Engine, container: Option<&Container>) -> Plan {
    let mut plan = Plan::default();
    let name = &settings.run.container;
    if container.is_some_and(|container| container.state.running) {
        plan.push(
            Step::new(engine.stop(name, settings.run.stop_grace), Output::Quiet)
                .say("Stopping", name.as_str()),
        );
    }
    plan
}

pub fn run(cx: &Context) -> Result<()> {
    let clock = Clock::start();
    let name = &cx.settings.run.container;
    let (engine, container) = cx.our_container()?;
    let plan = plan(cx.settings, &engine, container.as_ref());
    if cx.carry_out(&plan)? == Ran::No {
        return Ok(());
    }
    match (&container, plan.steps.is_empty()) {
        (None, _) => cx
            .ui
            .status("Stopped", &format!("nothing to stop: there is no `{name}`")),
        (Some(_), true) => cx.ui.status(
            "Stopped",
            &format!("nothing to stop: `{name}` is not running"),
        ),
        (Some(_), false) => cx.ui.status("Stopped", &format!("{name} in {clock}")),
    }
    Ok(())
}
