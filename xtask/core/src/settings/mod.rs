//! The settings: arguments, environment and configuration files, resolved into one value. Pure.

mod flavour;
mod mounts;
pub mod resolve;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

pub use crate::config::values::{
    BuildSecret, BuilderChoice, BuilderDriver, Cache, EngineChoice, Network, Node, Port, Progress,
    Publish, Relabel, RequiredUser, Restart, RunUser, SecretSource, Sign, WorkTreeRequirement,
};
use crate::{
    base::{
        error::Failure,
        image::{Budget, Platform, Repository},
        version::{TemplateValues, Version, check_tag, fill_template, is_left_out},
    },
    config::layer::{Layer, Origin, Sourced},
};

/// All settings of one call.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The root of the checkout.
    pub root: PathBuf,
    pub version: Sourced<Version>,
    pub channel: Channel,
    pub engine: EngineSettings,
    pub image: ImageSettings,
    /// The configured `image.repository`, also if an option names another repository.
    pub configured_repository: Repository,
    pub registry: RegistrySettings,
    pub build: BuildSettings,
    pub sign: SignSettings,
    pub run: RunSettings,
    pub stack: StackSettings,
    pub health: HealthSettings,
    pub require: RequireSettings,
    pub budget: Budget,
    /// The variant of the image; none for the plain one.
    pub flavour: Option<Flavour>,
    /// All variants that the configuration has, by name.
    pub flavours: Vec<Flavour>,
    /// All values by path, with their origins.
    pub layer: Layer,
}

/// The values of all keys. Each key of the schema has a field of the same name, and each field has a key.
/// The field's type decides how the value is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Values {
    engine: EngineSettings,
    image: ImageSettings,
    registry: RegistrySettings,
    build: BuildSettings,
    sign: SignSettings,
    run: RunSettings,
    stack: StackSettings,
    health: HealthSettings,
    require: RequireSettings,
    budget: Budget,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EngineSettings {
    pub prefer: EngineChoice,
    pub timeout: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageSettings {
    pub repository: Repository,
    pub default_version: String,
    pub title: String,
    pub description: String,
    pub source: String,
    pub licenses: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RegistrySettings {
    /// The registry's user for `docker-login`; empty if none is configured.
    pub user: String,
    /// The registries without TLS, or with a certificate that is not checked.
    pub insecure: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BuildSettings {
    pub dockerfile: String,
    pub context: String,
    pub target: String,
    pub check_target: String,
    pub base_image: String,
    pub base_image_arg: String,
    pub args: BTreeMap<String, String>,
    /// The names of arguments that look secret and are not.
    pub public_args: Vec<String>,
    pub secrets: Vec<BuildSecret>,
    pub network: String,
    pub platforms: Vec<Platform>,
    pub pull: bool,
    pub progress: Progress,
    pub builder: BuilderChoice,
    pub builder_driver: BuilderDriver,
    pub builder_opts: Vec<String>,
    /// Relative to the checkout; empty for none.
    pub builder_config: String,
    pub nodes: Vec<Node>,
    pub cache: Cache,
    /// A repository; empty for `cache` below the image's.
    pub cache_ref: String,
}

/// What cosign signs and verifies with.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignSettings {
    pub key: String,
    pub public_key: String,
    /// Who confirms the identity of a job.
    pub issuer: String,
    /// A template.
    pub identity: String,
    /// Whether signatures go into the public transparency log.
    pub transparency_log: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunSettings {
    pub container: String,
    pub network: Network,
    pub user: RunUser,
    /// The host's folder for the container's `/workspace`; empty for none.
    pub workspace: String,
    /// Further mounts.
    pub volumes: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub pass_env: Vec<String>,
    /// Empty for none. See [`Settings::env_file`].
    env_file: String,
    pub addresses: Vec<String>,
    pub ports: Vec<Port>,
    pub command: Vec<String>,
    pub stop_grace: Duration,
    pub restart: Restart,
    pub limits: Limits,
    pub hardening: Hardening,
}

/// The resources of a container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// In bytes; none for no limit.
    pub memory: Option<u64>,
    /// The number of processors; empty for no limit.
    pub cpus: String,
    /// The number of processes: 0 for no limit, none for the engine's own.
    pub pids: Option<u64>,
}

impl Limits {
    /// The limit of processes as engines take it: -1 for no limit.
    pub fn pids_limit(&self) -> Option<i64> {
        self.pids.map(|pids| match pids {
            0 => -1,
            pids => i64::try_from(pids).unwrap_or(-1),
        })
    }
}

/// What a container is not allowed to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hardening {
    pub no_new_privileges: bool,
    pub drop_capabilities: Vec<String>,
    pub read_only: bool,
    pub tmpfs: Vec<String>,
    pub init: bool,
    pub selinux_relabel: Relabel,
}

/// What `up` and `smoke` start around the runner.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StackSettings {
    pub temporal_image: String,
    pub server_target: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HealthSettings {
    pub budget: Duration,
    pub command: Vec<String>,
}

/// What an image must be to pass `test-image`, and to be published.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RequireSettings {
    pub user: RequiredUser,
    pub health_check: bool,
    pub stop_codes: Vec<String>,
    pub volumes: Vec<String>,
}

/// Whether `check` runs before a build.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "bool")]
pub enum CheckFirst {
    Yes,
    No,
}

impl From<bool> for CheckFirst {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Whether `smoke` runs before an image is published.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "bool")]
pub enum SmokeFirst {
    Yes,
    No,
}

impl From<bool> for SmokeFirst {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Whether publishing writes how the image was built.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "bool")]
pub enum Provenance {
    Yes,
    No,
}

impl From<bool> for Provenance {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Whether publishing writes which packages the image contains.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "bool")]
pub enum Sbom {
    Yes,
    No,
}

impl From<bool> for Sbom {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// A channel: the versions that it takes, and how they are built and published. A key that the
/// configuration does not set has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Channel {
    pub name: String,
    /// The versions that the channel takes.
    pub r#match: Vec<String>,
    pub tags: Vec<String>,
    pub publish: Publish,
    /// The names of flavours.
    pub flavours: Vec<String>,
    pub platforms: Vec<Platform>,
    pub labels: BTreeMap<String, String>,
    pub build_args: BTreeMap<String, String>,
    pub check: CheckFirst,
    pub provenance: Provenance,
    pub sbom: Sbom,
    pub sign: Sign,
    pub smoke: SmokeFirst,
    pub work_tree: WorkTreeRequirement,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            name: String::new(),
            r#match: Vec::new(),
            tags: Vec::new(),
            publish: Publish::No,
            flavours: Vec::new(),
            platforms: Vec::new(),
            labels: BTreeMap::new(),
            build_args: BTreeMap::new(),
            check: CheckFirst::No,
            provenance: Provenance::No,
            sbom: Sbom::No,
            sign: Sign::No,
            smoke: SmokeFirst::No,
            work_tree: WorkTreeRequirement::Any,
        }
    }
}

/// A variant of the image.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flavour {
    pub name: String,
    /// The Dockerfile's stage.
    #[serde(default)]
    pub target: String,
    /// What follows each tag; empty in the configuration for `-NAME`.
    #[serde(default)]
    pub suffix: String,
    #[serde(default)]
    pub budget: Budget,
}

/// The values that templates can take from git.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitValues {
    pub sha: Option<String>,
    pub branch: Option<String>,
}

impl Settings {
    /// The container's environment file and where it is configured; none if the setting is empty. A
    /// relative path that was typed is relative to the current folder, else to the checkout.
    pub fn env_file(&self) -> Option<Sourced<String>> {
        let origin = self.layer.get("run.env-file")?.origin.clone();
        let value = self.run.env_file.clone();
        (!value.is_empty()).then_some(Sourced { value, origin })
    }

    /// Whether something other than the built-in defaults sets a key.
    pub fn is_configured(&self, key: &str) -> bool {
        let found = self.layer.get(key);
        found.is_some_and(|found| found.origin != Origin::Default)
    }

    /// Whether `--engine` was typed, so that no other engine may be asked.
    pub fn is_engine_typed(&self) -> bool {
        let found = self.layer.get("engine.prefer");
        found.is_some_and(|found| matches!(found.origin, Origin::Flag(_)))
    }

    /// The reference under which the image is run and tested: that of its first tag.
    ///
    /// # Errors
    /// When the tag's template needs a value that is missing.
    pub fn reference(&self, git: &GitValues) -> Result<String, Failure> {
        let tags = self.tags(git)?;
        Ok(self.image.repository.tagged(&tags[0]))
    }

    /// All references of the image: one for each tag.
    ///
    /// # Errors
    /// When a tag's template needs a value that is missing.
    pub fn references(&self, git: &GitValues) -> Result<Vec<String>, Failure> {
        let tags = self.tags(git)?;
        let tagged = |tag: &String| self.image.repository.tagged(tag);
        Ok(tags.iter().map(tagged).collect())
    }

    /// The channel that takes a version.
    ///
    /// # Errors
    /// When no channel takes it.
    pub fn channel_of(&self, version: &Version) -> Result<Channel, Failure> {
        resolve::choose_channel(version, &self.layer)
    }

    /// The version's tags, in the channel's order. There is at least one.
    ///
    /// # Errors
    /// When a template needs a value that is missing, or the result is not a tag.
    pub fn tags(&self, git: &GitValues) -> Result<Vec<String>, Failure> {
        let mut tags = Vec::new();
        for template in &self.channel.tags {
            if is_left_out(template, &self.version.value) {
                continue;
            }
            let tag = self.flavoured(&self.fill(template, git)?);
            check_tag(&tag).map_err(|why| {
                Failure::usage(format!(
                    "the tag template `{template}` gives `{tag}`, which {why}"
                ))
            })?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if tags.is_empty() {
            return Err(Failure::usage(format!(
                "channel `{}` has no tags",
                self.channel.name
            )));
        }
        Ok(tags)
    }

    /// The platforms that the version is published for.
    pub fn platforms(&self) -> &[Platform] {
        if self.channel.platforms.is_empty() {
            &self.build.platforms
        } else {
            &self.channel.platforms
        }
    }

    /// Fills a template of the channel.
    ///
    /// # Errors
    /// When it needs a value that is missing.
    pub fn fill(&self, template: &str, git: &GitValues) -> Result<String, Failure> {
        let values = TemplateValues {
            version: Some(&self.version.value),
            channel: &self.channel.name,
            git_sha: git.sha.as_deref(),
            git_branch: git.branch.as_deref(),
        };
        fill_template(template, &values)
            .map_err(|why| Failure::usage(format!("channel `{}`: {why}", self.channel.name)))
    }
}
