//! The keys of xtask.toml, each with its path, type, environment variable and documentation. The files and
//! the environment are read by this table, and the tables of docs/configuration.md are generated from it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    base::{image, version},
    config::values::{
        BuildSecret, BuilderDriver, Cache, EngineChoice, Node, Port, Progress, Publish, Relabel,
        RequiredUser, Restart, RunUser, Sign, WorkTreeRequirement, is_variable_name,
    },
};

/// The type of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum ValueType {
    Bool,
    /// A whole number between the first and the second, inclusive.
    Count(u64, u64),
    /// A number of bytes: `"45MB"`, `"2GiB"`; empty for no limit.
    Size,
    /// `"10s"`, `"1m 30s"`.
    Duration,
    /// A duration of whole seconds.
    Seconds,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text that the validator accepts.
    Text(Validator),
    /// A list of texts that the validator accepts.
    List(Validator),
    /// A table of names and texts. The validator accepts the texts.
    Map(Validator),
}

/// Checks a text. The error is the reason why the text is invalid, as a predicate.
pub type Validator = fn(&str) -> Result<(), String>;

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path, such as `run.limits.memory`. The path of a channel's key begins in the channel.
    pub path: &'static str,
    pub value_type: ValueType,
    /// What a stronger source does to the list of a weaker one.
    pub merge: Merge,
    /// The documentation, which is also the help under an invalid value.
    pub doc: &'static str,
}

/// What a stronger source, such as xtask.local.toml, does to the list of a weaker one.
#[derive(Clone, Copy, Debug)]
pub enum Merge {
    /// It replaces the list as a whole. This is for choices, such as the platforms of an image.
    Replace,
    /// It adds its items. Of two items with the same identity, the stronger one stays.
    Add(Identity),
}

/// Returns the part that identifies an item, such as the folder at which a volume is mounted. A
/// list has only one item for each identity.
pub type Identity = fn(&str) -> &str;

impl Key {
    /// Items of a stronger source are added to the list of a weaker one.
    const fn adds(mut self, identity: Identity) -> Self {
        self.merge = Merge::Add(identity);
        self
    }

    /// The environment variable that sets the key, such as `XTASK_RUN_LIMITS_MEMORY`. None sets a key of a
    /// channel or a flavour.
    pub fn env(&self) -> String {
        match self.path {
            "engine.prefer" => format!("{ENV_PREFIX}ENGINE"),
            path => format!(
                "{ENV_PREFIX}{}",
                path.to_uppercase().replace(['.', '-'], "_")
            ),
        }
    }
}

/// The prefix of the environment variables that set keys.
pub const ENV_PREFIX: &str = "XTASK_";

const fn key(path: &'static str, value_type: ValueType, doc: &'static str) -> Key {
    Key {
        path,
        value_type,
        merge: Merge::Replace,
        doc,
    }
}

/// The key with the version of the schema that a file uses.
pub const SCHEMA_KEY: &str = "schema";
/// The newest schema version that this xtask supports.
pub const SCHEMA_VERSION: u64 = 1;

/// All keys except those of channels.
#[rustfmt::skip] // a table: one key a line
pub const KEYS: &[Key] = &[
    key("engine.prefer", ValueType::Choice(EngineChoice::WORDS), "the engine; `auto` uses Docker if it answers, else Podman"),
    key("engine.timeout", ValueType::Duration, "how long xtask waits for an engine's answer before it tries the next engine"),
    key("image.repository", ValueType::Text(repository), "the image's repository, with the registry's host and without a tag"),
    key("image.default-version", ValueType::Text(image_version), "the version if `--version`, `VERSION` and the tag of a CI job are not set"),
    key("image.title", ValueType::Text(any_text), "the label `org.opencontainers.image.title`"),
    key("image.description", ValueType::Text(any_text), "the label `org.opencontainers.image.description`"),
    key("image.source", ValueType::Text(any_text), "the label `org.opencontainers.image.source`: the source repository's URL, to which registries link the image"),
    key("image.licenses", ValueType::Text(any_text), "the label `org.opencontainers.image.licenses`: an SPDX expression"),
    key("image.labels", ValueType::Map(any_text), "additional labels"),
    key("registry.user", ValueType::Text(any_text), "the user name for `docker-login` and for `REGISTRY_TOKEN`; empty to use `$GITHUB_ACTOR` with ghcr.io"),
    key("registry.insecure", ValueType::List(registry_host), "registries that xtask may use without TLS, or without checking the certificate, each as `host` or `host:port`; registries on this machine need no entry").adds(whole),
    key("build.dockerfile", ValueType::Text(not_empty), "the Dockerfile, relative to the checkout"),
    key("build.context", ValueType::Text(not_empty), "the build context, relative to the checkout"),
    key("build.target", ValueType::Text(any_text), "the stage to build; empty for the last stage"),
    key("build.check-target", ValueType::Text(any_text), "the stage that `check` builds; empty if the Dockerfile has none"),
    key("build.base-image", ValueType::Text(base_image), "the base image; change it to use a mirror, and add `@sha256:…` to pin it; empty to leave it to the Dockerfile"),
    key("build.base-image-arg", ValueType::Text(any_text), "the Dockerfile's build argument for the base image; empty if it has none"),
    key("build.args", ValueType::Map(any_text), "build arguments; do not use them for secrets, because the image's history contains them"),
    key("build.public-args", ValueType::List(not_empty), "build arguments whose names look like those of secrets, but whose values are public").adds(whole),
    key("build.secrets", ValueType::List(secret), "build secrets: `id=ca,src=/path` is the content of a file, `id=token,env=NAME` the value of an environment variable").adds(secret_id),
    key("build.network", ValueType::Text(not_empty), "the network of the build's RUN steps: `default`, `host` or `none`"),
    key("build.platforms", ValueType::List(platform), "the platforms of the image: `linux/amd64`, `linux/arm64` or both"),
    key("build.pull", ValueType::Bool, "whether every build checks the registry for a newer base image"),
    key("build.progress", ValueType::Choice(Progress::WORDS), "how a build prints its progress (Podman supports only `plain` and `quiet`)"),
    key("build.builder", ValueType::Text(not_empty), "the buildx builder for multi-platform builds: the name of an existing builder, or `auto`. `auto` uses Docker's default builder if its image store supports several platforms; otherwise xtask creates a builder"),
    key("build.builder-driver", ValueType::Choice(BuilderDriver::WORDS), "the buildx driver of the builder that xtask creates"),
    key("build.builder-opts", ValueType::List(assignment), "options for that driver, such as `image=mirror.example.com/moby/buildkit:buildx-stable-1`"),
    key("build.builder-config", ValueType::Text(any_text), "a buildkitd.toml for that builder, for example with mirrors or registries without TLS"),
    key("build.nodes", ValueType::List(node), "machines that each build one platform: with Docker BuildKit daemons, such as `linux/arm64=tcp://builder.example.com:1234`; with Podman Podman services, such as `linux/arm64=ssh://me@builder.example.com`"),
    key("build.cache", ValueType::Choice(Cache::WORDS), "the cache that multi-platform builds on several machines share"),
    key("build.cache-ref", ValueType::Text(any_text), "the repository of the `registry` cache; empty for `cache` below the image's repository"),
    key("sign.key", ValueType::Text(any_text), "cosign's private key: a file, the URI of a key in a KMS, or `env://NAME` for an environment variable; set the key's password in `COSIGN_PASSWORD`"),
    key("sign.public-key", ValueType::Text(any_text), "the public key with which signatures are verified; empty for `NAME.pub` beside the file `NAME.key`, or for the key in the KMS"),
    key("sign.issuer", ValueType::Text(any_text), "the OIDC issuer of the identity with which a job signs without a key, such as `https://token.actions.githubusercontent.com`"),
    key("sign.identity", ValueType::Text(template_value), "the exact identity of the job that signs without a key, as a template: in GitHub Actions the workflow and its tag, `https://github.com/OWNER/NAME/.github/workflows/FILE@refs/tags/v{version}`"),
    key("sign.transparency-log", ValueType::Bool, "whether signatures are recorded in the public transparency log (Rekor) and verified with it"),
    key("run.container", ValueType::Text(container), "the container's name"),
    key("run.network", ValueType::Text(not_empty), "`host`, `bridge`, the name of a network, or `auto`; `auto` is `host` on Linux, and `bridge` if containers run in a virtual machine"),
    key("run.user", ValueType::Text(user), "the container's user: `auto` (you own the container's files on the host), `image` (the image's own user) or `UID:GID`"),
    key("run.workspace", ValueType::Text(workspace), "the host folder that is mounted at `/workspace`; `~` is your home folder; xtask creates a missing folder; empty for none"),
    key("run.volumes", ValueType::List(volume), "further mounts: `HOST:CONTAINER` or `HOST:CONTAINER:OPTIONS`; a host folder begins with `/`, `~/` or `./`, anything else is the name of a volume; xtask creates missing folders").adds(volume_target),
    key("run.env", ValueType::Map(any_text), "environment variables with fixed values"),
    key("run.pass-env", ValueType::List(env_name), "variables that are passed from your environment if they are set and not empty; only their names appear on the command line").adds(whole),
    key("run.env-file", ValueType::Text(any_text), "a file with lines of `NAME=value`; ignored if it does not exist"),
    key("run.addresses", ValueType::List(env_name), "variables with addresses: on a bridge network `localhost` in them is replaced by the host's name, and `run-local` warns if nothing listens at an address").adds(whole),
    key("run.ports", ValueType::List(port), "ports of the container that programs on this machine can reach, each as `HOST:CONTAINER`; not with the host's network").adds(host_port),
    key("run.command", ValueType::List(any_text), "the arguments for the image's entry point, in place of the image's own"),
    key("run.stop-grace", ValueType::Seconds, "how long the container may take to stop before the engine kills it"),
    key("run.restart", ValueType::Choice(Restart::WORDS), "when the engine starts the container again after it has ended; `unless-stopped` also after a restart of the machine (with Podman, only if its `podman-restart.service` is enabled)"),
    key("run.limits.memory", ValueType::Size, "the maximum memory, such as `2GiB`; empty for no limit"),
    key("run.limits.cpus", ValueType::Text(cpus), "the maximum number of processors, such as `1.5`; empty for no limit"),
    key("run.limits.pids", ValueType::Count(0, 4_194_304), "the maximum number of processes; 0 for no limit"),
    key("run.hardening.no-new-privileges", ValueType::Bool, "whether programs in the container are prevented from gaining privileges (setuid has no effect)"),
    key("run.hardening.drop-capabilities", ValueType::List(capability), "Linux capabilities that the container does not have"),
    key("run.hardening.read-only", ValueType::Bool, "whether the container's root file system is read-only"),
    key("run.hardening.tmpfs", ValueType::List(absolute), "writable folders in memory"),
    key("run.hardening.init", ValueType::Bool, "whether an init is process 1, which forwards signals and reaps zombie processes"),
    key("run.hardening.selinux-relabel", ValueType::Choice(Relabel::WORDS), "whether bind mounts get the option `:z`; `auto` if SELinux is enforcing"),
    key("stack.temporal-image", ValueType::Text(not_empty), "the image of the Temporal server that `up` and `smoke` start"),
    key("stack.server-target", ValueType::Text(any_text), "the Dockerfile's stage with the development stigmer-server that `up` and `smoke` start; empty if it has none"),
    key("health.budget", ValueType::Duration, "how long a started container may take to become healthy"),
    key("health.command", ValueType::List(not_empty), "the health check if the image's own cannot be read (Podman with an image that BuildKit built in OCI format); empty for none"),
    key("require.user", ValueType::Text(required_user), "the user that the image must run as, for `test-image` and publishing: a user id, `not-root`, or `any`"),
    key("require.health-check", ValueType::Bool, "whether the image must have a health check; `health.command` counts as one"),
    key("require.stop-codes", ValueType::List(exit_code), "the exit codes with which the program may end after SIGTERM; a program that does not handle the signal ends with 143"),
    key("require.volumes", ValueType::List(absolute), "folders that must be volumes of the image which its user can write to"),
    key("budget.compressed", ValueType::Size, "the maximum size of the image's download, the gzip of its file system; empty for no limit"),
    key("budget.unpacked", ValueType::Size, "the maximum size of the unpacked image, as a tar archive; empty for no limit"),
];

/// The array of tables with the channels.
pub const CHANNEL: &str = "channel";
/// The key with a channel's name.
pub const CHANNEL_NAME_KEY: &str = "name";

/// The keys of a channel, except its name.
#[rustfmt::skip]
pub const CHANNEL_KEYS: &[Key] = &[
    key("match", ValueType::List(not_empty), "the channel's versions: `semver:release`, `semver:prerelease`, or a glob such as `dev-*`"),
    key("tags", ValueType::List(template), "the image's tags, as templates"),
    key("publish", ValueType::Choice(Publish::WORDS), "whether images may be published; `by-name` only if `--version` gives the version"),
    key("flavours", ValueType::List(not_empty), "the flavours that `push-multiarch` publishes together with the plain image"),
    key("platforms", ValueType::List(platform), "the platforms of published images; empty for all of `build.platforms`"),
    key("labels", ValueType::Map(template_value), "additional labels, as templates"),
    key("build-args", ValueType::Map(template_value), "additional build arguments, as templates"),
    key("check", ValueType::Bool, "whether `build-image` runs `check` first"),
    key("provenance", ValueType::Bool, "whether publishing writes an attestation of how the image was built (SLSA provenance); if the channel signs, cosign stores it beside the image"),
    key("sbom", ValueType::Bool, "whether publishing writes a list of the packages in the image (an SBOM in SPDX); if the channel signs, cosign stores it beside the image"),
    key("sign", ValueType::Choice(Sign::WORDS), "whether and how cosign signs published images"),
    key("smoke", ValueType::Bool, "whether `push-image` and `push-multiarch` first run `smoke` with the image for this machine's platform"),
    key("work-tree", ValueType::Choice(WorkTreeRequirement::WORDS), "the work tree that publishing requires: `clean` has no uncommitted changes; `tagged` also has the version's tag on HEAD"),
];

/// The table with the flavours, each a table.
pub const FLAVOUR: &str = "flavour";
/// The name of a flavour, which is that of its table.
pub const FLAVOUR_NAME_KEY: &str = "name";

/// The keys of a flavour.
#[rustfmt::skip]
pub const FLAVOUR_KEYS: &[Key] = &[
    key("target", ValueType::Text(not_empty), "the Dockerfile's stage; each flavour must have one"),
    key("suffix", ValueType::Text(tag_suffix), "what follows each tag: `latest` becomes `latest-tools`; if it is not set, `-` and the flavour's name"),
    key("budget.compressed", ValueType::Size, "as `budget.compressed`, for the flavour; no limit if it is not set"),
    key("budget.unpacked", ValueType::Size, "as `budget.unpacked`, for the flavour; no limit if it is not set"),
];

/// A valid value of a key.
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

impl ValueType {
    /// The type as text: `true or false`, `one of "auto", "docker"`, …
    pub fn describe(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Size => "a size such as \"45MB\"".to_owned(),
            Self::Duration => "a duration such as \"10s\"".to_owned(),
            Self::Seconds => "a duration of whole seconds such as \"10s\"".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Text(_) => "text".to_owned(),
            Self::List(_) => "a list of texts".to_owned(),
            Self::Map(_) => "a table of texts".to_owned(),
        }
    }

    /// Reads a value from a text of an environment variable, a flag or a TOML string. The items of a list
    /// are separated by commas or line breaks. A table is lines of `NAME=value`.
    ///
    /// # Errors
    /// The reason why the text is invalid, as a predicate.
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
            Self::Seconds => match Self::Duration.read(text)? {
                Value::Duration(duration) if duration.subsec_nanos() > 0 => {
                    Err("must be a duration of whole seconds, such as \"10s\"".to_owned())
                }
                value => Ok(value),
            },
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => {
                let suggestion = closest_match(text, words.iter().copied())
                    .map_or(String::new(), |word| format!("; did you mean \"{word}\"?"));
                Err(format!("must be {}{suggestion}", self.describe()))
            }
            Self::Text(validate) => validate(text).map(|()| Value::Text(text.to_owned())),
            Self::List(validate) => {
                let items = text.lines().flat_map(|line| split_list(line, validate));
                items
                    .map(|item| match validate(&item) {
                        Ok(()) => Ok(item),
                        Err(why) => Err(format!("`{item}` {why}")),
                    })
                    .collect::<Result<_, _>>()
                    .map(Value::List)
            }
            Self::Map(validate) => text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| {
                    let (name, value) = line
                        .split_once('=')
                        .ok_or("must be lines of `NAME=value`".to_owned())?;
                    check_entry_name(name.trim())
                        .map_err(|why| format!("has a name that {why}"))?;
                    validate(value).map(|()| (name.trim().to_owned(), value.to_owned()))
                })
                .collect::<Result<_, _>>()
                .map(Value::Map),
        }
    }
}

/// Splits a line at the commas between items. An item can contain commas, such as those between the
/// options of a mount. So a part that is not valid alone is joined to the item before it if the
/// result is valid, or if that item is not valid yet.
fn split_list(line: &str, validate: Validator) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let parts = line.split(',').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        if validate(part).is_err()
            && let Some(last) = items.last_mut()
        {
            let joined = format!("{last},{part}");
            if validate(&joined).is_ok() || validate(last).is_err() {
                *last = joined;
                continue;
            }
        }
        items.push(part.to_owned());
    }
    items
}

/// Checks a name in a table of texts. The table is passed to engines as `NAME=value`.
///
/// # Errors
/// The reason why the name is invalid, as a predicate.
pub fn check_entry_name(name: &str) -> Result<(), String> {
    let is_invalid = |c: char| c == '=' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(is_invalid) {
        Err("must not be empty or contain `=`, spaces or control characters".to_owned())
    } else {
        Ok(())
    }
}

/// The known word that is most similar to a misspelled one; none if no word is similar enough.
pub fn closest_match<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// Parses `45MB` (10⁶), `2GiB` (2³⁰), `512m` and `2g` (binary, as engines read them), or a number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || "must be a size such as \"45MB\" or \"2GiB\"".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| invalid())?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" | "b" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "k" | "K" => 1 << 10,
        "MiB" | "m" | "M" => 1 << 20,
        "GiB" | "g" | "G" => 1 << 30,
        _ => return Err(invalid()),
    };
    number.checked_mul(factor).ok_or_else(invalid)
}

#[allow(clippy::unnecessary_wraps)] // a Validator returns a result
fn any_text(_: &str) -> Result<(), String> {
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

fn required_user(text: &str) -> Result<(), String> {
    RequiredUser::try_from(text.to_owned()).map(|_| ())
}

fn exit_code(text: &str) -> Result<(), String> {
    let code = text.parse::<u8>();
    code.map(|_| ())
        .map_err(|_| "must be a number from 0 to 255".to_owned())
}

fn port(text: &str) -> Result<(), String> {
    Port::try_from(text.to_owned()).map(|_| ())
}

/// A name, or a name and a digest.
fn base_image(text: &str) -> Result<(), String> {
    let Some((name, digest)) = text.split_once('@') else {
        return Ok(());
    };
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if name.is_empty() || hex.len() != 64 || !hex.chars().all(is_hex) {
        return Err(
            "must be a name, or a name with `@sha256:` and 64 hexadecimal digits".to_owned(),
        );
    }
    Ok(())
}

fn image_version(text: &str) -> Result<(), String> {
    version::Version::parse(text)
        .map(|_| ())
        .map_err(|why| format!("cannot be a tag: it {why}"))
}

fn platform(text: &str) -> Result<(), String> {
    image::Platform::parse_supported(text).map(|_| ())
}

/// Both engines accept names of the form `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn container(text: &str) -> Result<(), String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_valid) {
        Ok(())
    } else {
        Err(
            "must contain only letters, digits, `_`, `.` and `-`, and begin with a letter or digit"
                .to_owned(),
        )
    }
}

fn env_name(text: &str) -> Result<(), String> {
    if is_variable_name(text) {
        Ok(())
    } else {
        Err("must be the name of a variable: letters, digits and `_`".to_owned())
    }
}

fn registry_host(text: &str) -> Result<(), String> {
    if text.contains(['/', '@']) || image::Repository::parse(&format!("{text}/x")).is_err() {
        return Err("must be a registry's host, such as `registry.lan:5000`".to_owned());
    }
    Ok(())
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
            mount_source(host)
        }
        _ => Err("must be `HOST:CONTAINER` or `HOST:CONTAINER:OPTIONS`".to_owned()),
    }
}

/// Checks the host's part of a mount: a folder, or the name of a volume.
fn mount_source(host: &str) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    refuse_variables(host)?;
    if is_folder(host)
        || (host.starts_with(|c: char| c.is_ascii_alphanumeric()) && host.chars().all(is_name))
    {
        return Ok(());
    }
    if host.starts_with('~') {
        return Err(format!(
            "has `{host}`, but `~` is expanded only for your own home folder: write `~/…` or the whole path"
        ));
    }
    Err(format!(
        "has `{host}`, which is neither a folder nor the name of a volume: for a folder in the checkout write `./{host}`"
    ))
}

/// Neither TOML nor xtask expands variables, and an engine would take `$HOME` as a part of the name.
fn refuse_variables(host: &str) -> Result<(), String> {
    for home in ["$HOME/", "${HOME}/"] {
        if let Some(below) = host.strip_prefix(home) {
            return Err(format!(
                "has `{}`, which is not expanded: write `~/{below}`",
                &home[..home.len() - 1]
            ));
        }
    }
    if host.contains('$') {
        return Err(
            "has a `$`, and variables are not expanded: write the folder itself".to_owned(),
        );
    }
    Ok(())
}

/// Whether the host's part of a mount is a folder, and not the name of a volume.
pub fn is_folder(host: &str) -> bool {
    matches!(host, "~" | "." | "..")
        || ["/", "~/", "./", "../"]
            .iter()
            .any(|begin| host.starts_with(begin))
}

fn workspace(text: &str) -> Result<(), String> {
    refuse_variables(text)?;
    if text.contains(':') {
        return Err("must be only the host's folder, without `:`".to_owned());
    }
    if text.is_empty() || is_folder(text) {
        Ok(())
    } else {
        Err("must be a folder that begins with `/`, `~/` or `./`".to_owned())
    }
}

fn whole(item: &str) -> &str {
    item
}

/// The port of this machine that a published port has.
fn host_port(port: &str) -> &str {
    port.split(':').next().unwrap_or(port)
}

/// The folder in the container at which a volume is mounted.
pub fn volume_target(volume: &str) -> &str {
    let rest = volume.split_once(':').map_or("", |(_, rest)| rest);
    let target = rest.split(':').next().unwrap_or(rest);
    match target.trim_end_matches('/') {
        "" => "/",
        target => target,
    }
}

fn secret_id(secret: &str) -> &str {
    let id = secret.split(',').find_map(|part| part.strip_prefix("id="));
    id.unwrap_or(secret)
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

/// A template whose result must be a valid tag.
fn template(text: &str) -> Result<(), String> {
    template_value(text)?;
    let sample = fill_sample(text)?;
    version::check_tag(&sample).map_err(|why| format!("cannot be a tag: it {why}"))
}

/// A suffix must be told from the tag before it.
fn tag_suffix(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix(['-', '_', '.']).unwrap_or_default();
    if rest.is_empty() {
        return Err("must be `-`, `_` or `.` with letters or digits after it".to_owned());
    }
    version::check_tag(&format!("1{text}")).map_err(|why| format!("cannot end a tag: it {why}"))
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
    version::fill_template(text, &values).map_err(|why| format!("is not a template: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_after_their_keys() {
        let of = |path: &str| KEYS.iter().find(|key| key.path == path).unwrap().env();
        assert_eq!(of("engine.prefer"), "XTASK_ENGINE");
        assert_eq!(
            of("run.hardening.read-only"),
            "XTASK_RUN_HARDENING_READ_ONLY"
        );
        let all: std::collections::BTreeSet<_> = KEYS.iter().map(Key::env).collect();
        assert_eq!(all.len(), KEYS.len(), "each key has a variable of its own");
    }

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_size("45MB"), Ok(45_000_000));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512m"), Ok(512 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "MB", "1.5GB", "99999999999999GB", "5 parsecs", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn similar_words_are_suggested() {
        assert_eq!(
            closest_match("podmn", ["docker", "podman"].into_iter()),
            Some("podman")
        );
        assert_eq!(closest_match("xyz", ["docker", "podman"].into_iter()), None);
        let error = ValueType::Choice(&["auto", "docker"])
            .read("dokcer")
            .unwrap_err();
        assert_eq!(
            error,
            "must be one of \"auto\", \"docker\"; did you mean \"docker\"?"
        );
    }

    #[test]
    fn texts_are_read_as_values() {
        let list = |items: &[&str]| Value::List(items.iter().map(|&i| i.to_owned()).collect());
        assert_eq!(
            ValueType::List(platform)
                .read("linux/amd64, linux/arm64")
                .unwrap(),
            list(&["linux/amd64", "linux/arm64"])
        );
        assert_eq!(
            ValueType::List(secret)
                .read("id=a,src=/a\nid=b,env=B")
                .unwrap(),
            list(&["id=a,src=/a", "id=b,env=B"])
        );
        assert_eq!(
            ValueType::Duration.read("1m 30s").unwrap(),
            Value::Duration(Duration::from_secs(90))
        );
        assert_eq!(ValueType::Size.read("").unwrap(), Value::Size(None));
        assert!(ValueType::Count(0, 5).read("6").is_err());
        assert!(ValueType::Duration.read("0s").is_err());
        assert_eq!(
            ValueType::Seconds.read("2m").unwrap(),
            Value::Duration(Duration::from_secs(120))
        );
        for text in ["500ms", "1s 500ms", "0s", "x"] {
            assert!(ValueType::Seconds.read(text).is_err(), "{text}");
        }
        assert_eq!(
            ValueType::Map(any_text).read("A=1\nB=x=y").unwrap(),
            Value::Map([("A".into(), "1".into()), ("B".into(), "x=y".into())].into())
        );
    }

    #[test]
    fn an_item_of_a_list_can_contain_commas() {
        let list = |items: &[&str]| Ok(Value::List(items.iter().map(|&i| i.to_owned()).collect()));
        let volumes = ValueType::List(volume);
        let options = "~/w:/w:rw,z";
        assert_eq!(volumes.read(options), list(&[options]));
        assert_eq!(
            volumes.read("~/w:/w:rw,z,~/x:/x"),
            list(&[options, "~/x:/x"])
        );
        assert_eq!(
            volumes.read("~/w:/w:rw,z\n~/x:/x\n"),
            list(&[options, "~/x:/x"])
        );
        let tmpfs = "/tmp:size=64m,mode=1777";
        assert_eq!(ValueType::List(absolute).read(tmpfs), list(&[tmpfs]));
        let secrets = "src=/a,id=a,id=b,env=B\ntype=env,id=c,src=C";
        assert_eq!(
            ValueType::List(secret).read(secrets),
            list(&["src=/a,id=a", "id=b,env=B", "type=env,id=c,src=C"])
        );
        assert_eq!(
            ValueType::List(platform)
                .read("linux/amd64,linux/arm65")
                .unwrap_err(),
            format!("`linux/arm65` {}", platform("linux/arm65").unwrap_err())
        );
    }

    #[test]
    fn a_mount_names_a_folder_or_a_volume() {
        for good in [
            "~/a:/a",
            "/a:/a:ro",
            "./a:/a",
            "../a:/a",
            "my_volume-1.x:/a",
            "/a b:/c",
        ] {
            assert_eq!(volume(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            (
                "$HOME/models:/models:ro",
                "has `$HOME`, which is not expanded: write `~/models`",
            ),
            (
                "${HOME}/models:/models",
                "has `${HOME}`, which is not expanded: write `~/models`",
            ),
            (
                "/$USER:/models",
                "has a `$`, and variables are not expanded: write the folder itself",
            ),
            (
                "data/models:/models:ro",
                "has `data/models`, which is neither a folder nor the name of a volume: for a folder in the checkout write `./data/models`",
            ),
        ] {
            assert_eq!(volume(bad), Err(why.to_owned()), "{bad}");
        }
        for good in ["", "~/w", "/w", "./w", "~"] {
            assert_eq!(workspace(good), Ok(()), "{good}");
        }
        for bad in ["~/w:/workspace", "w", "$HOME/w", "~w"] {
            assert!(workspace(bad).is_err(), "{bad}");
        }
        assert_eq!(volume_target("~/a:/workspace/:ro"), "/workspace");
    }

    #[test]
    fn a_base_image_can_have_a_digest() {
        let hex = "0123456789abcdef".repeat(4);
        for good in [
            "",
            "python",
            "a.example:5000/python:3",
            &format!("python:3@sha256:{hex}"),
        ] {
            assert_eq!(base_image(good), Ok(()), "{good}");
        }
        for bad in [
            "python@",
            "python@sha256:0",
            &format!("@sha256:{hex}"),
            &format!("p@sha256:{}", hex.to_uppercase()),
        ] {
            assert!(base_image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_suffix_of_a_flavour_must_end_a_tag() {
        for good in ["-tools", "_x", ".2", "-a-b"] {
            assert_eq!(tag_suffix(good), Ok(()), "{good}");
        }
        for bad in ["", "-", "tools", "-a/b", "-a+b"] {
            assert!(tag_suffix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn templates_of_tags_must_give_valid_tags() {
        assert!(template("{version}").is_ok());
        assert!(template("{version}/x").is_err());
        assert!(template("{commit}").is_err());
    }
}
