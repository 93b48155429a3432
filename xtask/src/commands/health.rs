//! The health check, run by us: an engine's own schedule answers after seconds (Docker), half a
//! minute (old Docker) or never (Podman without systemd), and some images lose the check when
//! another engine reads them.

use std::{thread, time::Duration};

use crate::{
    engine::{
        Engine,
        container::{self, Container},
        image::Image,
    },
    exec::{Exec, Finished},
    plan::Cmd,
    settings::HealthSettings,
    ui::{Clock, Ui, human_time},
};

/// How often an unhealthy container is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one check may take; engines' own limit is the image's, 10 s here.
const ONE_CHECK: Duration = Duration::from_secs(10);

/// The check to run: the image's own, else the configured one.
pub fn command(image: Option<&Image>, settings: &HealthSettings) -> Option<Vec<String>> {
    image
        .and_then(Image::health_command)
        .or_else(|| (!settings.command.is_empty()).then(|| settings.command.clone()))
}

/// Why a container did not become healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// The time budget was used up. Holds the last line that the check printed.
    TimedOut(String),
    /// The container exited before the check passed.
    Exited(Box<Container>),
}

/// What to ask, of whom, and for how long.
pub struct Wait<'a> {
    pub exec: &'a Exec,
    pub ui: Ui,
    pub engine: &'a Engine,
    pub container: &'a str,
    pub check: &'a Cmd,
    pub budget: Duration,
}

impl Wait<'_> {
    /// Asks until the check passes, the container ends or the budget is over.
    ///
    /// # Errors
    /// When a signal told us to stop.
    pub fn run(&self) -> anyhow::Result<Result<Duration, Unhealthy>> {
        let clock = Clock::start();
        loop {
            let answer = self.exec.ask(self.check, ONE_CHECK);
            self.exec.check()?;
            let elapsed = clock.elapsed();
            let words = match answer {
                Ok(done) if done.ok() => {
                    self.ui.progress_done();
                    return Ok(Ok(elapsed));
                }
                Ok(done) => last_words(&done),
                Err(why) => format!("{why:?}"),
            };
            if let Some(ended) = self.ended() {
                self.ui.progress_done();
                return Ok(Err(Unhealthy::Exited(Box::new(ended))));
            }
            if elapsed >= self.budget {
                self.ui.progress_done();
                return Ok(Err(Unhealthy::TimedOut(words)));
            }
            self.ui.progress(&format!(
                "     Waiting until healthy, {} ({words})",
                human_time(elapsed)
            ));
            thread::sleep(PAUSE);
        }
    }

    fn ended(&self) -> Option<Container> {
        let answer = self.exec.ask(
            &container::inspect_cmd(&self.engine.program, self.container),
            ONE_CHECK,
        );
        let (_, container) =
            container::read_inspect(&self.engine.program, &answer, ONE_CHECK).ok()?;
        container
            .filter(|container| !container.state.running && container.state.status != "created")
    }
}

/// What a failed check said last.
pub fn last_words(done: &Finished) -> String {
    let said = |text: &str| {
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(str::to_owned)
    };
    said(&done.stdout)
        .or_else(|| said(&done.stderr))
        .unwrap_or_else(|| format!("exit code {}", done.code))
}
