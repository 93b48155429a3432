//! `build-image`: the image for one platform, under all the version's tags.

use std::thread;

use anyhow::Result;
use clap::Args;

use crate::{
    base::{error::Failure, ui::Clock},
    build::{
        facts::BuildFacts,
        ownership, request,
        work_tree::{self, Uncommitted},
    },
    cli::{BuildOptions, CheckOption, FlavourOption, VersionOption, parse_platform},
    commands::command::Command,
    config::layer::Override,
    engine::{EngineFacts, build::Build, image::Image},
    facts::context::{Context, Ran},
    plan::Plan,
    settings::{CheckFirst, Settings},
};

/// Build the image for this machine's platform
#[derive(Args, Clone, Debug, Default)]
pub struct BuildImage {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    build: BuildOptions,
    /// The platform to build for [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    #[command(flatten)]
    check: CheckOption,
}

impl BuildImage {
    /// A build for this machine's platform with the options of another command.
    pub fn with_options(build: BuildOptions, check: CheckOption) -> Self {
        Self {
            build,
            check,
            ..Self::default()
        }
    }

    /// A build with all defaults, but for `check`.
    pub fn with_check(check: CheckOption) -> Self {
        Self::with_options(BuildOptions::default(), check)
    }
}

impl Command for BuildImage {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn overrides(&self) -> Vec<Override> {
        let build = self.build.overrides();
        build
            .set("build.target", "--target", self.target.clone())
            .list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        if let Some(reference) = build(cx, self)? {
            let options = cx.settings.version_options();
            cx.ui.hint(&format!(
                "next: `cargo xtask run-local {options}` or `cargo xtask test-image {options}`"
            ));
            cx.ui.print(&format!("{reference}\n"))?;
        }
        Ok(())
    }
}

/// The plan: the build, after `check` if that is asked for.
///
/// # Errors
/// When the build would take a tag from an image that xtask did not build, and when the configuration
/// does not list the platform.
pub fn plan(settings: &Settings, facts: &BuildFacts, args: &BuildImage) -> Result<Plan, Failure> {
    let mut plan = Plan::from(request::preparation(facts));
    match request::check_first(settings, args.check) {
        CheckFirst::Yes => plan.push(request::check_step(settings, facts, args.build.no_cache)?),
        CheckFirst::No => {}
    }
    ownership::check_tags(settings, facts)?;
    let build = requested(settings, facts, args)?;
    let what = format!(
        "{} for {} with {}",
        build.references.join(", "),
        build.platform_list(),
        facts.engine.describe()
    );
    plan.steps.extend(request::image_steps(facts, &build, what));
    Ok(plan)
}

/// What is built.
fn requested(settings: &Settings, facts: &BuildFacts, args: &BuildImage) -> Result<Build, Failure> {
    // The engine's own platform needs no emulation.
    let platform = parse_platform("--platform", args.platform.as_deref())?;
    let platform = platform.as_ref().unwrap_or(&facts.engine.platform);
    let mut build = request::build_for_platform(settings, facts, platform)?;
    build.no_cache = args.build.no_cache;
    facts.retain_newest(&mut build.references);
    Ok(build)
}

/// Builds the image and reports it. Returns its reference; none after a dry run.
///
/// # Errors
/// When the build fails.
pub fn build(cx: &Context, args: &BuildImage) -> Result<Option<String>> {
    let clock = Clock::start();
    let mut facts = BuildFacts::gather(cx)?;
    facts.warn(cx);
    let done = cx.run_or_print(&plan(cx.settings, &facts, args)?);
    if let Ok(Ran::No) = done {
        return Ok(None);
    }
    let reference = cx.settings.reference(&facts.git.values)?;
    let build = requested(cx.settings, &facts, args)?;
    let engine = facts.engine.clone();
    let find = || find_built(cx, &engine, &reference);
    // Each answer takes Podman a third of a second if its store has many images.
    let (again, mut built) = thread::scope(|scope| {
        let is_done = done.is_ok();
        let built = scope.spawn(move || is_done.then(find));
        let again = why_again(cx, &facts, &build, is_done);
        (again, built.join().expect("the thread does not panic"))
    });
    match (again?, done) {
        (None, done) => _ = done?,
        (Some(why), _) => {
            cx.ui.status("Building", &format!("again: {why}"));
            facts = BuildFacts::gather(cx)?;
            let mut again = args.clone();
            (again.check.check, again.check.no_check) = (false, true);
            cx.run_or_print(&plan(cx.settings, &facts, &again)?)?;
            built = None;
        }
    }
    let built = built.unwrap_or_else(find)?;
    report(cx, &facts, &reference, &built, clock);
    Ok(Some(reference))
}

/// Why the build must be repeated.
fn why_again(
    cx: &Context,
    facts: &BuildFacts,
    build: &Build,
    succeeded: bool,
) -> Result<Option<&'static str>> {
    let Some(start) = request::foundation_of(facts, build) else {
        return Ok(None);
    };
    Ok(if succeeded {
        start
            .is_outdated(cx, &facts.engine)?
            .then_some("there is a newer base image")
    } else {
        start
            .was_removed(cx, &facts.engine)
            .then_some("the image that the build started from was removed")
    })
}

/// The built image. Podman 4.3 exits with 0 when a signal ends its build, so only the image itself is proof.
fn find_built(cx: &Context, engine: &EngineFacts, reference: &str) -> Result<Image> {
    let found = cx.images_of(&engine.engine, &[reference]);
    cx.exec.fail_if_interrupted()?;
    let image = found.ok().and_then(|found| found.into_iter().next());
    Ok(image.ok_or_else(|| {
        Failure::new(format!(
            "the build ended, but there is no image `{reference}`"
        ))
    })?)
}

/// Prints what was built.
fn report(cx: &Context, facts: &BuildFacts, reference: &str, built: &Image, clock: Clock) {
    let ui = cx.ui;
    ui.status(
        "Built",
        &format!(
            "{reference} ({}, {}) in {clock}",
            built.short_id(),
            built.platform()
        ),
    );
    facts.report_newer(cx);
    if let Err(warning) = work_tree::check(cx.settings, &facts.git, Uncommitted::Refused) {
        ui.warn(&warning.to_string());
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for BuildImage {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let lines = [
            "build-image --version dev-me",
            "build-image --version dev-me --flavour tools",
            "build-image --version 1.2.3 --no-cache --pull --platform linux/arm64 --progress plain",
        ];
        machine.examples(&lines, |command: &Self, settings, _| {
            plan(settings, &machine.build_facts(), command)
        })
    }
}
