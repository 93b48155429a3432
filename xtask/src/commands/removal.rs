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
    let stop = Step::new(engine.stop(name, grace), Output::Quiet).status("Stopping", what);
    let remove = Step::new(engine.remove(name), Output::Quiet);
    let stop = container.state.running.then_some(stop);
    stop.into_iter().chain([remove]).collect()
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
