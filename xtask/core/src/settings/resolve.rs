//! Arguments, environment and files become settings.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::{
    base::{env::Env, error::Failure, image::Platform, secret, version::Version},
    config::{
        files::Files,
        layer::{Layer, Origin, Override, Sourced},
        resolve,
        schema::{
            CHANNEL, CHANNEL_KEYS, CHANNEL_NAME_KEY, FLAVOUR, FLAVOUR_KEYS, FLAVOUR_NAME_KEY, KEYS,
            Key, Merge, Value, ValueType,
        },
    },
    settings::{
        Channel, Flavour, ImageSettings, Settings, Values, flavour, mounts::refuse_repeated_mounts,
    },
};

/// The part of the command line that sets settings.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The image version, `--version`.
    pub version: Option<String>,
    /// The variant of the image, `--flavour`.
    pub flavour: Option<String>,
    /// Settings that flags set.
    pub overrides: Vec<Override>,
}

impl Settings {
    /// Resolves all settings.
    ///
    /// # Errors
    /// All problems of the configuration, else those of the version, of its channel or of the flavour.
    pub fn resolve(arguments: &Arguments, env: &Env, files: &Files) -> Result<Self, Failure> {
        let mut layer = resolve::resolve(files, env)?;
        resolve::apply_overrides(&mut layer, &arguments.overrides, env)?;
        let values: Values = from_layer(&layer, "", KEYS, Map::new())?;
        let version = choose_version(arguments.version.as_deref(), env, &values.image, &layer)?;
        refuse_repeated_platforms(&layer)?;
        refuse_repeated_items(&layer)?;
        refuse_repeated_mounts(&layer)?;
        let flavours = read_flavours(&layer)?;
        flavour::refuse_unknown(&layer, &flavours)?;
        flavour::refuse_tag(&version, &flavours)?;
        let plain = Self {
            root: files.root.clone(),
            channel: choose_channel(&version.value, &layer)?,
            version,
            engine: values.engine,
            configured_repository: values.image.repository.clone(),
            image: values.image,
            registry: values.registry,
            build: values.build,
            sign: values.sign,
            run: values.run,
            stack: values.stack,
            health: values.health,
            require: values.require,
            budget: values.budget,
            flavour: None,
            flavours,
            layer,
        };
        match &arguments.flavour {
            Some(name) => plain.with_flavour(name),
            None => Ok(plain),
        }
    }

    /// Refuses build arguments that look like secrets: they stay in the image's history, where
    /// everyone can read them. Only commands that build call this: the others still work.
    ///
    /// # Errors
    /// The first such argument, with its origin.
    pub fn refuse_secret_build_args(&self) -> Result<(), Failure> {
        let of_channel = format!("{CHANNEL}.{}.build-args", self.channel.name);
        for (table, key) in [("build.args", "build.args"), (&of_channel, "build-args")] {
            for (name, value) in self.layer.entries(table) {
                let has_secret =
                    matches!(&value.value, Value::Text(text) if secret::looks_like_secret(text));
                let is_public = self.build.public_args.iter().any(|public| public == name);
                if !has_secret && (is_public || !secret::is_secret_name(name)) {
                    continue;
                }
                let failure = Failure::usage(format!(
                    "the build argument `{name}` in `{key}` (from {}) looks like a secret, and build arguments stay readable in the image's history",
                    value.origin
                ))
                .hint(format!("make it a build secret: `build.secrets = [\"id={},env={name}\"]`", name.to_lowercase()));
                return Err(if has_secret {
                    failure
                } else {
                    failure.hint(format!(
                        "if its value is public, say so: `build.public-args = [\"{name}\"]`"
                    ))
                });
            }
        }
        Ok(())
    }
}

/// The values of a layer under a prefix, as a type whose fields are the keys.
///
/// # Errors
/// When the schema and the type differ. That is a mistake in xtask.
fn from_layer<T: DeserializeOwned>(
    layer: &Layer,
    prefix: &str,
    keys: &[Key],
    mut tree: Map<String, Json>,
) -> Result<T, Failure> {
    for key in keys {
        let path = format!("{prefix}{}", key.path);
        let value = if let ValueType::Map(_) = key.value_type {
            let entries = layer.entries(&path);
            let entries = entries.map(|(name, one)| (name.to_owned(), as_json(&one.value)));
            Some(entries.collect::<Map<_, _>>().into())
        } else {
            layer.get(&path).map(|sourced| as_json(&sourced.value))
        };
        if let Some(value) = value {
            insert(&mut tree, key.path, value);
        }
    }
    serde_json::from_value(tree.into()).map_err(|error| {
        Failure::new(format!(
            "internal error: the settings and the schema differ: {error}"
        ))
    })
}

fn insert(tree: &mut Map<String, Json>, path: &str, value: Json) {
    match path.split_once('.') {
        None => {
            tree.insert(path.to_owned(), value);
        }
        Some((table, rest)) => {
            let table = tree
                .entry(table)
                .or_insert_with(|| Map::new().into())
                .as_object_mut();
            if let Some(table) = table {
                insert(table, rest, value);
            }
        }
    }
}

/// A value as the settings' types read it.
fn as_json(value: &Value) -> Json {
    match value {
        Value::Bool(yes) => (*yes).into(),
        Value::Count(count) => (*count).into(),
        Value::Size(bytes) => (*bytes).into(),
        Value::Duration(duration) => {
            serde_json::json!({ "secs": duration.as_secs(), "nanos": duration.subsec_nanos() })
        }
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.clone().into(),
        Value::Map(entries) => entries
            .iter()
            .map(|(name, text)| (name.clone(), text.as_str().into()))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// `--version`, else `VERSION`, else the tag that a CI run is for, else the configured default.
fn choose_version(
    typed: Option<&str>,
    env: &Env,
    image: &ImageSettings,
    layer: &Layer,
) -> Result<Sourced<Version>, Failure> {
    let variable = |name: &str| {
        let value = env.get(name)?;
        Some((value, Origin::Env(name.to_owned())))
    };
    let ci_tag = || {
        (env.get("GITHUB_REF_TYPE") == Some("tag"))
            .then(|| variable("GITHUB_REF_NAME"))
            .flatten()
    };
    let default = || {
        let configured = layer.get("image.default-version");
        let origin = configured.map_or(Origin::Default, |sourced| sourced.origin.clone());
        (image.default_version.as_str(), origin)
    };
    let (text, origin) = typed
        .map(|text| (text, Origin::Flag("--version")))
        .or_else(|| variable("VERSION"))
        .or_else(ci_tag)
        .unwrap_or_else(default);
    match Version::parse(text) {
        Ok(value) => Ok(Sourced { value, origin }),
        Err(why) => {
            let failure = Failure::usage(format!(
                "the version `{text}` (from {origin}) cannot be an image's tag: it {why}"
            ));
            Err(match version_of_git_tag(text) {
                Some(version) => failure.hint(format!(
                    "set the version without the name before the `/`: `VERSION={version}` or `--version {version}` (in GitHub Actions `VERSION=${{GITHUB_REF_NAME##*/}}`)"
                )),
                None => failure,
            })
        }
    }
}

/// The version in the git tag of one project of several, such as `1.2.3` in `agent-runner/v1.2.3`.
fn version_of_git_tag(tag: &str) -> Option<String> {
    let (_, version) = tag.rsplit_once('/')?;
    let version = Version::parse(version).ok()?;
    version.semver().map(ToString::to_string)
}

/// The first channel that takes the version.
pub(super) fn choose_channel(version: &Version, layer: &Layer) -> Result<Channel, Failure> {
    for name in layer.channels() {
        let prefix = format!("{CHANNEL}.{name}.");
        let tree = [(CHANNEL_NAME_KEY.to_owned(), name.as_str().into())];
        let channel: Channel =
            from_layer(layer, &prefix, CHANNEL_KEYS, tree.into_iter().collect())?;
        if channel
            .r#match
            .iter()
            .any(|pattern| version.matches(pattern))
        {
            return Ok(channel);
        }
    }
    Err(
        Failure::usage(format!("no channel takes the version `{version}`"))
            .hint("add `[[channel]]` with `match = [\"*\"]` to xtask.toml"),
    )
}

/// All flavours of the configuration, by name.
///
/// # Errors
/// When a flavour has no stage, and when two have the same suffix.
fn read_flavours(layer: &Layer) -> Result<Vec<Flavour>, Failure> {
    let mut flavours: Vec<Flavour> = Vec::new();
    for name in layer.flavours() {
        let prefix = format!("{FLAVOUR}.{name}.");
        let tree = [(FLAVOUR_NAME_KEY.to_owned(), name.into())];
        let tree = tree.into_iter().collect();
        let mut flavour: Flavour = from_layer(layer, &prefix, FLAVOUR_KEYS, tree)?;
        if flavour.target.is_empty() {
            return Err(Failure::usage(format!(
                "the flavour `{name}` has no `target`, the stage of the Dockerfile that it is built from"
            ))
            .hint(format!("add it: `[flavour.{name}]` with `target = \"runtime-{name}\"`")));
        }
        if flavour.suffix.is_empty() {
            flavour.suffix = format!("-{name}");
        }
        if let Some(other) = flavours.iter().find(|one| one.suffix == flavour.suffix) {
            return Err(Failure::usage(format!(
                "the flavours `{}` and `{name}` have the same suffix `{}`, so their images would have the same tags",
                other.name, flavour.suffix
            ))
            .hint(format!("set another suffix: `flavour.{name}.suffix`")));
        }
        flavours.push(flavour);
    }
    Ok(flavours)
}

/// A platform that a list names twice, perhaps under two names, is probably a mistake.
fn refuse_repeated_platforms(layer: &Layer) -> Result<(), Failure> {
    let of_channel = |name: &String| format!("{CHANNEL}.{name}.platforms");
    let lists = std::iter::once("build.platforms".to_owned())
        .chain(layer.channels().iter().map(of_channel));
    for path in lists {
        let Some((Value::List(texts), origin)) =
            layer.get(&path).map(|list| (&list.value, &list.origin))
        else {
            continue;
        };
        let mut known: Vec<Platform> = Vec::new();
        for platform in texts.iter().filter_map(|text| text.parse().ok()) {
            if known.contains(&platform) {
                return Err(Failure::usage(format!(
                    "`{path}` (from {origin}) names the platform {platform} twice"
                ))
                .hint("remove one of the two; `arm64/v8` and `aarch64` are other names of `arm64`, `x86_64` of `amd64`"));
            }
            known.push(platform);
        }
    }
    Ok(())
}

/// Refuses two items with the same identity in one list, such as two volumes at the same folder.
/// Both are from one source: an item of a stronger source has already replaced that of a weaker
/// one.
fn refuse_repeated_items(layer: &Layer) -> Result<(), Failure> {
    for key in KEYS {
        let (Merge::Add(identity), Some(list)) = (key.merge, layer.get(key.path)) else {
            continue;
        };
        let mut known: Vec<(&str, &Origin)> = Vec::new();
        for (item, origin) in list.items() {
            let same =
                |other: &&(&str, &Origin)| other.0 != item && identity(other.0) == identity(item);
            if let Some((other, other_origin)) = known.iter().find(same) {
                return Err(Failure::usage(format!(
                    "`{}` has two entries for `{}`: `{other}` (from {other_origin}) and `{item}` (from {origin})",
                    key.path,
                    identity(item)
                ))
                .hint("remove one of the two"));
            }
            known.push((item, origin));
        }
    }
    Ok(())
}
