//! `watch`: `build-image` and `run-local`, and both again whenever what they are made of changes.

mod files;
pub mod ignore;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::files::{Debounce, Look, Sources};
use super::{
    Context, build_image,
    run_local::{self, StartedBy},
};
use crate::{
    cli::{BuildArgs, Cli, RunArgs, WatchArgs},
    config,
    error::{self, Failure},
    settings::Settings,
    ui::Clock,
};

/// How often the files are scanned.
const SCAN_INTERVAL: Duration = Duration::from_millis(150);
/// With many files the pause between two scans grows, so that scanning takes at most a tenth
/// of a processor's time.
const PAUSE_PER_SCAN: u32 = 10;

/// Builds and starts, and again at every change, until a signal ends it.
///
/// # Errors
/// That signal. Before it, what no change of a file mends, such as that no engine answers; all else
/// is shown, and watching goes on.
pub fn run(cx: &Context, cli: &Cli, args: &WatchArgs) -> Result<()> {
    let parts = args.parts();
    if cx.dry_run {
        build_image::build(cx, &parts.0)?;
        return run_local::preview(cx, &parts.1);
    }
    cx.our_container()?;
    // Those of the last round that could read them.
    let mut settings = cx.settings.clone();
    let mut sources = Sources::of(&settings, cx.env);
    loop {
        // Before the build reads them: what changes from here on is for the round after this one.
        let mut built = sources.look();
        let read =
            config::find(&cx.env.cwd).and_then(|files| Ok(Settings::resolve(cli, cx.env, &files)?));
        let unreadable = match read {
            Ok(read) => {
                settings = read;
                let now = Sources::of(&settings, cx.env);
                if now != sources {
                    sources = now;
                    built = sources.look();
                }
                None
            }
            Err(error) => Some(error),
        };
        let cx = Context {
            settings: &settings,
            ..*cx
        };
        let done = unreadable.map_or_else(|| round(&cx, &parts), |error| goes_on(&cx, error));
        if let (Err(error), None) = (&done, cx.exec.caught()) {
            error::show(error, cx.ui);
        }
        if let Err(signal) = next_change(&cx, &sources, built) {
            let name = &settings.run.container;
            cx.ui.status(
                "Stopped",
                &if cx.exec.cleaning(|| runs(&cx)) {
                    format!("watching; {name} still runs: `cargo xtask stop` ends it")
                } else {
                    format!("watching; {name} does not run")
                },
            );
            return Err(signal.into());
        }
    }
}

/// One build, and one start if it is built: a build that fails leaves the container as it is.
fn round(cx: &Context, (build, run): &(BuildArgs, RunArgs)) -> Result<()> {
    let clock = Clock::start();
    build_image::build(cx, build)
        .map(|_| ())
        .or_else(|error| goes_on(cx, error))?;
    let built = clock.to_string();
    let restart = Clock::start();
    run_local::start(cx, run, StartedBy::RunLocal)?;
    let words = format!("in {clock}: {built} to build, {restart} until healthy");
    cx.ui.status("Ready", &words);
    Ok(())
}

/// Adds to what failed before the container was touched that it was not.
fn goes_on(cx: &Context, error: anyhow::Error) -> Result<()> {
    let failure = error.downcast::<Failure>()?;
    if cx.exec.caught().is_none() && runs(cx) {
        let name = &cx.settings.run.container;
        return Err(failure.hint(format!("{name} runs on as it was")).into());
    }
    Err(failure.into())
}

/// Whether our container runs; no answer is no.
fn runs(cx: &Context) -> bool {
    let found = cx.our_container();
    found.is_ok_and(|(_, container)| container.is_some_and(|one| one.state.running))
}

/// Waits for changes, and says which.
fn next_change(cx: &Context, sources: &Sources, built: Look) -> Result<(), Failure> {
    let count = built.count();
    let words = format!("{count} files; Ctrl-C ends it, and the container goes on");
    cx.exec.check()?;
    cx.ui.status("Watching", &words);
    let mut files = Debounce::new(built, Instant::now());
    loop {
        let clock = Clock::start();
        let look = sources.look();
        if let Some(changed) = files.take(look, Instant::now()) {
            let first = sources.say(&changed[0]);
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
