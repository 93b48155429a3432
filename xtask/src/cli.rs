//! What can be typed, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{commands::Options, config::schema::KEYS, time};

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
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
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
    /// Show at the end what was run and how long it took
    #[arg(long, global = true)]
    pub timings: bool,
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
    /// Build and start, and again at every change of a file
    Watch(WatchArgs),
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
    /// Start the whole stack: Temporal, a stigmer-server with a scripted model, and the runner
    Up(UpArgs),
    /// Stop and remove what `up` started
    Down,
    /// Ask an agent something, and see its answer and the files it made
    Ask(AskArgs),
    /// Prove the image: an agent at work, apart from all else
    Smoke(SmokeArgs),
    /// Remove our container and this version's images
    Clean(CleanArgs),
    /// Sign in to the image's registry
    DockerLogin(LoginArgs),
    /// Publish the local image, for its one platform
    PushImage(PushImageArgs),
    /// Build the image for all platforms, as a verified OCI archive
    BuildMultiarch(MultiArgs),
    /// Build the image for all platforms and publish it
    PushMultiarch(PushMultiArgs),
    /// Publish an archive that was built before
    PushArchive(PushArchiveArgs),
    /// Check what the registry, or an archive, holds
    VerifyImage(VerifyArgs),
    /// Make one OCI archive of several, or of what an engine wrote
    PackArchive(PackArgs),
    /// Find out what would keep a job from publishing, before it builds
    CiCheck(CiCheckArgs),
    /// Write the Homebrew formula and the list of versions of what was released
    Formula(FormulaArgs),
    /// Find out what is wrong with engines, ports, folders and settings
    Doctor(JsonArgs),
    /// Show the effective configuration and where each value comes from
    Config(ConfigArgs),
    /// Explain a known failure: why, and what to do
    Explain {
        /// Its code, or a line that was printed; without one all are listed
        code: Option<String>,
    },
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
            "watch",
            "test-image",
            "logs",
            "status",
            "shell",
            "stop",
            "up",
            "down",
            "ask",
            "smoke",
            "clean",
        ],
    ),
    (
        "Publishing",
        &[
            "docker-login",
            "push-image",
            "build-multiarch",
            "push-multiarch",
            "push-archive",
            "verify-image",
            "pack-archive",
            "ci-check",
            "formula",
        ],
    ),
    (
        "Environment",
        &["doctor", "config", "explain", "completions", "help"],
    ),
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

/// Whether `check` runs before a build.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct CheckChoice {
    /// Run `check` first, whatever the channel says
    #[arg(long, conflicts_with = "no_check")]
    pub check: bool,
    /// Don't run `check` first, whatever the channel says
    #[arg(long)]
    pub no_check: bool,
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
    #[command(flatten)]
    pub check: CheckChoice,
}

/// What the container has of this machine.
#[derive(Args, Clone, Debug, Default)]
pub struct ContainerOptions {
    /// host, bridge or a network's name
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// A file of NAME=value lines for the container's environment
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<String>,
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
    #[command(flatten)]
    pub container: ContainerOptions,
}

#[derive(Args, Clone, Debug, Default)]
pub struct WatchArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub check: CheckChoice,
    #[command(flatten)]
    pub container: ContainerOptions,
}

impl WatchArgs {
    /// What its two halves are told.
    pub fn parts(&self) -> (BuildArgs, RunArgs) {
        let build = BuildArgs {
            check: self.check,
            ..BuildArgs::default()
        };
        let run = RunArgs {
            container: self.container.clone(),
            ..RunArgs::default()
        };
        (build, run)
    }
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
pub struct UpArgs {
    #[command(flatten)]
    pub version: VersionArg,
}

#[derive(Args, Clone, Debug, Default)]
pub struct AskArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// What to ask
    pub message: String,
    /// The conversation; it is made if there is none [default: one for this question]
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// The agent [default: the development server's]
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// A model in place of the runner's own
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct SmokeArgs {
    #[command(flatten)]
    pub version: VersionArg,
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

/// How to publish.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PublishOptions {
    /// Overwrite a released version; the tag must then be typed
    #[arg(long)]
    pub force: bool,
    /// Ask nothing before the build: not the registry, not the work tree
    #[arg(long)]
    pub no_preflight: bool,
}

impl PublishOptions {
    pub fn options(self) -> Options {
        Options {
            force: self.force,
            preflight: !self.no_preflight,
        }
    }
}

#[derive(Args, Clone, Debug, Default)]
pub struct PushImageArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub options: PublishOptions,
}

#[derive(Args, Clone, Debug, Default)]
pub struct MultiArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub build: BuildOptions,
    #[command(flatten)]
    pub check: CheckChoice,
    /// Keep the result in the engine's image store, and write no archive
    #[arg(long, conflicts_with_all = ["shard", "merge", "output"])]
    pub load: bool,
    /// Build one platform, on a machine of its own: the parts are merged later
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "merge")]
    pub shard: Option<String>,
    /// Build nothing: put these archives together, or those in a folder; can be given several times
    #[arg(long, value_name = "ARCHIVE|FOLDER")]
    pub merge: Vec<PathBuf>,
    /// Where to write the archive [default: target/release/NAME-VERSION.oci.tar]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Build nothing: print the jobs that build one platform each, for a CI's matrix
    #[arg(long, conflicts_with_all = ["load", "shard", "merge", "output"])]
    pub matrix_json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct PushMultiArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub build: BuildOptions,
    #[command(flatten)]
    pub options: PublishOptions,
    #[command(flatten)]
    pub check: CheckChoice,
    /// Build nothing: publish these archives of single platforms together, or those in a folder
    #[arg(long, value_name = "ARCHIVE|FOLDER")]
    pub merge: Vec<PathBuf>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct PushArchiveArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub options: PublishOptions,
    /// The one platform it is for [default: all of the version's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    #[command(flatten)]
    pub place: PlaceArg,
    /// An archive of build-multiarch or pack-archive
    pub archive: PathBuf,
}

/// Where it is published.
#[derive(Args, Clone, Debug, Default)]
pub struct PlaceArg {
    /// Another place for the same image, such as a mirror [default: image.repository]
    #[arg(long, value_name = "HOST/PATH")]
    pub repository: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// The one platform it is for [default: all of the version's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    #[command(flatten)]
    pub place: PlaceArg,
    /// Look at an archive, not at the registry
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    pub archive: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct PackArgs {
    /// OCI archives, archives of `docker save`, or folders of `podman push … dir:`
    #[arg(required = true, value_name = "ARCHIVE|FOLDER")]
    pub inputs: Vec<PathBuf>,
    /// The time of every file and step, in seconds since 1970; OCI archives have theirs already
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=time::MAX_TIMESTAMP))]
    pub timestamp: Option<u64>,
    /// Where to write the archive
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args, Clone, Debug, Default)]
pub struct CiCheckArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct FormulaArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// The folder to write to; a versions.json that is there is added to [default: target/release]
    #[arg(long, short, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
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
            Command::Watch(args) => &args.version,
            Command::TestImage(args) => &args.version,
            Command::Up(args) => &args.version,
            Command::Ask(args) => &args.version,
            Command::Smoke(args) => &args.version,
            Command::Clean(args) => &args.version,
            Command::Config(args) => &args.version,
            Command::PushImage(args) => &args.version,
            Command::BuildMultiarch(args) => &args.version,
            Command::PushMultiarch(args) => &args.version,
            Command::PushArchive(args) => &args.version,
            Command::VerifyImage(args) => &args.version,
            Command::CiCheck(args) => &args.version,
            Command::Formula(args) => &args.version,
            Command::PackArchive(_)
            | Command::Logs(_)
            | Command::Status(_)
            | Command::Shell(_)
            | Command::Stop
            | Command::Down
            | Command::DockerLogin(_)
            | Command::Doctor(_)
            | Command::Explain { .. }
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
        let mut container = None;
        let build = match &self.command {
            Command::BuildImage(args) => {
                add("build.target", "--target", args.target.as_deref());
                Some(&args.build)
            }
            Command::Check(args) => Some(&args.build),
            Command::BuildMultiarch(args) => Some(&args.build),
            Command::PushMultiarch(args) => Some(&args.build),
            Command::RunLocal(args) => {
                container = Some(&args.container);
                None
            }
            Command::Watch(args) => {
                container = Some(&args.container);
                None
            }
            Command::TestImage(_)
            | Command::Up(_)
            | Command::Down
            | Command::Ask(_)
            | Command::Smoke(_)
            | Command::Logs(_)
            | Command::Status(_)
            | Command::Shell(_)
            | Command::Stop
            | Command::Clean(_)
            | Command::DockerLogin(_)
            | Command::PushImage(_)
            | Command::PushArchive(_)
            | Command::VerifyImage(_)
            | Command::PackArchive(_)
            | Command::CiCheck(_)
            | Command::Formula(_)
            | Command::Doctor(_)
            | Command::Config(_)
            | Command::Explain { .. }
            | Command::Completions { .. }
            | Command::Help { .. } => None,
        };
        if let Some(container) = container {
            add("run.network", "--network", container.network.as_deref());
            add("run.env-file", "--env-file", container.env_file.as_deref());
        }
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
