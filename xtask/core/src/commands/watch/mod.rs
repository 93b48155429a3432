//! `watch`: builds the image and starts the container, and does both again whenever a source changes.

mod files;
pub mod ignore;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::{
    base::{
        error::{self, Failure},
        ui::Clock,
    },
    cli::{CheckOption, ContainerOptions, FlavourOption, VersionOption},
    commands::{
        build_image::{self, BuildImage},
        command::Command,
        run_local::{
            facts::StartedBy,
            start::{BACKGROUND, preview, start},
        },
        watch::files::{Debounce, Scan, Sources},
    },
    config::layer::Override,
    facts::context::Context,
};

/// How often the files are scanned.
const SCAN_INTERVAL: Duration = Duration::from_millis(150);
/// With many files the pause between two scans grows, so that scanning takes at most a tenth
/// of a processor's time.
const PAUSE_PER_SCAN: u32 = 10;

/// Build and start, and again at every change of a file
#[derive(Args, Clone, Debug)]
pub struct Watch {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    check: CheckOption,
    #[command(flatten)]
    container: ContainerOptions,
}

impl Command for Watch {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn overrides(&self) -> Vec<Override> {
        self.container.overrides().list
    }

    /// Runs until a signal ends it. A failure of a build or a start is shown, and watching goes on.
    fn run(&self, cx: &Context) -> Result<()> {
        let build = BuildImage::with_check(self.check);
        if cx.dry_run {
            build_image::build(cx, &build)?;
            return preview(cx, StartedBy::RunLocal);
        }
        cx.search(&cx.settings.run.container)?.ours()?;
        // The settings of the last round whose files could be read.
        let mut settings = cx.settings.clone();
        let mut sources = Sources::of(&settings, cx.env);
        loop {
            // The scan comes before the build: what changes from here on is built in the next round.
            let mut built = sources.scan();
            let unreadable = match cx.reload_settings() {
                Ok(reloaded) => {
                    settings = reloaded;
                    let now = Sources::of(&settings, cx.env);
                    if now != sources {
                        sources = now;
                        built = sources.scan();
                    }
                    None
                }
                Err(error) => Some(error),
            };
            let cx = Context {
                settings: &settings,
                ..*cx
            };
            let done = match unreadable {
                None => round(&cx, &build),
                Some(error) => Err(with_container_hint(&cx, error)),
            };
            if let (Err(error), None) = (&done, cx.exec.stop_signal()) {
                error::report(error, cx.ui);
            }
            if let Err(signal) = next_change(&cx, &sources, built) {
                let name = &settings.run.container;
                cx.ui.status(
                    "Stopped",
                    &if cx.exec.with_deferred_signals(|| runs(&cx)) {
                        format!("watching; {name} still runs: `cargo xtask stop` ends it")
                    } else {
                        format!("watching; {name} does not run")
                    },
                );
                return Err(signal.into());
            }
        }
    }
}

/// One build, and one start if the build succeeds. A build that fails leaves the container as it is.
fn round(cx: &Context, build: &BuildImage) -> Result<()> {
    let clock = Clock::start();
    build_image::build(cx, build).map_err(|error| with_container_hint(cx, error))?;
    let built = clock.to_string();
    let restart = Clock::start();
    start(cx, BACKGROUND, StartedBy::RunLocal)?;
    let words = format!("in {clock}: {built} to build, {restart} until healthy");
    cx.ui.status("Ready", &words);
    Ok(())
}

/// Adds a hint that the old container is still running.
fn with_container_hint(cx: &Context, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) if cx.exec.stop_signal().is_none() && runs(cx) => {
            let name = &cx.settings.run.container;
            failure
                .hint(format!("keep using the old container {name}, which is still running, or stop it: `cargo xtask stop`"))
                .into()
        }
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}

/// Whether our container runs. No answer counts as no.
fn runs(cx: &Context) -> bool {
    let found = cx.search(&cx.settings.run.container);
    let ours = found.and_then(|search| search.ours());
    ours.is_ok_and(|ours| ours.iter().any(|(_, one)| one.state.is_up()))
}

/// Waits for a change, and says what changed.
fn next_change(cx: &Context, sources: &Sources, built: Scan) -> Result<(), Failure> {
    let count = built.count();
    let words = format!("{count} files; Ctrl-C stops watching, and the container keeps running");
    cx.exec.fail_if_interrupted()?;
    cx.ui.status("Watching", &words);
    let mut debounce = Debounce::new(built, Instant::now());
    loop {
        let clock = Clock::start();
        let scan = sources.scan();
        if let Some(changed) = debounce.update(scan, Instant::now()) {
            let first = sources.display(&changed[0]);
            let words = match changed.len() - 1 {
                0 => first.to_string(),
                more => format!("{first} and {more} more"),
            };
            cx.ui.status("Changed", &words);
            return Ok(());
        }
        let pause = SCAN_INTERVAL.max(clock.elapsed() * PAUSE_PER_SCAN);
        cx.exec.pause(pause).map_err(Failure::signal)?;
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Watch {}
