//! `build-image`: the image for one platform, under all the version's tags.

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
    engine::build::Build,
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
    // A tag such as `latest` only moves forward, as in the registry.
    let is_newer = |reference: &String| facts.newer.iter().any(|(newer, _)| newer == reference);
    build.references.retain(|reference| !is_newer(reference));
    Ok(build)
}

/// Builds the image and reports it. Returns its reference; none after a dry run.
///
/// # Errors
/// When the build fails.
pub fn build(cx: &Context, args: &BuildImage) -> Result<Option<String>> {
    let clock = Clock::start();
    let mut facts = BuildFacts::gather(cx)?;
    for warning in &facts.files.warnings {
        cx.ui.warn(warning);
    }
    let done = cx.run_or_print(&plan(cx.settings, &facts, args)?);
    if let Ok(Ran::No) = done {
        return Ok(None);
    }
    let build = requested(cx.settings, &facts, args)?;
    let start = request::foundation_of(&facts, &build);
    let again = match (&done, start) {
        (Ok(_), Some(start)) => start
            .is_outdated(cx, &facts.engine)?
            .then_some("there is a newer base image"),
        (Err(_), Some(start)) => start
            .was_removed(cx, &facts.engine)
            .then_some("the image that the build started from was removed"),
        (_, None) => None,
    };
    if let Some(why) = again {
        cx.ui.status("Building", &format!("again: {why}"));
        facts = BuildFacts::gather(cx)?;
        let mut again = args.clone();
        (again.check.check, again.check.no_check) = (false, true);
        cx.run_or_print(&plan(cx.settings, &facts, &again)?)?;
    } else {
        done?;
    }
    report(cx, &facts, clock).map(Some)
}

/// Prints what was built, and returns its reference.
fn report(cx: &Context, facts: &BuildFacts, clock: Clock) -> Result<String> {
    let reference = cx.settings.reference(&facts.git.values)?;
    // Podman 4.3 exits with 0 when a signal ends its build, so only the image itself is proof.
    let found = cx.images_of(&facts.engine.engine, &[&reference]);
    cx.exec.fail_if_interrupted()?;
    let built = found
        .ok()
        .and_then(|found| found.into_iter().next())
        .ok_or_else(|| {
            Failure::new(format!(
                "the build ended, but there is no image `{reference}`"
            ))
        })?;
    let ui = cx.ui;
    ui.status(
        "Built",
        &format!(
            "{reference} ({}, {}) in {clock}",
            built.short_id(),
            built.platform()
        ),
    );
    for (reference, version) in &facts.newer {
        ui.status(
            "Stays",
            &format!("{reference} at {version}, which is newer"),
        );
    }
    if let Err(warning) = work_tree::check(cx.settings, &facts.git, Uncommitted::Refused) {
        ui.warn(&warning.to_string());
    }
    Ok(reference)
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
