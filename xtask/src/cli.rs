//! What can be typed, and nothing else.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::schema::KEYS;

/// Build, run, test and manage the agent-runner container, with Docker or Podman.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Options of every command")]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Print the commands that would run, as lines for a shell, and run nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// The engine to use: auto takes the first of Docker and Podman that answers
    #[arg(long, global = true, value_name = "auto|docker|podman")]
    pub engine: Option<String>,
    /// Show every command as it runs
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Show only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Colour on the terminal
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run ruff and mypy over agent-runner, in a build stage
    Check(CheckArgs),
    /// Build the image for this machine's platform
    BuildImage(BuildArgs),
    /// Start the container and wait until it is healthy
    RunLocal(RunArgs),
    /// Check that the image keeps its promises
    TestImage(TestArgs),
    /// Show the container's log
    Logs(LogsArgs),
    /// Show the container's state, health, uptime, image and version
    Status(JsonArgs),
    /// Open a shell in the running container
    Shell(ShellArgs),
    /// Stop the container gracefully
    Stop,
    /// Remove our container and this version's images
    Clean(CleanArgs),
    /// Sign in to the image's registry
    DockerLogin(LoginArgs),
    /// Find out what is wrong with engines, ports, folders and settings
    Doctor(JsonArgs),
    /// Show the effective configuration and where each value comes from
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Show help for a command
    Help { command: Option<String> },
}

/// Under which heading `help` lists a command.
pub const GROUPS: &[(&str, &[&str])] = &[
    (
        "Development",
        &[
            "check",
            "build-image",
            "run-local",
            "test-image",
            "logs",
            "status",
            "shell",
            "stop",
            "clean",
        ],
    ),
    ("Publishing", &["docker-login"]),
    ("Environment", &["doctor", "config", "completions", "help"]),
];

#[derive(Args, Clone, Debug, Default)]
pub struct VersionArg {
    /// The image version, such as dev-me or 1.2.3 [default: $VERSION, the CI tag, or the file's]
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
}

/// What a build takes, whatever it builds.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildOptions {
    /// Build every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Ask the registry for a newer base image
    #[arg(long)]
    pub pull: bool,
    /// How the build shows its progress
    #[arg(long, value_name = "auto|plain|tty|quiet")]
    pub progress: Option<String>,
    /// A build argument; can be given several times
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// A build secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; can be given several times
    #[arg(long = "secret", value_name = "SECRET")]
    pub secrets: Vec<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub build: BuildOptions,
}

#[derive(Args, Clone, Debug, Default)]
pub struct BuildArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub build: BuildOptions,
    /// What to build for [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Run `check` first, whatever the channel says
    #[arg(long, conflicts_with = "no_check")]
    pub check: bool,
    /// Don't run `check` first, whatever the channel says
    #[arg(long)]
    pub no_check: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Don't wait until the container is healthy
    #[arg(long)]
    pub no_wait: bool,
    /// Keep the terminal: Ctrl-C stops the container, which is removed when it ends
    #[arg(long, conflicts_with = "no_wait")]
    pub foreground: bool,
    /// host, bridge or a network's name
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// A file of NAME=value lines for the container's environment
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct TestArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct JsonArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct LogsArgs {
    /// Go on showing what comes [default on a terminal]
    #[arg(long, short, overrides_with = "no_follow")]
    pub follow: bool,
    /// Show what is there and end
    #[arg(long)]
    pub no_follow: bool,
    /// Begin with the last N lines
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// Begin at a time or so long ago: 10m, 2026-01-31T12:00:00
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct ShellArgs {
    /// What to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct CleanArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Every image of the repository that was built here, of whatever version
    #[arg(long)]
    pub all: bool,
    /// Don't ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct LoginArgs {
    /// The registry [default: the image repository's]
    #[arg(long, value_name = "HOST")]
    pub registry: Option<String>,
    /// Whose token it is [default: registry.user, for ghcr.io the GitHub actor]
    #[arg(long, short, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the token from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// A setting that was typed: its key, its text, and the flag that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    pub key: &'static str,
    pub text: String,
    pub flag: &'static str,
}

impl Cli {
    /// The image version that was typed.
    pub fn version(&self) -> Option<&str> {
        let version = match &self.command {
            Command::Check(args) => &args.version,
            Command::BuildImage(args) => &args.version,
            Command::RunLocal(args) => &args.version,
            Command::TestImage(args) => &args.version,
            Command::Clean(args) => &args.version,
            Command::Config(args) => &args.version,
            Command::Logs(_)
            | Command::Status(_)
            | Command::Shell(_)
            | Command::Stop
            | Command::DockerLogin(_)
            | Command::Doctor(_)
            | Command::Completions { .. }
            | Command::Help { .. } => return None,
        };
        version.version.as_deref()
    }

    /// The settings that were typed: the top layer of the configuration.
    pub fn typed(&self) -> Vec<Typed> {
        let mut typed = Vec::new();
        let mut add = |key: &'static str, flag, text: Option<&str>| {
            debug_assert!(KEYS.iter().any(|known| known.path == key), "{key}");
            typed.extend(text.map(|text| Typed {
                key,
                text: text.to_owned(),
                flag,
            }));
        };
        add("engine.prefer", "--engine", self.global.engine.as_deref());
        let build = match &self.command {
            Command::BuildImage(args) => {
                add("build.target", "--target", args.target.as_deref());
                Some(&args.build)
            }
            Command::Check(args) => Some(&args.build),
            Command::RunLocal(args) => {
                add("run.network", "--network", args.network.as_deref());
                add("run.env-file", "--env-file", args.env_file.as_deref());
                None
            }
            Command::TestImage(_)
            | Command::Logs(_)
            | Command::Status(_)
            | Command::Shell(_)
            | Command::Stop
            | Command::Clean(_)
            | Command::DockerLogin(_)
            | Command::Doctor(_)
            | Command::Config(_)
            | Command::Completions { .. }
            | Command::Help { .. } => None,
        };
        if let Some(build) = build {
            add("build.progress", "--progress", build.progress.as_deref());
            add("build.pull", "--pull", build.pull.then_some("true"));
            let lines = |items: &[String]| (!items.is_empty()).then(|| items.join("\n"));
            add(
                "build.args",
                "--build-arg",
                lines(&build.build_args).as_deref(),
            );
            add(
                "build.secrets",
                "--secret",
                lines(&build.secrets).as_deref(),
            );
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<_> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let command = Cli::command();
        let mut known: Vec<_> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }
}
