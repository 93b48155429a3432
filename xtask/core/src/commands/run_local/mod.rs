//! `run-local`: replaces the container, starts it, and waits until it is healthy.

pub mod environment;
pub mod facts;
pub mod mounts;
pub mod network;
pub mod ports;
pub mod start;
pub mod warnings;

use anyhow::Result;
use clap::Args;

use crate::{
    cli::{ContainerOptions, EnvOption, FlavourOption, VersionOption},
    commands::{
        command::Command,
        run_local::{
            facts::StartedBy,
            start::{StartOptions, start},
        },
    },
    config::layer::Override,
    facts::context::Context,
};

/// Start the container and wait until it is healthy
#[derive(Args, Clone, Debug, Default)]
pub struct RunLocal {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    /// Don't wait until the container is healthy
    #[arg(long)]
    no_wait: bool,
    /// Keep the terminal: Ctrl-C stops the container
    #[arg(long, conflicts_with = "no_wait")]
    foreground: bool,
    #[command(flatten)]
    container: ContainerOptions,
    #[command(flatten)]
    env: EnvOption,
    /// A further mount; can be given several times
    #[arg(long = "volume", short, value_name = "HOST:CONTAINER[:OPTIONS]")]
    volumes: Vec<String>,
    /// Show every command as it runs
    // The global option without its short form: as in `docker run`, `-v` is a volume here.
    #[arg(
        long,
        conflicts_with = "quiet",
        help_heading = "Options of every command"
    )]
    verbose: bool,
}

impl RunLocal {
    fn options(&self) -> StartOptions {
        StartOptions {
            wait: !self.no_wait,
            foreground: self.foreground,
        }
    }
}

impl Command for RunLocal {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn overrides(&self) -> Vec<Override> {
        self.env
            .add_to(self.container.overrides())
            .add("run.volumes", "--volume", self.volumes.clone())
            .list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        start(cx, self.options(), StartedBy::RunLocal)?;
        if !cx.dry_run {
            cx.ui.hint(
                "next: `cargo xtask logs`, `cargo xtask status`, `cargo xtask shell`, `cargo xtask stop`",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for RunLocal {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let lines = [
            "run-local --version dev-me",
            "run-local --version 1.2.3",
            "run-local --version 1.2.3 --flavour tools",
            "run-local --version dev-me --foreground --network bridge",
            "run-local --version dev-me -e LOG_LEVEL=debug -e OPENAI_API_KEY -v /tmp/more:/more",
        ];
        machine.examples(&lines, |command: &Self, settings, env| {
            // A development image is here and its container runs; a released image is neither.
            let released = settings.channel.name == "release";
            let facts = machine.run_facts(settings, !released);
            start::plan(settings, env, &facts, command.options())
        })
    }
}
