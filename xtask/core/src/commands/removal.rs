//! Removing one of our containers. Another run may be removing it at the same moment.

use std::time::Duration;

use anyhow::Result;

use crate::{
    base::{error::Failure, ui::Clock},
    engine::{Engine, container::Container},
    facts::context::{Context, Ran},
    plan::{Output, Plan, Step},
};

/// How long a removal that another run began may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The steps that remove a container. A running one is stopped first; `what` names it in the message.
pub fn steps(
    engine: &Engine,
    name: &str,
    what: impl Into<String>,
    container: &Container,
    grace: Duration,
) -> Vec<Step> {
    let remove = Step::new(engine.remove(name), Output::Quiet);
    stop_steps(engine, name, what, container, grace)
        .into_iter()
        .chain([remove])
        .collect()
}

/// The steps that stop a container; none if it does not run. A paused container continues first:
/// otherwise Docker would wait for the whole grace period, and Podman would refuse.
pub fn stop_steps(
    engine: &Engine,
    name: &str,
    what: impl Into<String>,
    container: &Container,
    grace: Duration,
) -> Vec<Step> {
    let unpause = Step::new(engine.unpause(name), Output::Quiet).ignore_failure();
    let stop = Step::new(engine.stop(name, grace), Output::Quiet).status("Stopping", what);
    let is = |condition: bool, step: Step| condition.then_some(step);
    is(container.state.is_paused(), unpause)
        .into_iter()
        .chain(is(container.state.is_up(), stop))
        .collect()
}

/// Runs a plan that removes containers. If a step fails because another run removed them first, that is a
/// success.
///
/// # Errors
/// The step's, if one of the containers is still there.
pub fn run_or_print(
    cx: &Context,
    engine: &Engine,
    plan: &Plan,
    containers: &[(&str, &Container)],
) -> Result<Ran> {
    let ran = cx.run_or_print(plan);
    if ran.is_ok() || cx.exec.stop_signal().is_some() {
        return ran;
    }
    for (name, container) in containers {
        if !is_gone(cx, engine, name, container)? {
            return ran;
        }
    }
    Ok(Ran::Yes)
}

/// Waits until a container is gone. False if it still exists when the limit is over.
///
/// # Errors
/// When the engine does not answer, and when a signal interrupts.
pub fn is_gone(cx: &Context, engine: &Engine, name: &str, container: &Container) -> Result<bool> {
    let clock = Clock::start();
    loop {
        let found = cx.container_of(engine, name)?;
        if found.is_none_or(|found| found.id != container.id) {
            return Ok(true);
        }
        if clock.elapsed() > LIMIT {
            return Ok(false);
        }
        cx.exec
            .pause(Duration::from_millis(100))
            .map_err(Failure::signal)?;
    }
}
