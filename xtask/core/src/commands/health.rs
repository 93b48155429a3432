//! The health check, run by xtask. An engine's own schedule gives its first answer late (Docker,
//! especially before 25) or never (Podman without systemd), and some images lose the check when another
//! engine reads them.

use std::time::Duration;

use anyhow::Result;

use crate::{
    engine::{Engine, container::Container, image::Image},
    exec::GaveUp,
    facts::context::Context,
    plan::Cmd,
    settings::HealthSettings,
};

/// The check to run: the image's own, else the configured one.
pub fn command(image: Option<&Image>, settings: &HealthSettings) -> Option<Vec<String>> {
    image
        .and_then(Image::health_command)
        .or_else(|| (!settings.command.is_empty()).then(|| settings.command.clone()))
}

/// Why a container did not become healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// The time budget is used up. Holds the last line that the check printed.
    TimedOut(String),
    /// The container exited before the check passed.
    Exited(Box<Container>),
}

/// Waits for a container.
pub struct Wait<'a> {
    pub cx: &'a Context<'a>,
    pub engine: &'a Engine,
    pub container: &'a str,
    pub check: &'a Cmd,
    pub budget: Duration,
}

/// Whether the program of a container has ended. With `run.restart`, Docker says of a container that ends again and
/// again that it is running.
pub fn has_ended(container: &Container) -> bool {
    let state = &container.state;
    state.status == "restarting" || (!state.is_up() && state.status != "created")
}

impl Wait<'_> {
    /// Repeats the check until it passes, the container exits or the budget is used up. Returns how long
    /// it took.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn run(&self) -> Result<Result<Duration, Unhealthy>> {
        let name = format!("{} to be healthy", self.container);
        let exec = self.cx.exec;
        let clock = crate::base::ui::Clock::start();
        let waited = exec.retry(self.check, &name, self.budget, |_| self.exited())?;
        Ok(match waited {
            Ok(_) => Ok(clock.elapsed()),
            Err(GaveUp::TimedOut(why)) => Err(Unhealthy::TimedOut(why)),
            Err(GaveUp::Because(container, _)) => Err(Unhealthy::Exited(Box::new(container))),
        })
    }

    fn exited(&self) -> Option<Container> {
        let container = self.cx.container_of(self.engine, self.container);
        container.ok().flatten().filter(has_ended)
    }
}
