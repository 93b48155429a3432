//! `check`: ruff and mypy over agent-runner, in a build stage: the host needs no Python.

use anyhow::Result;

use super::{
    Context,
    build_image::{self, BuildFacts},
};
use crate::{
    cli::CheckArgs,
    engine::label,
    error::Failure,
    image::VERSION_LABEL,
    plan::{Output, Plan, Step},
    settings::Settings,
    ui::Clock,
};

/// The one step: the build of the stage that checks.
pub fn step(settings: &Settings, facts: &BuildFacts, no_cache: bool) -> Result<Step, Failure> {
    let mut build = build_image::request(settings, facts, None)?;
    build.target.clone_from(&settings.build.check_target);
    build.references.clear();
    // What `clean` knows it by, where an image is kept of it.
    build
        .labels
        .retain(|name, _| name == label::IMAGE || name == VERSION_LABEL);
    build.no_cache = no_cache;
    let cmd = facts.engine.build_and_forget(&build);
    Ok(Step::new(cmd, Output::Talk).say("Checking", "agent-runner with ruff and mypy"))
}

pub fn run(cx: &Context, args: &CheckArgs) -> Result<()> {
    let clock = Clock::start();
    let facts = build_image::facts(cx)?;
    let check = step(cx.settings, &facts, args.build.no_cache)?;
    let plan = Plan {
        steps: build_image::cache_step(&facts)
            .into_iter()
            .chain([check])
            .collect(),
    };
    if cx.carry_out(&plan)? == super::Ran::Yes {
        cx.ui.status(
            "Checked",
            &format!("agent-runner in {clock}: ruff and mypy have no complaint"),
        );
    }
    Ok(())
}
