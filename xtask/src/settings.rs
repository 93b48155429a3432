//! What was asked for: arguments, environment and files, resolved. Nothing here touches the
//! world, and `layer` knows where each value came from.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    cli::{Cli, Typed},
    config::{
        self, Files, Layer, Origin, Sourced,
        schema::{BuildSecret, KEYS, Node, Value},
    },
    env::Env,
    error::Failure,
    image::{Budget, Platform, Repository},
    secret,
    version::{TemplateValues, Version, fill_template},
};

/// Everything a command may want to know of what was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The workspace's folder.
    pub root: PathBuf,
    pub version: Sourced<Version>,
    pub channel: Channel,
    pub engine: EngineSettings,
    pub image: ImageSettings,
    /// Whose token `docker-login` hands in; empty where that is not said.
    pub registry_user: String,
    pub build: BuildSettings,
    pub builder: BuilderSettings,
    pub sign: SignSettings,
    pub run: RunSettings,
    pub stack: StackSettings,
    pub health: HealthSettings,
    pub budget: Budget,
    /// All values by path, with their origins.
    pub layer: Layer,
}

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    Auto,
    Docker,
    Podman,
}

#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub prefer: Prefer,
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct ImageSettings {
    pub repository: Repository,
    pub title: String,
    pub description: String,
    pub source: String,
    pub licenses: String,
    pub labels: BTreeMap<String, String>,
}

/// How a build shows its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Auto,
    Plain,
    Tty,
    Quiet,
}

#[derive(Clone, Debug)]
pub struct BuildSettings {
    pub dockerfile: String,
    pub context: String,
    pub target: String,
    pub check_target: String,
    pub base_image: String,
    pub base_image_arg: String,
    pub args: BTreeMap<String, String>,
    pub secrets: Vec<BuildSecret>,
    pub network: String,
    pub platforms: Vec<Platform>,
    pub pull: bool,
    pub progress: Progress,
}

/// Where multi-architecture builds run, and where they keep their cache.
#[derive(Clone, Debug)]
pub struct BuilderSettings {
    pub choice: BuilderChoice,
    pub driver: String,
    pub opts: Vec<String>,
    /// Relative to the workspace; empty for none.
    pub config: String,
    pub nodes: Vec<Node>,
    pub cache: Cache,
    /// A repository; empty for one below the image's.
    pub cache_ref: String,
}

/// Which of buildx's builders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuilderChoice {
    Auto,
    /// One that is there.
    Named(String),
}

/// Where a build's cache is kept between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    None,
    Local,
    Registry,
    /// GitHub Actions' own.
    GitHub,
}

/// What cosign signs and checks with.
#[derive(Clone, Debug)]
pub struct SignSettings {
    pub key: String,
    pub public_key: String,
    /// Whether signatures go into the public log of all signatures.
    pub transparency_log: bool,
}

/// The container's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Host where the engine shares our host, else bridge.
    Auto,
    Host,
    Bridge,
    Named(String),
}

/// Who the container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunUser {
    /// Whoever makes files on the host belong to the person who runs it.
    Auto,
    /// The image's own.
    Image,
    Ids(u32, u32),
}

/// Whether to do what SELinux needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relabel {
    WhereEnforcing,
    Always,
    Never,
}

#[derive(Clone, Debug)]
pub struct RunSettings {
    pub container: String,
    pub network: Network,
    pub user: RunUser,
    pub volumes: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub pass_env: Vec<String>,
    /// Relative to the workspace; none where the setting is empty.
    pub env_file: Option<Sourced<String>>,
    pub addresses: Vec<String>,
    pub stop_grace: Duration,
    pub memory: Option<u64>,
    pub cpus: String,
    pub pids: u64,
    pub no_new_privileges: bool,
    pub drop_capabilities: Vec<String>,
    pub read_only: bool,
    pub tmpfs: Vec<String>,
    pub init: bool,
    pub relabel: Relabel,
}

/// What `up` starts around the runner.
#[derive(Clone, Debug)]
pub struct StackSettings {
    pub temporal_image: String,
    pub server_target: String,
}

#[derive(Clone, Debug)]
pub struct HealthSettings {
    pub budget: Duration,
    pub command: Vec<String>,
}

/// Whether a channel's images may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    Yes,
    /// Only where the version was named with `--version`.
    ByName,
    No,
}

/// Whether `check` runs before a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckFirst {
    Yes,
    No,
}

/// How much a provenance attestation tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    Off,
    Min,
    Max,
}

/// Whether the image's content is listed in an attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sbom {
    Off,
    On,
    /// Made by the generator in this image.
    Generator(String),
}

/// Whether an image is proven at work before it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmokeFirst {
    Yes,
    No,
}

/// Whether cosign signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    No,
    Key,
    Keyless,
}

/// What publishing needs of the work tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkTree {
    Any,
    /// No uncommitted change.
    Clean,
    /// Clean, and HEAD has the version's tag.
    Tagged,
}

/// What the version's form decides.
#[derive(Clone, Debug)]
pub struct Channel {
    pub name: String,
    pub tags: Vec<String>,
    pub publish: Publish,
    pub platforms: Vec<Platform>,
    pub labels: BTreeMap<String, String>,
    pub build_args: BTreeMap<String, String>,
    pub check: CheckFirst,
    pub provenance: Provenance,
    pub sbom: Sbom,
    pub sign: Sign,
    pub smoke: SmokeFirst,
    pub work_tree: WorkTree,
}

impl Settings {
    /// Resolves everything.
    ///
    /// # Errors
    /// All problems of the configuration, or the version's or the channel's.
    pub fn resolve(cli: &Cli, env: &Env, files: &Files) -> Result<Self, Failure> {
        let mut layer = config::resolve(files, env)?;
        layer.overlay(typed_layer(&cli.typed())?);
        let version = choose_version(cli.version(), env, &layer)?;
        let read = Read(&layer);
        refuse_secret_build_args(&layer)?;
        Ok(Self {
            root: files.root.clone(),
            channel: choose_channel(&version.value, &layer)?,
            version,
            engine: EngineSettings {
                prefer: match read.text("engine.prefer") {
                    "docker" => Prefer::Docker,
                    "podman" => Prefer::Podman,
                    _auto => Prefer::Auto,
                },
                timeout: read.duration("engine.timeout"),
            },
            image: ImageSettings {
                repository: Repository::parse(read.text("image.repository"))
                    .map_err(|why| Failure::usage(format!("`image.repository` {why}")))?,
                title: read.owned("image.title"),
                description: read.owned("image.description"),
                source: read.owned("image.source"),
                licenses: read.owned("image.licenses"),
                labels: read.map("image.labels"),
            },
            registry_user: read.owned("registry.user"),
            build: read.build(),
            builder: read.builder(),
            sign: SignSettings {
                key: read.owned("sign.key"),
                public_key: read.owned("sign.public-key"),
                transparency_log: read.flag("sign.transparency-log"),
            },
            run: read.run(),
            stack: StackSettings {
                temporal_image: read.owned("stack.temporal-image"),
                server_target: read.owned("stack.server-target"),
            },
            health: HealthSettings {
                budget: read.duration("health.budget"),
                command: read.list("health.command"),
            },
            budget: Budget {
                compressed: read.size("budget.compressed"),
                unpacked: read.size("budget.unpacked"),
            },
            layer,
        })
    }

    /// The reference under which the image is run and tested: that of its first tag.
    ///
    /// # Errors
    /// When the tag's template needs what is not there.
    pub fn reference(&self, git: &GitValues) -> Result<String, Failure> {
        let tags = self.tags(git)?;
        Ok(self.image.repository.tagged(&tags[0]))
    }

    /// All its references: one a tag.
    ///
    /// # Errors
    /// When a tag's template needs what is not there.
    pub fn references(&self, git: &GitValues) -> Result<Vec<String>, Failure> {
        let tags = self.tags(git)?;
        let tagged = |tag: &String| self.image.repository.tagged(tag);
        Ok(tags.iter().map(tagged).collect())
    }

    /// The version's tags, in the channel's order.
    ///
    /// # Errors
    /// When a template needs what is not there, or makes no tag.
    pub fn tags(&self, git: &GitValues) -> Result<Vec<String>, Failure> {
        let mut tags = Vec::new();
        for template in &self.channel.tags {
            let tag = self.fill(template, git)?;
            crate::version::check_tag(&tag).map_err(|why| {
                Failure::usage(format!(
                    "tag template `{template}` makes `{tag}`, which {why}"
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

    /// What the version is published for.
    pub fn platforms(&self) -> &[Platform] {
        if self.channel.platforms.is_empty() {
            &self.build.platforms
        } else {
            &self.channel.platforms
        }
    }

    /// Fills one of the channel's templates.
    ///
    /// # Errors
    /// When it needs what is not there.
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

/// What templates may take from git.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitValues {
    pub sha: Option<String>,
    pub branch: Option<String>,
}

/// Flags as the top layer.
fn typed_layer(typed: &[Typed]) -> Result<Layer, Failure> {
    let mut layer = Layer::default();
    for Typed { key, text, flag } in typed {
        let Some(known) = KEYS.iter().find(|known| known.path == *key) else {
            continue;
        };
        let wrong = |why| Failure::usage(format!("`{flag} {text}`: `{key}` {why}"));
        match known.kind.read(text).map_err(wrong)? {
            Value::Map(entries) => {
                for (name, value) in entries {
                    layer.set(
                        &format!("{key}.{name}"),
                        Value::Text(value),
                        Origin::Flag(flag),
                    );
                }
            }
            value => layer.set(key, value, Origin::Flag(flag)),
        }
    }
    Ok(layer)
}

/// `--version`, else `VERSION`, else the tag a CI run is for, else the file's default.
fn choose_version(
    typed: Option<&str>,
    env: &Env,
    layer: &Layer,
) -> Result<Sourced<Version>, Failure> {
    let ci_tag = env
        .get("GITHUB_REF_NAME")
        .filter(|_| env.get("GITHUB_REF_TYPE") == Some("tag"))
        .map(|tag| (tag, Origin::Env("GITHUB_REF_NAME".to_owned())));
    let default = layer
        .get("image.default-version")
        .map(|default| match &default.value {
            Value::Text(text) => (text.as_str(), default.origin.clone()),
            _ => ("dev-local", Origin::Default),
        });
    let (text, origin) = typed
        .map(|text| (text, Origin::Flag("--version")))
        .or_else(|| {
            env.get("VERSION")
                .map(|text| (text, Origin::Env("VERSION".to_owned())))
        })
        .or(ci_tag)
        .or(default)
        .unwrap_or(("dev-local", Origin::Default));
    match Version::parse(text) {
        Ok(value) => Ok(Sourced { value, origin }),
        Err(why) => Err(Failure::usage(format!(
            "the version `{text}` (from {origin}) cannot be an image's tag: it {why}"
        ))),
    }
}

/// The first channel that takes the version.
fn choose_channel(version: &Version, layer: &Layer) -> Result<Channel, Failure> {
    let read = Read(layer);
    let path = |name: &str, key: &str| format!("channel.{name}.{key}");
    let name = layer
        .channels()
        .iter()
        .find(|name| {
            read.list(&path(name, "match"))
                .iter()
                .any(|pattern| version.matches(pattern))
        })
        .ok_or_else(|| {
            Failure::usage(format!("no channel takes the version `{version}`"))
                .hint("add `[[channel]]` with `match = [\"*\"]` to xtask.toml")
        })?;
    let at = |key| path(name, key);
    Ok(Channel {
        name: name.clone(),
        tags: read.list(&at("tags")),
        publish: match read.text(&at("publish")) {
            "yes" => Publish::Yes,
            "by-name" => Publish::ByName,
            _no => Publish::No,
        },
        platforms: read.platforms(&at("platforms")),
        labels: read.map(&at("labels")),
        build_args: read.map(&at("build-args")),
        check: if read.flag(&at("check")) {
            CheckFirst::Yes
        } else {
            CheckFirst::No
        },
        provenance: match read.text(&at("provenance")) {
            "min" => Provenance::Min,
            "max" => Provenance::Max,
            _off => Provenance::Off,
        },
        sbom: match read.text(&at("sbom")) {
            "" | "off" => Sbom::Off,
            "on" => Sbom::On,
            generator => Sbom::Generator(generator.to_owned()),
        },
        sign: match read.text(&at("sign")) {
            "key" => Sign::Key,
            "keyless" => Sign::Keyless,
            _no => Sign::No,
        },
        smoke: if read.flag(&at("smoke")) {
            SmokeFirst::Yes
        } else {
            SmokeFirst::No
        },
        work_tree: match read.text(&at("work-tree")) {
            "clean" => WorkTree::Clean,
            "tagged" => WorkTree::Tagged,
            _any => WorkTree::Any,
        },
    })
}

/// Build arguments end in the image's history, for everyone to read.
fn refuse_secret_build_args(layer: &Layer) -> Result<(), Failure> {
    let secret = layer
        .entries("build.args")
        .find(|(name, _)| secret::is_secret_name(name))
        .map(|(name, value)| (name, &value.origin));
    secret.map_or(Ok(()), |(name, origin)| {
        Err(Failure::usage(format!(
            "the build argument `{name}` (from {origin}) looks like a secret, and build arguments stay readable in the image's history"
        ))
        .hint(format!("make it a build secret: `build.secrets = [\"id={},env={name}\"]`", name.to_lowercase())))
    })
}

/// Typed access to a layer that the schema has checked.
struct Read<'a>(&'a Layer);

impl Read<'_> {
    fn value(&self, path: &str) -> Option<&Value> {
        self.0.get(path).map(|sourced| &sourced.value)
    }

    fn text(&self, path: &str) -> &str {
        match self.value(path) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    fn owned(&self, path: &str) -> String {
        self.text(path).to_owned()
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Bool(true)))
    }

    fn count(&self, path: &str) -> u64 {
        match self.value(path) {
            Some(Value::Count(count)) => *count,
            _ => 0,
        }
    }

    fn size(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Size(size)) => *size,
            _ => None,
        }
    }

    fn duration(&self, path: &str) -> Duration {
        match self.value(path) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }

    fn list(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    fn map(&self, path: &str) -> BTreeMap<String, String> {
        self.0
            .entries(path)
            .filter_map(|(name, value)| match &value.value {
                Value::Text(text) => Some((name.to_owned(), text.clone())),
                _ => None,
            })
            .collect()
    }

    fn platforms(&self, path: &str) -> Vec<Platform> {
        self.list(path)
            .iter()
            .filter_map(|platform| platform.parse().ok())
            .collect()
    }

    fn build(&self) -> BuildSettings {
        BuildSettings {
            dockerfile: self.owned("build.dockerfile"),
            context: self.owned("build.context"),
            target: self.owned("build.target"),
            check_target: self.owned("build.check-target"),
            base_image: self.owned("build.base-image"),
            base_image_arg: self.owned("build.base-image-arg"),
            args: self.map("build.args"),
            secrets: self
                .list("build.secrets")
                .iter()
                .filter_map(|secret| BuildSecret::parse(secret).ok())
                .collect(),
            network: self.owned("build.network"),
            platforms: self.platforms("build.platforms"),
            pull: self.flag("build.pull"),
            progress: match self.text("build.progress") {
                "plain" => Progress::Plain,
                "tty" => Progress::Tty,
                "quiet" => Progress::Quiet,
                _auto => Progress::Auto,
            },
        }
    }

    fn builder(&self) -> BuilderSettings {
        BuilderSettings {
            choice: match self.text("build.builder") {
                "auto" => BuilderChoice::Auto,
                name => BuilderChoice::Named(name.to_owned()),
            },
            driver: self.owned("build.builder-driver"),
            opts: self.list("build.builder-opts"),
            config: self.owned("build.builder-config"),
            nodes: self
                .list("build.nodes")
                .iter()
                .filter_map(|node| Node::parse(node).ok())
                .collect(),
            cache: match self.text("build.cache") {
                "local" => Cache::Local,
                "registry" => Cache::Registry,
                "gha" => Cache::GitHub,
                _none => Cache::None,
            },
            cache_ref: self.owned("build.cache-ref"),
        }
    }

    fn run(&self) -> RunSettings {
        RunSettings {
            container: self.owned("run.container"),
            network: match self.text("run.network") {
                "auto" => Network::Auto,
                "host" => Network::Host,
                "bridge" => Network::Bridge,
                name => Network::Named(name.to_owned()),
            },
            user: match self.text("run.user").split_once(':') {
                Some((uid, gid)) => match (uid.parse(), gid.parse()) {
                    (Ok(uid), Ok(gid)) => RunUser::Ids(uid, gid),
                    _ => RunUser::Auto,
                },
                None if self.text("run.user") == "image" => RunUser::Image,
                None => RunUser::Auto,
            },
            volumes: self.list("run.volumes"),
            env: self.map("run.env"),
            pass_env: self.list("run.pass-env"),
            env_file: self
                .0
                .get("run.env-file")
                .and_then(|sourced| match &sourced.value {
                    Value::Text(file) if !file.is_empty() => Some(Sourced {
                        value: file.clone(),
                        origin: sourced.origin.clone(),
                    }),
                    _ => None,
                }),
            addresses: self.list("run.addresses"),
            stop_grace: self.duration("run.stop-grace"),
            memory: self.size("run.limits.memory"),
            cpus: self.owned("run.limits.cpus"),
            pids: self.count("run.limits.pids"),
            no_new_privileges: self.flag("run.hardening.no-new-privileges"),
            drop_capabilities: self.list("run.hardening.drop-capabilities"),
            read_only: self.flag("run.hardening.read-only"),
            tmpfs: self.list("run.hardening.tmpfs"),
            init: self.flag("run.hardening.init"),
            relabel: match self.text("run.hardening.selinux-relabel") {
                "yes" => Relabel::Always,
                "no" => Relabel::Never,
                _auto => Relabel::WhereEnforcing,
            },
        }
    }
}

#[cfg(test)]
mod tests;
