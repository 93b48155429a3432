//! Every key of xtask.toml: its path, its type, its environment variable and its meaning.
//! Parsing, the environment layer, `cargo xtask config` and docs/configuration.md's test
//! all read this one table.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    base::{image, version},
    config::values::{
        BuildSecret, BuilderDriver, Cache, EngineChoice, Node, Progress, Provenance, Publish,
        Relabel, RunUser, Sign, WorkTree, is_variable_name,
    },
};

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    /// A whole number from the first to the second, both included.
    Count(u64, u64),
    /// Bytes: `"45MB"`, `"2GiB"`; empty for no limit.
    Size,
    /// `"10s"`, `"1m 30s"`.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text that the check accepts; the check's error says why not.
    Text(Check),
    /// A list of texts, each of which the check accepts.
    List(Check),
    /// A table of texts by name.
    Map(Check),
}

/// Accepts a text, or says why not, as a sentence without a subject.
pub type Check = fn(&str) -> Result<(), String>;

/// A key that xtask knows.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place, `run.limits.memory`; for a channel's key the name within the channel.
    pub path: &'static str,
    pub kind: Kind,
    /// The environment variable that sets it; channels have none.
    pub env: &'static str,
    pub doc: &'static str,
}

const fn key(path: &'static str, env: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        env,
        doc,
    }
}

/// The key that says which version of this schema a file is written in.
pub const SCHEMA_KEY: &str = "schema";
/// The newest schema this xtask reads.
pub const SCHEMA: u64 = 1;

/// All keys but the channels'.
#[rustfmt::skip] // a table: one key a line
pub const KEYS: &[Key] = &[
    key("engine.prefer", "XTASK_ENGINE", Kind::Choice(EngineChoice::WORDS), "the engine: `auto` takes the first of Docker and Podman that answers"),
    key("engine.timeout", "XTASK_ENGINE_TIMEOUT", Kind::Duration, "how long a candidate may take to answer before it is passed over"),
    key("image.repository", "XTASK_IMAGE_REPOSITORY", Kind::Text(repository), "where the image lives, with the registry's host and without a tag"),
    key("image.default-version", "XTASK_IMAGE_DEFAULT_VERSION", Kind::Text(image_version), "the version where neither `--version` nor `VERSION` nor a CI tag gives one"),
    key("image.title", "XTASK_IMAGE_TITLE", Kind::Text(any), "label `org.opencontainers.image.title`"),
    key("image.description", "XTASK_IMAGE_DESCRIPTION", Kind::Text(any), "label `org.opencontainers.image.description`"),
    key("image.source", "XTASK_IMAGE_SOURCE", Kind::Text(any), "label `org.opencontainers.image.source`: the repository's address, by which registries link the image to it"),
    key("image.licenses", "XTASK_IMAGE_LICENSES", Kind::Text(any), "label `org.opencontainers.image.licenses`: an SPDX expression"),
    key("image.labels", "XTASK_IMAGE_LABELS", Kind::Map(any), "further labels"),
    key("registry.user", "XTASK_REGISTRY_USER", Kind::Text(any), "whose token `docker-login` hands in; empty for `$GITHUB_ACTOR` with ghcr.io"),
    key("build.dockerfile", "XTASK_BUILD_DOCKERFILE", Kind::Text(not_empty), "the Dockerfile, relative to the workspace"),
    key("build.context", "XTASK_BUILD_CONTEXT", Kind::Text(not_empty), "the build context, relative to the workspace"),
    key("build.target", "XTASK_BUILD_TARGET", Kind::Text(any), "the stage to build; empty for the last one"),
    key("build.check-target", "XTASK_BUILD_CHECK_TARGET", Kind::Text(not_empty), "the stage that `check` builds"),
    key("build.base-image", "XTASK_BUILD_BASE_IMAGE", Kind::Text(not_empty), "the base image; set it to use a mirror"),
    key("build.base-image-arg", "XTASK_BUILD_BASE_IMAGE_ARG", Kind::Text(not_empty), "the build argument by which the Dockerfile takes its base image"),
    key("build.args", "XTASK_BUILD_ARGS", Kind::Map(any), "build arguments; they stay readable in the image's history, so no secrets"),
    key("build.secrets", "XTASK_BUILD_SECRETS", Kind::List(secret), "build secrets: `id=ca,src=/path` takes a file, `id=token,env=NAME` an environment variable"),
    key("build.network", "XTASK_BUILD_NETWORK", Kind::Text(not_empty), "the network of the build's RUN steps: `default`, `host` or `none`"),
    key("build.platforms", "XTASK_BUILD_PLATFORMS", Kind::List(platform), "what the image can be built for"),
    key("build.pull", "XTASK_BUILD_PULL", Kind::Bool, "ask the registry for a newer base image on every build"),
    key("build.progress", "XTASK_BUILD_PROGRESS", Kind::Choice(Progress::WORDS), "how the build shows its progress (Podman always shows it plain)"),
    key("build.builder", "XTASK_BUILD_BUILDER", Kind::Text(not_empty), "the buildx builder of multi-architecture builds: `auto` takes Docker's own where its image store holds several platforms, else one of ours, made when it is missing; or the name of one that is there"),
    key("build.builder-driver", "XTASK_BUILD_BUILDER_DRIVER", Kind::Choice(BuilderDriver::WORDS), "what our own builder runs on"),
    key("build.builder-opts", "XTASK_BUILD_BUILDER_OPTS", Kind::List(assignment), "options of its driver, such as `image=mirror.example.com/moby/buildkit:buildx-stable-1`"),
    key("build.builder-config", "XTASK_BUILD_BUILDER_CONFIG", Kind::Text(any), "a buildkitd.toml for it: mirrors, registries without TLS"),
    key("build.nodes", "XTASK_BUILD_NODES", Kind::List(node), "Machines to build on, each for its platform: BuildKit daemons for Docker, such as `linux/arm64=tcp://builder.example.com:1234`, services of Podman for Podman, such as `linux/arm64=ssh://me@builder.example.com`"),
    key("build.cache", "XTASK_BUILD_CACHE", Kind::Choice(Cache::WORDS), "where multi-architecture builds keep their cache between machines"),
    key("build.cache-ref", "XTASK_BUILD_CACHE_REF", Kind::Text(any), "the repository of the `registry` cache; empty for `cache` below the image's own"),
    key("sign.key", "XTASK_SIGN_KEY", Kind::Text(any), "what cosign signs with: a key file, or a key's address in a KMS; the password is cosign's `COSIGN_PASSWORD`"),
    key("sign.public-key", "XTASK_SIGN_PUBLIC_KEY", Kind::Text(any), "what a signature is checked with; empty for the public part of `sign.key`"),
    key("sign.transparency-log", "XTASK_SIGN_TRANSPARENCY_LOG", Kind::Bool, "whether signatures are entered in the public log (Rekor), and looked for there"),
    key("run.container", "XTASK_RUN_CONTAINER", Kind::Text(container), "the container's name"),
    key("run.network", "XTASK_RUN_NETWORK", Kind::Text(not_empty), "`host`, `bridge`, a network's name, or `auto`: host on Linux, bridge where containers live in a VM"),
    key("run.user", "XTASK_RUN_USER", Kind::Text(user), "`auto`, `image` (the image's own user) or `UID:GID`"),
    key("run.volumes", "XTASK_RUN_VOLUMES", Kind::List(volume), "mounts: `HOST:CONTAINER` or `HOST:CONTAINER:OPTIONS`; `~` is your home, a missing folder is created"),
    key("run.env", "XTASK_RUN_ENV", Kind::Map(any), "fixed environment"),
    key("run.pass-env", "XTASK_RUN_PASS_ENV", Kind::List(env_name), "variables handed on from your environment where they are set; only the name is on the command line"),
    key("run.env-file", "XTASK_RUN_ENV_FILE", Kind::Text(any), "a file of `NAME=value` lines; used where it exists"),
    key("run.addresses", "XTASK_RUN_ADDRESSES", Kind::List(env_name), "variables that hold an address on your machine: on a bridge network `localhost` in them becomes the host's name, and `run-local` warns where nothing listens"),
    key("run.stop-grace", "XTASK_RUN_STOP_GRACE", Kind::Duration, "how long the container may take to stop before it is killed; whole seconds"),
    key("run.limits.memory", "XTASK_RUN_LIMITS_MEMORY", Kind::Size, "the most memory, such as `2GiB`; empty for no limit"),
    key("run.limits.cpus", "XTASK_RUN_LIMITS_CPUS", Kind::Text(cpus), "the most processors, such as `1.5`; empty for no limit"),
    key("run.limits.pids", "XTASK_RUN_LIMITS_PIDS", Kind::Count(0, 4_194_304), "the most processes; 0 for no limit"),
    key("run.hardening.no-new-privileges", "XTASK_RUN_HARDENING_NO_NEW_PRIVILEGES", Kind::Bool, "no program in the container can gain privileges (setuid has no effect)"),
    key("run.hardening.drop-capabilities", "XTASK_RUN_HARDENING_DROP_CAPABILITIES", Kind::List(capability), "Linux capabilities taken away"),
    key("run.hardening.read-only", "XTASK_RUN_HARDENING_READ_ONLY", Kind::Bool, "the container's root file system cannot be written"),
    key("run.hardening.tmpfs", "XTASK_RUN_HARDENING_TMPFS", Kind::List(absolute), "folders in memory that can be written"),
    key("run.hardening.init", "XTASK_RUN_HARDENING_INIT", Kind::Bool, "a small init is process 1: it hands signals on and reaps children"),
    key("run.hardening.selinux-relabel", "XTASK_RUN_HARDENING_SELINUX_RELABEL", Kind::Choice(Relabel::WORDS), "`:z` on bind mounts; `auto` where SELinux is enforcing"),
    key("stack.temporal-image", "XTASK_STACK_TEMPORAL_IMAGE", Kind::Text(not_empty), "the image of the Temporal server that `up` and `smoke` start"),
    key("stack.server-target", "XTASK_STACK_SERVER_TARGET", Kind::Text(not_empty), "the Dockerfile's stage with the development stigmer-server that they start"),
    key("health.budget", "XTASK_HEALTH_BUDGET", Kind::Duration, "how long a started container may take to become healthy"),
    key("health.command", "XTASK_HEALTH_COMMAND", Kind::List(not_empty), "the health check to run where the image's own cannot be read (Podman with an image that BuildKit made in OCI format); empty for none"),
    key("budget.compressed", "XTASK_BUDGET_COMPRESSED", Kind::Size, "the most the image may take to download: the gzip of its file system; empty for no limit"),
    key("budget.unpacked", "XTASK_BUDGET_UNPACKED", Kind::Size, "the most the image may take unpacked, as a tar archive; empty for no limit"),
];

/// The table of arrays in which the channels stand, and the key that names one.
pub const CHANNEL: &str = "channel";
pub const CHANNEL_NAME: &str = "name";

/// The keys of one `[[channel]]`, its name aside.
#[rustfmt::skip]
pub const CHANNEL_KEYS: &[Key] = &[
    key("match", "", Kind::List(not_empty), "versions it takes: `semver:release`, `semver:prerelease`, or a glob such as `dev-*`"),
    key("tags", "", Kind::List(template), "the image's tags, as templates"),
    key("publish", "", Kind::Choice(Publish::WORDS), "whether it may be published: `by-name` only where `--version` names it"),
    key("platforms", "", Kind::List(platform), "what it is published for; empty for all of `build.platforms`"),
    key("labels", "", Kind::Map(template_value), "further labels, as templates"),
    key("build-args", "", Kind::Map(template_value), "further build arguments, as templates"),
    key("check", "", Kind::Bool, "whether `build-image` runs `check` first"),
    key("provenance", "", Kind::Choice(Provenance::WORDS), "how much a provenance attestation tells of the build (Docker alone writes one)"),
    key("sbom", "", Kind::Text(not_empty), "a list of the image's content as an attestation: `off`, `on`, or the image of another generator (Docker alone writes one)"),
    key("sign", "", Kind::Choice(Sign::WORDS), "whether cosign signs what is published"),
    key("smoke", "", Kind::Bool, "whether `push-image` and `push-multiarch` prove the image with `smoke` first, on this machine's platform"),
    key("work-tree", "", Kind::Choice(WorkTree::WORDS), "what publishing needs: `clean` no uncommitted change, `tagged` also the version's tag on HEAD"),
];

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Count(u64),
    /// Bytes; none for no limit.
    Size(Option<u64>),
    Duration(Duration),
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Kind {
    /// What the key holds, for people: `text`, `"auto"` or `"docker"`, …
    pub fn describe(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Size => "a size such as \"45MB\"".to_owned(),
            Self::Duration => "a duration such as \"10s\"".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Text(_) => "text".to_owned(),
            Self::List(_) => "a list of texts".to_owned(),
            Self::Map(_) => "a table of texts".to_owned(),
        }
    }

    /// Reads a text as this kind: what the environment and flags give, and what strings in
    /// TOML hold. Lists are separated by commas (`build.secrets` by lines, as a secret has
    /// commas), tables are lines of `NAME=value`.
    ///
    /// # Errors
    /// Why not, as a sentence without a subject.
    pub fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Bool => match text {
                "true" | "1" | "yes" => Ok(Value::Bool(true)),
                "false" | "0" | "no" => Ok(Value::Bool(false)),
                _ => Err("must be true or false".to_owned()),
            },
            Self::Count(low, high) => match text.parse() {
                Ok(count) if (low..=high).contains(&count) => Ok(Value::Count(count)),
                _ => Err(format!("must be {}", self.describe())),
            },
            Self::Size if text.is_empty() => Ok(Value::Size(None)),
            Self::Size => parse_size(text).map(|size| Value::Size(Some(size))),
            Self::Duration => match humantime::parse_duration(text) {
                Ok(duration) if !duration.is_zero() => Ok(Value::Duration(duration)),
                _ => Err("must be a duration above zero, such as \"10s\"".to_owned()),
            },
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => {
                let near = nearest(text, words.iter().copied())
                    .map_or(String::new(), |word| format!("; did you mean \"{word}\"?"));
                Err(format!("must be {}{near}", self.describe()))
            }
            Self::Text(check) => check(text).map(|()| Value::Text(text.to_owned())),
            Self::List(check) => {
                let separator = if text.starts_with("id=") { '\n' } else { ',' };
                let items = text
                    .split(separator)
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                items
                    .map(|item| {
                        check(item)
                            .map(|()| item.to_owned())
                            .map_err(|why| format!("`{item}` {why}"))
                    })
                    .collect::<Result<_, _>>()
                    .map(Value::List)
            }
            Self::Map(check) => text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| {
                    let (name, value) = line
                        .split_once('=')
                        .ok_or("must be lines of `NAME=value`".to_owned())?;
                    entry_name(name.trim()).map_err(|why| format!("has a name that {why}"))?;
                    check(value).map(|()| (name.trim().to_owned(), value.to_owned()))
                })
                .collect::<Result<_, _>>()
                .map(Value::Map),
        }
    }
}

/// A name in a table of texts: engines take the table as `NAME=value`.
///
/// # Errors
/// Why it is none, as a sentence without a subject.
pub fn entry_name(name: &str) -> Result<(), String> {
    let bad = |c: char| c == '=' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(bad) {
        Err("must not be empty, nor have `=` or spaces in it".to_owned())
    } else {
        Ok(())
    }
}

/// The known word nearest to a mistyped one, if it is near enough to be meant.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// `45MB` (10⁶), `2GiB` (2³⁰), `512m` and `2g` as engines read them (binary), or plain bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "must be a size such as \"45MB\" or \"2GiB\"".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" | "b" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "k" | "K" => 1 << 10,
        "MiB" | "m" | "M" => 1 << 20,
        "GiB" | "g" | "G" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

#[allow(clippy::unnecessary_wraps)] // it is a Check
fn any(_: &str) -> Result<(), String> {
    Ok(())
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(())
    }
}

fn repository(text: &str) -> Result<(), String> {
    image::Repository::parse(text).map(|_| ())
}

fn image_version(text: &str) -> Result<(), String> {
    version::Version::parse(text)
        .map(|_| ())
        .map_err(|why| format!("cannot be a tag: it {why}"))
}

fn platform(text: &str) -> Result<(), String> {
    text.parse::<image::Platform>().map(|_| ())
}

/// Both engines take `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn container(text: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fine) {
        Ok(())
    } else {
        Err(
            "must be letters, digits, `_`, `.` and `-`, and begin with a letter or digit"
                .to_owned(),
        )
    }
}

fn env_name(text: &str) -> Result<(), String> {
    if is_variable_name(text) {
        Ok(())
    } else {
        Err("must be a variable's name: letters, digits and `_`".to_owned())
    }
}

fn absolute(text: &str) -> Result<(), String> {
    if text.starts_with('/') {
        Ok(())
    } else {
        Err("must be an absolute path".to_owned())
    }
}

fn capability(text: &str) -> Result<(), String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
        Ok(())
    } else {
        Err("must be `ALL` or a capability's name without `CAP_`, such as `NET_RAW`".to_owned())
    }
}

fn cpus(text: &str) -> Result<(), String> {
    if text.is_empty()
        || text
            .parse::<f64>()
            .is_ok_and(|cpus| cpus > 0.0 && cpus.is_finite())
    {
        Ok(())
    } else {
        Err("must be a number above zero, such as \"1.5\"".to_owned())
    }
}

fn user(text: &str) -> Result<(), String> {
    RunUser::try_from(text.to_owned()).map(|_| ())
}

fn volume(text: &str) -> Result<(), String> {
    let parts: Vec<_> = text.split(':').collect();
    match parts[..] {
        [host, container] | [host, container, _]
            if !host.is_empty() && container.starts_with('/') =>
        {
            Ok(())
        }
        _ => Err("must be `HOST:CONTAINER` or `HOST:CONTAINER:OPTIONS`".to_owned()),
    }
}

fn assignment(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(()),
        _ => Err("must be `NAME=VALUE`".to_owned()),
    }
}

fn node(text: &str) -> Result<(), String> {
    Node::try_from(text.to_owned()).map(|_| ())
}

fn secret(text: &str) -> Result<(), String> {
    BuildSecret::try_from(text.to_owned()).map(|_| ())
}

/// A tag template: what is left when the names are filled must be fit for a tag.
fn template(text: &str) -> Result<(), String> {
    template_value(text)?;
    let sample = fill_sample(text)?;
    version::check_tag(&sample).map_err(|why| format!("cannot be a tag: it {why}"))
}

fn template_value(text: &str) -> Result<(), String> {
    fill_sample(text).map(|_| ())
}

fn fill_sample(text: &str) -> Result<String, String> {
    let version = version::Version::parse("1.2.3-rc.1")?;
    let values = version::TemplateValues {
        version: Some(&version),
        channel: "dev",
        git_sha: Some("0123456789abcdef"),
        git_branch: Some("main"),
    };
    version::fill_template(text, &values).map_err(|why| format!("is no template: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_variable() {
        for key in KEYS {
            let by_rule = format!("XTASK_{}", key.path.to_uppercase().replace(['.', '-'], "_"));
            let known_exception = key.path == "engine.prefer" && key.env == "XTASK_ENGINE";
            assert!(
                key.env == by_rule || known_exception,
                "{}: {}",
                key.path,
                key.env
            );
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("45MB"), Ok(45_000_000));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512m"), Ok(512 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "MB", "1.5GB", "99999999999999GB", "5 parsecs", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_near_a_known_one_are_suggested() {
        assert_eq!(
            nearest("podmn", ["docker", "podman"].into_iter()),
            Some("podman")
        );
        assert_eq!(nearest("xyz", ["docker", "podman"].into_iter()), None);
        let error = Kind::Choice(&["auto", "docker"])
            .read("dokcer")
            .unwrap_err();
        assert_eq!(
            error,
            "must be one of \"auto\", \"docker\"; did you mean \"docker\"?"
        );
    }

    #[test]
    fn text_reads_as_its_kind() {
        let list = |items: &[&str]| Value::List(items.iter().map(|&i| i.to_owned()).collect());
        assert_eq!(
            Kind::List(platform)
                .read("linux/amd64, linux/arm64")
                .unwrap(),
            list(&["linux/amd64", "linux/arm64"])
        );
        assert_eq!(
            Kind::List(secret).read("id=a,src=/a\nid=b,env=B").unwrap(),
            list(&["id=a,src=/a", "id=b,env=B"])
        );
        assert_eq!(
            Kind::Duration.read("1m 30s").unwrap(),
            Value::Duration(Duration::from_secs(90))
        );
        assert_eq!(Kind::Size.read("").unwrap(), Value::Size(None));
        assert!(Kind::Count(0, 5).read("6").is_err());
        assert!(Kind::Duration.read("0s").is_err());
        assert_eq!(
            Kind::Map(any).read("A=1\nB=x=y").unwrap(),
            Value::Map([("A".into(), "1".into()), ("B".into(), "x=y".into())].into())
        );
    }

    #[test]
    fn tag_templates_must_make_tags() {
        assert!(template("{version}").is_ok());
        assert!(template("{version}/x").is_err());
        assert!(template("{commit}").is_err());
    }
}
