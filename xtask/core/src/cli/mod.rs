//! The arguments that commands share, and the settings that flags override.

pub mod network;

use clap::{Args, ValueEnum};

use crate::{
    base::{error::Failure, image::Platform},
    config::{
        layer::Override,
        values::{EngineChoice, Progress},
    },
};

/// The options of every command.
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
#[derive(Args, Clone, Debug)]
pub struct GlobalOptions {
    /// Print the commands that would run, as lines for a shell, and run nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// The engine to use: auto takes the first that answers
    #[arg(long, global = true, value_enum, value_name = "ENGINE")]
    pub engine: Option<EngineChoice>,
    /// Show every command as it runs
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Show only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show at the end what ran and how long it took
    #[arg(long, global = true)]
    pub timings: bool,
    /// When to colour the output
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub color: Color,
}

impl GlobalOptions {
    pub fn overrides(&self) -> Vec<Override> {
        let engine = self.engine.map(|engine| engine.word().to_owned());
        Overrides::default()
            .set("engine.prefer", "--engine", engine)
            .list
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// Collects the settings that flags override.
#[derive(Default)]
pub struct Overrides {
    pub list: Vec<Override>,
}

impl Overrides {
    /// The flag replaces the value of a key. None if the flag was not given.
    #[must_use]
    pub fn set(mut self, key: &'static str, flag: &'static str, text: Option<String>) -> Self {
        self.list
            .extend(text.map(|text| Override { key, flag, text }));
        self
    }

    /// Adds items to the list, or `NAME=value` entries to the table of a key.
    #[must_use]
    pub fn add(mut self, key: &'static str, flag: &'static str, items: Vec<String>) -> Self {
        let add = |text| Override { key, flag, text };
        self.list.extend(items.into_iter().map(add));
        self
    }
}

#[derive(Args, Clone, Debug, Default)]
pub struct VersionOption {
    /// The image version, such as dev-me or 1.2.3 [default: $VERSION, the CI tag, or the file's]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

impl VersionOption {
    pub fn get(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

#[derive(Args, Clone, Debug, Default)]
pub struct FlavourOption {
    /// A variant of the image that the configuration has [default: the plain image]
    #[arg(long, value_name = "NAME")]
    flavour: Option<String>,
}

impl FlavourOption {
    pub fn get(&self) -> Option<&str> {
        self.flavour.as_deref()
    }
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct JsonOption {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of every build.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildOptions {
    /// Build without the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Ask the registry for a newer base image
    #[arg(long, overrides_with = "no_pull")]
    pub pull: bool,
    /// Use the local base image, whatever the configuration says
    #[arg(long, overrides_with = "pull")]
    pub no_pull: bool,
    /// How the build shows its progress
    #[arg(long, value_enum, value_name = "HOW")]
    pub progress: Option<Progress>,
    /// A build argument: NAME=VALUE, or NAME for the value in your environment; can be given several times
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// A build secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; can be given several times
    #[arg(long = "secret", value_name = "SECRET")]
    pub secrets: Vec<String>,
}

impl BuildOptions {
    pub fn overrides(&self) -> Overrides {
        let pull = match (self.pull, self.no_pull) {
            (true, _) => Some(("--pull", "true")),
            (_, true) => Some(("--no-pull", "false")),
            (false, false) => None,
        };
        Overrides::default()
            .set(
                "build.progress",
                "--progress",
                self.progress.map(|one| one.word().to_owned()),
            )
            .set(
                "build.pull",
                pull.map_or("--pull", |(flag, _)| flag),
                pull.map(|(_, value)| value.to_owned()),
            )
            .add("build.args", "--build-arg", self.build_args.clone())
            .add("build.secrets", "--secret", self.secrets.clone())
    }
}

/// Whether `check` runs before a build. The last of the two flags wins.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct CheckOption {
    /// Run `check` first, whatever the channel says
    #[arg(long, overrides_with = "no_check")]
    pub check: bool,
    /// Don't run `check` first, whatever the channel says
    #[arg(long, overrides_with = "check")]
    pub no_check: bool,
}

/// The options of a container.
#[derive(Args, Clone, Debug, Default)]
pub struct ContainerOptions {
    /// host, bridge or the name of a network
    #[arg(long, value_name = "NETWORK", value_parser = network::NetworkParser)]
    pub network: Option<String>,
    /// A file of NAME=value lines for the container's environment
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<String>,
}

impl ContainerOptions {
    pub fn overrides(&self) -> Overrides {
        Overrides::default()
            .set("run.network", "--network", self.network.clone())
            .set("run.env-file", "--env-file", self.env_file.clone())
    }
}

/// The variables of a container.
#[derive(Args, Clone, Debug, Default)]
pub struct EnvOption {
    /// A variable of the container: NAME=value, or NAME for the value in your environment; can be given several times
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
}

impl EnvOption {
    pub fn add_to(&self, overrides: Overrides) -> Overrides {
        let (values, names): (Vec<_>, Vec<_>) =
            self.env.iter().cloned().partition(|one| one.contains('='));
        overrides
            .add("run.env", "--env", values)
            .add("run.pass-env", "--env", names)
    }
}

/// The options of every command that publishes.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PublishingOptions {
    /// Overwrite a released version, after you have typed its tag, or push the same image again
    #[arg(long)]
    pub force: bool,
    /// Skip the questions to the registry before the build
    #[arg(long)]
    pub no_preflight: bool,
    /// How much of the pushed image is verified in the registry
    #[arg(long, value_enum, default_value_t, value_name = "DEPTH")]
    pub verify: VerifyDepth,
    /// Publish uncommitted changes, although the channel requires a clean work tree
    #[arg(long)]
    pub allow_dirty: bool,
}

/// How much of a pushed image is verified in the registry. The archive that it comes from is always
/// verified as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VerifyDepth {
    /// Manifests and configurations, and that each layer is there
    #[default]
    Shallow,
    /// The whole image: it is downloaded
    Deep,
}

/// The platform that a flag such as `--platform` names; none if it was not given.
///
/// # Errors
/// When the text is not a platform, or the image cannot be built for it.
pub fn parse_platform(flag: &str, text: Option<&str>) -> Result<Option<Platform>, Failure> {
    let parse = |text: &str| {
        Platform::parse_supported(text)
            .map_err(|why| Failure::usage(format!("`{flag} {text}` {why}")))
    };
    text.map(parse).transpose()
}

#[derive(Args, Clone, Debug, Default)]
pub struct PlatformOption {
    /// The only platform of the image [default: all of the version's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl PlatformOption {
    /// As [`parse_platform`].
    ///
    /// # Errors
    /// As [`parse_platform`].
    pub fn parse(&self) -> Result<Option<Platform>, Failure> {
        parse_platform("--platform", self.platform.as_deref())
    }
}

/// The option of the commands that publish or verify an image, and of `ci-check`.
#[derive(Args, Clone, Debug, Default)]
pub struct RepositoryOption {
    /// Another repository for the same image, such as a mirror [default: image.repository]
    #[arg(long, value_name = "HOST/PATH")]
    pub repository: Option<String>,
}
