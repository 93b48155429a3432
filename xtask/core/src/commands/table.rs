//! The table of commands. Parsing, dispatch, help, completions, the README's table and the tests are
//! derived from it.

use clap::{Parser, Subcommand};

use crate::{
    cli::GlobalOptions,
    commands::command::{Command, Group, Standalone},
};

/// Build, run, test and manage the agent-runner container, with Docker or Podman.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Options of every command")]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub command: AnyCommand,
}

/// A command, by what it needs.
pub enum Needs<'a> {
    Configuration(&'a dyn Command),
    /// The configuration, and an HTTP client.
    Registry(&'a dyn Command),
    Nothing(&'a dyn Standalone),
}

macro_rules! needs {
    ($command:ident) => {
        Needs::Configuration($command)
    };
    ($command:ident registry) => {
        Needs::Registry($command)
    };
    ($command:ident standalone) => {
        Needs::Nothing($command)
    };
}

macro_rules! commands {
    ($($heading:literal { $($name:literal = $module:ident::$Type:ident $($needs:ident)?,)* })*) => {
        /// One variant for each command.
        #[derive(Debug, Subcommand)]
        pub enum AnyCommand {
            $($(#[command(name = $name)] $Type(crate::commands::$module::$Type),)*)*
        }

        impl AnyCommand {
            pub fn needs(&self) -> Needs<'_> {
                match self { $($(Self::$Type(command) => needs!(command $($needs)?),)*)* }
            }
        }

        /// The commands by their headings in the help.
        pub const GROUPS: &[Group] = &[
            $(Group { heading: $heading, commands: &[$($name),*] },)*
        ];

        /// The plans of every command on a machine, for the snapshots.
        #[cfg(test)]
        pub fn examples(machine: &crate::commands::testing::Machine) -> Vec<crate::commands::testing::Example> {
            use crate::commands::testing::Examples as _;
            let mut all = Vec::new();
            $($(all.extend(crate::commands::$module::$Type::examples(machine));)*)*
            all
        }
    };
}

commands! {
    "Development" {
        "check" = check::Check,
        "build-image" = build_image::BuildImage,
        "run-local" = run_local::RunLocal,
        "watch" = watch::Watch,
        "test-image" = test_image::TestImage,
        "logs" = logs::Logs,
        "status" = status::Status,
        "shell" = shell::Shell,
        "stop" = stop::Stop,
        "up" = up::Up,
        "down" = down::Down,
        "ask" = ask::Ask,
        "smoke" = smoke::Smoke,
        "export" = export::Export,
        "clean" = clean::Clean,
    }
    "Publishing" {
        "docker-login" = docker_login::DockerLogin,
        "logout" = logout::Logout,
        "push-image" = push_image::PushImage registry,
        "build-multiarch" = build_multiarch::BuildMultiarch,
        "push-multiarch" = push_multiarch::PushMultiarch registry,
        "push-archive" = push_archive::PushArchive registry,
        "verify-image" = verify_image::VerifyImage registry,
        "pack-archive" = pack_archive::PackArchive,
        "ci-check" = ci_check::CiCheck registry,
        "formula" = formula::Formula,
    }
    "Environment" {
        "doctor" = doctor::Doctor,
        "config" = config::Config,
        "explain" = explain::Explain standalone,
        "completions" = completions::Completions standalone,
        "help" = help::Help standalone,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }
}
