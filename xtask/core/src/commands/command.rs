//! What a command declares. A command is a type: its fields are its arguments, its doc comment is its
//! help, and it implements one of these traits.

use anyhow::Result;

use crate::{
    base::{env::Env, ui::Ui},
    config::layer::Override,
    facts::context::Context,
};

/// A command that works with the configuration.
pub trait Command {
    /// The image version that was typed.
    fn version(&self) -> Option<&str> {
        None
    }

    /// The image's flavour, if it was given.
    fn flavour(&self) -> Option<&str> {
        None
    }

    /// The settings that its flags override.
    fn overrides(&self) -> Vec<Override> {
        Vec::new()
    }

    /// Runs the command; with `--dry-run`, prints what would run.
    ///
    /// # Errors
    /// When the command fails.
    fn run(&self, cx: &Context) -> Result<()>;
}

/// A command that needs neither a configuration nor an engine.
pub trait Standalone {
    /// Runs the command.
    ///
    /// # Errors
    /// When the command fails.
    fn run(&self, cx: &StandaloneContext) -> Result<()>;
}

/// What a [`Standalone`] command works with.
pub struct StandaloneContext<'a> {
    pub env: &'a Env,
    pub ui: Ui,
    /// All commands and options.
    pub cli: clap::Command,
    pub groups: &'a [Group],
}

/// The commands under one heading of the help.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub heading: &'static str,
    pub commands: &'static [&'static str],
}
