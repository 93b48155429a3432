//! The types of configuration values. The words of a choice are declared once, for the schema, the command
//! line and the settings.

use clap::{ValueEnum, builder::PossibleValue};
use serde::Deserialize;

use crate::base::{engine_kind::EngineKind, image::Platform};

/// Declares an enum and the words for its variants.
macro_rules! choice {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] #[value(name = $word)] $variant),*
        }

        impl $name {
            /// The words of all variants, in their order.
            pub const WORDS: &'static [&'static str] = &[$(Self::$variant.word()),*];

            /// The word for this variant in the configuration and on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

choice! {
    /// How a build prints its progress.
    Progress {
        Auto = "auto",
        Plain = "plain",
        Tty = "tty",
        Quiet = "quiet",
    }
}

choice! {
    /// The buildx driver of the builder that xtask creates.
    BuilderDriver {
        DockerContainer = "docker-container",
        Kubernetes = "kubernetes",
    }
}

choice! {
    /// The build cache that several machines share.
    Cache {
        None = "none",
        Local = "local",
        Registry = "registry",
        /// The cache of GitHub Actions.
        GitHub = "gha",
    }
}

choice! {
    /// Whether bind mounts are relabelled for SELinux.
    Relabel {
        IfEnforcing = "auto",
        Always = "yes",
        Never = "no",
    }
}

choice! {
    /// When the engine starts a container again that has ended.
    /// <https://docs.docker.com/engine/containers/start-containers-automatically/>
    Restart {
        No = "no",
        OnFailure = "on-failure",
        UnlessStopped = "unless-stopped",
    }
}

choice! {
    /// Whether the images of a channel may be published.
    Publish {
        Yes = "yes",
        /// Only if `--version` gives the version.
        ByName = "by-name",
        No = "no",
    }
}

choice! {
    /// How cosign signs published images.
    Sign {
        No = "no",
        Key = "key",
        Keyless = "keyless",
    }
}

choice! {
    /// The state of the work tree that publishing requires.
    WorkTreeRequirement {
        Any = "any",
        /// No uncommitted changes.
        Clean = "clean",
        /// No uncommitted changes, and HEAD has the version's tag.
        Tagged = "tagged",
    }
}

/// Which engine to use.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum EngineChoice {
    /// The first engine that answers.
    Auto,
    Only(EngineKind),
}

/// The number of engines, and one more for `auto`.
const ENGINE_CHOICES: usize = EngineKind::ALL.len() + 1;

impl EngineChoice {
    const ALL: [Self; ENGINE_CHOICES] = {
        let mut all = [Self::Auto; ENGINE_CHOICES];
        let mut number = 1;
        while number < ENGINE_CHOICES {
            all[number] = Self::Only(EngineKind::ALL[number - 1]);
            number += 1;
        }
        all
    };

    /// All words, `auto` first.
    pub const WORDS: &'static [&'static str] = &{
        let mut words = [""; ENGINE_CHOICES];
        let mut number = 0;
        while number < ENGINE_CHOICES {
            words[number] = Self::ALL[number].word();
            number += 1;
        }
        words
    };

    /// The word for this choice in the configuration and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(kind) => kind.program(),
        }
    }

    /// The engines to try, in this order.
    pub fn candidates(self) -> Vec<EngineKind> {
        match self {
            Self::Auto => EngineKind::ALL.to_vec(),
            Self::Only(kind) => vec![kind],
        }
    }
}

impl ValueEnum for EngineChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.word()))
    }
}

impl TryFrom<String> for EngineChoice {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        Self::from_str(&word, false)
    }
}

/// The container's network.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "String")]
pub enum Network {
    /// The host's network if the engine runs on this host, else a bridge.
    Auto,
    Host,
    Bridge,
    Named(String),
}

impl Network {
    /// The words that are not the name of a network.
    pub const WORDS: &'static [&'static str] = &["auto", "host", "bridge"];

    /// The network as it is configured.
    pub fn word(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::Host => "host",
            Self::Bridge => "bridge",
            Self::Named(name) => name,
        }
    }

    /// The container whose network this is: `container:NAME`.
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::Named(name) => name.strip_prefix("container:"),
            Self::Auto | Self::Host | Self::Bridge => None,
        }
    }

    /// Whether xtask cannot give the host a name on this network: the container has no network, or
    /// shares that of another container or of a namespace.
    pub fn is_apart_from_host(&self) -> bool {
        match self {
            Self::Named(name) => {
                name == "none" || name.starts_with("container:") || name.starts_with("ns:")
            }
            Self::Auto | Self::Host | Self::Bridge => false,
        }
    }

    /// The name of a network that the user must have created. Words such as `none` and
    /// `slirp4netns:…` are kinds of networks and not names.
    pub fn created_by_user(&self) -> Option<&str> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let kinds = ["none", "default", "private", "slirp4netns", "pasta", "nat"];
        match self {
            Self::Named(name) if kinds.contains(&name.as_str()) => None,
            Self::Named(name) => name.chars().all(is_name).then_some(name),
            Self::Auto | Self::Host | Self::Bridge => None,
        }
    }
}

impl From<String> for Network {
    fn from(word: String) -> Self {
        match word.as_str() {
            "auto" => Self::Auto,
            "host" => Self::Host,
            "bridge" => Self::Bridge,
            _ => Self::Named(word),
        }
    }
}

/// The user in the container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum RunUser {
    /// A user whose files on the host belong to the user who runs xtask.
    Auto,
    /// The image's own user.
    Image,
    /// A user id and a group id.
    Ids(u32, u32),
}

impl TryFrom<String> for RunUser {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ids = text.split_once(':');
        let ids = ids.and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        match (text.as_str(), ids) {
            ("auto", _) => Ok(Self::Auto),
            ("image", _) => Ok(Self::Image),
            (_, Some((uid, gid))) => Ok(Self::Ids(uid, gid)),
            (_, None) => Err("must be `auto`, `image` or `UID:GID`".to_owned()),
        }
    }
}

/// The user that an image must run as.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum RequiredUser {
    Any,
    NotRoot,
    Uid(u32),
}

impl TryFrom<String> for RequiredUser {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.parse()) {
            ("any", _) => Ok(Self::Any),
            ("not-root", _) => Ok(Self::NotRoot),
            (_, Ok(uid)) => Ok(Self::Uid(uid)),
            (_, Err(_)) => Err("must be `any`, `not-root` or a user id".to_owned()),
        }
    }
}

/// A port of the host that leads to a port of the container.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Port {
    pub host: u16,
    pub container: u16,
}

impl Port {
    /// The same port on both sides.
    pub fn same(port: u16) -> Self {
        Self {
            host: port,
            container: port,
        }
    }
}

impl TryFrom<String> for Port {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
        let ports = text.split_once(':');
        let ports = ports.and_then(|(host, container)| Some((number(host)?, number(container)?)));
        let (host, container) =
            ports.ok_or("must be `HOST:CONTAINER`, two ports such as `8080:80`")?;
        Ok(Self { host, container })
    }
}

/// The builder of multi-platform builds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "String")]
pub enum BuilderChoice {
    Auto,
    /// An existing builder.
    Named(String),
}

impl From<String> for BuilderChoice {
    fn from(word: String) -> Self {
        match word.as_str() {
            "auto" => Self::Auto,
            _ => Self::Named(word),
        }
    }
}

/// A machine that builds for one platform. Docker uses a BuildKit daemon, Podman a Podman service.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Node {
    pub platform: Platform,
    pub endpoint: String,
}

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let form = "must be `PLATFORM=ENDPOINT`, such as `linux/arm64=tcp://builder:1234`";
        let (platform, endpoint) = text.split_once('=').ok_or(form)?;
        let schemes = [
            "tcp://",
            "unix://",
            "docker-container://",
            "kube-pod://",
            "ssh://",
        ];
        if !schemes.iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(form.to_owned());
        }
        Ok(Self {
            platform: Platform::parse_supported(platform)
                .map_err(|why| format!("names the platform `{platform}`, which {why}"))?,
            endpoint: endpoint.to_owned(),
        })
    }
}

/// A build secret, in the forms that Docker accepts.
/// <https://docs.docker.com/reference/cli/docker/buildx/build/#secret>
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct BuildSecret {
    pub id: String,
    pub source: SecretSource,
}

/// The source of a build secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(String),
    /// The name of an environment variable.
    Env(String),
}

impl TryFrom<String> for BuildSecret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let invalid = || "must be `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`".to_owned();
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(invalid)?;
            let field = match name {
                "id" => &mut id,
                "src" | "source" => &mut file,
                "env" => &mut variable,
                "type" => &mut kind,
                _ => return Err(invalid()),
            };
            if value.is_empty() || field.replace(value).is_some() {
                return Err(invalid());
            }
        }
        let source = match (kind, file, variable) {
            (None | Some("file"), Some(file), None) => SecretSource::File(file.to_owned()),
            // With `type=env`, `src` is the name of a variable too.
            (None | Some("env"), None, Some(name)) | (Some("env"), Some(name), None)
                if is_variable_name(name) =>
            {
                SecretSource::Env(name.to_owned())
            }
            _ => return Err(invalid()),
        };
        let id = id.ok_or_else(invalid)?.to_owned();
        Ok(Self { id, source })
    }
}

/// Whether the text is a valid name of an environment variable: letters, digits and `_`.
pub fn is_variable_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_secrets_are_parsed() {
        let parse = |text: &str| BuildSecret::try_from(text.to_owned());
        let file = parse("id=ca,src=/etc/ca.pem").unwrap();
        assert_eq!(file.source, SecretSource::File("/etc/ca.pem".to_owned()));
        let env = parse("id=token,env=TOKEN").unwrap();
        assert_eq!(env.source, SecretSource::Env("TOKEN".to_owned()));
        for same in [
            "src=/etc/ca.pem,id=ca",
            "type=file,id=ca,source=/etc/ca.pem",
        ] {
            assert_eq!(parse(same).unwrap(), file, "{same}");
        }
        for same in [
            "env=TOKEN,id=token",
            "type=env,id=token,env=TOKEN",
            "type=env,src=TOKEN,id=token",
        ] {
            assert_eq!(parse(same).unwrap(), env, "{same}");
        }
        for bad in [
            "",
            "id=x",
            "src=/x",
            "id=,src=/x",
            "id=x,value=y",
            "id=x,src=/x,id=y",
            "id=x,src=/x,env=X",
            "type=file,id=x,env=X",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_engine_can_be_chosen() {
        assert_eq!(EngineChoice::WORDS, ["auto", "docker", "podman"]);
        for kind in EngineKind::ALL {
            let word = kind.program().to_owned();
            assert_eq!(EngineChoice::try_from(word), Ok(EngineChoice::Only(*kind)));
        }
        assert!(EngineChoice::try_from("nerdctl".to_owned()).is_err());
    }
}
