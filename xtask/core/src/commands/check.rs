//! `check`: the checks of the sources, in a build stage: this machine needs no Python.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{error::Failure, ui::Clock},
    build::{facts::BuildFacts, request},
    cli::{BuildOptions, VersionOption},
    commands::command::Command,
    config::layer::Override,
    facts::context::{Context, Ran},
    plan::Plan,
    settings::Settings,
};

/// Check the sources, in a build stage
#[derive(Args, Clone, Debug)]
pub struct Check {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    build: BuildOptions,
}

impl Check {
    fn plan(&self, settings: &Settings, facts: &BuildFacts) -> Result<Plan, Failure> {
        let mut plan = Plan::from(request::preparation(facts));
        plan.push(request::check_step(settings, facts, self.build.no_cache)?);
        Ok(plan)
    }
}

impl Command for Check {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn overrides(&self) -> Vec<Override> {
        self.build.overrides().list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let facts = BuildFacts::gather(cx)?;
        facts.warn(cx);
        if cx.run_or_print(&self.plan(cx.settings, &facts)?)? == Ran::Yes {
            cx.ui.status(
                "Checked",
                &format!("the sources in {clock}: no problem was found"),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Check {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(&["check"], |command: &Self, settings, _| {
            command.plan(settings, &machine.build_facts())
        })
    }
}
