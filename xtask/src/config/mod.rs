//! xtask.toml: read in two passes (the schema's version, then everything), checked as a
//! whole, and laid over the defaults. All problems are reported at once.

mod migrate;
mod problem;
pub mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{env::Env, error::Failure, secret};
use problem::{Problem, Source};
use schema::{
    CHANNEL, CHANNEL_KEYS, CHANNEL_NAME, KEYS, Key, Kind, SCHEMA, SCHEMA_KEY, Value, nearest,
};

/// The project's file, in the workspace's root.
pub const FILE: &str = "xtask.toml";
/// A person's own file beside it, not in git.
pub const LOCAL_FILE: &str = "xtask.local.toml";
/// How our environment variables begin.
const ENV_PREFIX: &str = "XTASK_";
/// The built-in defaults.
const DEFAULTS: &str = include_str!("default.toml");

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { name: String, line: usize },
    Env(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub origin: Origin,
}

/// A set of values by path (`run.limits.pids`, `run.env.MODE`, `channel.dev.tags`),
/// and the channels' names in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    values: BTreeMap<String, Sourced<Value>>,
    channels: Vec<String>,
}

impl Layer {
    pub fn set(&mut self, path: &str, value: Value, origin: Origin) {
        self.values
            .insert(path.to_owned(), Sourced { value, origin });
    }

    pub fn get(&self, path: &str) -> Option<&Sourced<Value>> {
        self.values.get(path)
    }

    /// The entries of a table of texts: its names and values.
    pub fn entries(&self, table: &str) -> impl Iterator<Item = (&str, &Sourced<Value>)> {
        let prefix = format!("{table}.");
        self.values
            .range(prefix.clone()..)
            .take_while({
                let prefix = prefix.clone();
                move |(path, _)| path.starts_with(&prefix)
            })
            .map(move |(path, value)| (&path[prefix.len()..], value))
    }

    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Lays another layer over this one. Its values win, and channels that only it has are tried first.
    pub fn overlay(&mut self, over: Self) {
        self.values.extend(over.values);
        // A known channel keeps its place: to change a key of the last, which takes everything,
        // must not make it the first.
        let new = over
            .channels
            .into_iter()
            .filter(|name| !self.channels.contains(name));
        self.channels = new.chain(self.channels.clone()).collect();
    }
}

/// The files of a workspace, unread.
#[derive(Clone, Debug)]
pub struct Files {
    pub root: PathBuf,
    pub project: String,
    pub local: Option<String>,
}

/// Finds the workspace above a folder and reads its files.
///
/// # Errors
/// When there is no xtask.toml above, or a file cannot be read.
pub fn find(from: &Path) -> anyhow::Result<Files> {
    let root = from
        .ancestors()
        .find(|folder| folder.join(FILE).is_file())
        .ok_or_else(|| {
            Failure::usage(format!(
                "there is no `{FILE}` in `{}` or above",
                from.display()
            ))
            .hint("run xtask in a checkout of the agent-runner repository")
        })?;
    if root.to_str().is_none() {
        return Err(Failure::usage(format!(
            "the workspace's path `{}` is not UTF-8, and engines take no such path",
            root.display()
        ))
        .hint("move the checkout to another folder")
        .into());
    }
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).map_err(|error| {
            Failure::new(format!(
                "cannot read `{}`: {error}",
                root.join(name).display()
            ))
        })
    };
    let local = root
        .join(LOCAL_FILE)
        .exists()
        .then(|| read(LOCAL_FILE))
        .transpose()?;
    Ok(Files {
        root: root.to_owned(),
        project: read(FILE)?,
        local,
    })
}

/// Lays defaults, project file, personal file and environment over each other.
///
/// # Errors
/// All problems of all of them.
pub fn resolve(files: &Files, env: &Env) -> Result<Layer, Failure> {
    let mut problems = Vec::new();
    let mut all = Layer::default();
    let sources = [
        Some(Source {
            name: "default.toml",
            text: DEFAULTS,
        }),
        Some(Source {
            name: FILE,
            text: &files.project,
        }),
        files.local.as_deref().map(|text| Source {
            name: LOCAL_FILE,
            text,
        }),
    ];
    for source in sources.into_iter().flatten() {
        match read_document(source) {
            Ok(layer) => all.overlay(layer),
            Err(found) => problems.extend(found),
        }
    }
    for value in all.values.values_mut() {
        if matches!(&value.origin, Origin::File { name, .. } if name == "default.toml") {
            value.origin = Origin::Default;
        }
    }
    match read_environment(env) {
        Ok(layer) => all.overlay(layer),
        Err(found) => problems.extend(found),
    }
    if problems.is_empty() {
        Ok(all)
    } else {
        Err(report(&problems))
    }
}

fn report(problems: &[Problem]) -> Failure {
    let count = match problems.len() {
        1 => "the configuration has a problem".to_owned(),
        many => format!("the configuration has {many} problems"),
    };
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Failure::usage(format!("{count}\n\n{}", all.join("\n\n")))
}

/// Reads one document: its schema first, then all of it.
fn read_document(source: Source) -> Result<Layer, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(source.text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| Problem::at(source, error.span().unwrap_or(0..0), error.message(), None))
            .collect());
    }
    let mut document = document.into_inner();
    let schema = read_schema(source, &document)?;
    document.remove(SCHEMA_KEY);
    migrate::migrate(&mut document, schema, migrate::MIGRATIONS);

    let mut reader = Reader {
        source,
        layer: Layer::default(),
        problems: Vec::new(),
    };
    if let Some((_, channels)) = document.remove_entry(CHANNEL) {
        reader.channels(&channels);
    }
    reader.table(&document, "", "", KEYS);
    reader.problems.sort_by_key(|(at, _)| *at);
    if reader.problems.is_empty() {
        Ok(reader.layer)
    } else {
        Err(reader
            .problems
            .into_iter()
            .map(|(_, problem)| problem)
            .collect())
    }
}

/// The first pass: nothing but the schema's number, so that an old xtask says
/// "update me" and not "unknown key".
fn read_schema(source: Source, document: &DeTable) -> Result<u64, Vec<Problem>> {
    let Some(value) = document.get(SCHEMA_KEY) else {
        return Err(vec![Problem::general(format!(
            "`{name}` does not say which schema it is written in\n  = help: add this line at its top: `{SCHEMA_KEY} = {SCHEMA}`",
            name = source.name,
        ))]);
    };
    let number = value
        .get_ref()
        .as_integer()
        .and_then(|i| i.as_str().parse::<u64>().ok());
    let problem = |message: &str, help: String| {
        Err(vec![Problem::at(source, value.span(), message, Some(help))])
    };
    match number {
        Some(schema) if schema > SCHEMA => problem(
            &format!("the file is written in schema {schema}, this xtask reads up to {SCHEMA}"),
            "update your checkout: `git pull`".to_owned(),
        ),
        Some(schema) if schema > 0 => Ok(schema),
        _ => problem(
            &format!("`{SCHEMA_KEY}` must be a whole number from 1 to {SCHEMA}"),
            format!("write `{SCHEMA_KEY} = {SCHEMA}`"),
        ),
    }
}

/// The second pass over one document.
struct Reader<'a> {
    source: Source<'a>,
    layer: Layer,
    /// Each with its place, to report them in the file's order.
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn problem(&mut self, span: std::ops::Range<usize>, message: &str, help: Option<String>) {
        self.problems
            .push((span.start, Problem::at(self.source, span, message, help)));
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File {
            name: self.source.name.to_owned(),
            line: self.source.place(at).0,
        }
    }

    /// A table whose keys are `prefix` + name among `keys`, stored under `store` + name.
    fn table(&mut self, table: &DeTable, prefix: &str, store: &str, keys: &[Key]) {
        for (name, value) in table {
            let path = format!("{prefix}{}", name.get_ref());
            let below = format!("{path}.");
            if let Some(key) = keys.iter().find(|key| key.path == path) {
                self.value(key, &format!("{store}{path}"), value);
            } else if keys.iter().any(|key| key.path.starts_with(&below)) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(inner, &below, store, keys),
                    _ => self.problem(value.span(), &format!("`{path}` must be a table"), None),
                }
            } else {
                self.unknown(name, &path, prefix, keys);
            }
        }
    }

    fn unknown(
        &mut self,
        name: &Spanned<std::borrow::Cow<str>>,
        path: &str,
        prefix: &str,
        keys: &[Key],
    ) {
        // First the siblings, then the whole schema: a key in the wrong table is common.
        let siblings: BTreeSet<&str> = keys
            .iter()
            .filter_map(|key| key.path.strip_prefix(prefix))
            .map(|rest| rest.split('.').next().unwrap_or(rest))
            .chain(prefix.is_empty().then_some(CHANNEL))
            .collect();
        let sibling = nearest(name.get_ref(), siblings.iter().copied());
        let elsewhere = keys
            .iter()
            .find(|key| key.path.rsplit('.').next() == Some(name.get_ref().as_ref()))
            .map(|key| key.path);
        let help = match (sibling, elsewhere) {
            (Some(near), _) => Some(format!("did you mean `{near}`?")),
            (None, Some(path)) => Some(format!("there is a key `{path}`")),
            (None, None) => None,
        };
        self.problem(name.span(), &format!("unknown key `{path}`"), help);
    }

    fn value(&mut self, key: &Key, path: &str, value: &Spanned<DeValue>) {
        let wrong_type = |found: &DeValue| {
            format!(
                "`{}` must be {}, but is {}",
                key.path,
                key.kind.describe(),
                type_name(found)
            )
        };
        let read = match (key.kind, value.get_ref()) {
            (Kind::Bool, DeValue::Boolean(yes)) => Ok(Value::Bool(*yes)),
            (Kind::Count(..), DeValue::Integer(number)) => key.kind.read(number.as_str()),
            (
                Kind::Size | Kind::Duration | Kind::Choice(_) | Kind::Text(_),
                DeValue::String(text),
            ) => key.kind.read(text),
            (Kind::List(check), DeValue::Array(items)) => {
                let texts = items
                    .iter()
                    .filter_map(|item| self.item(key, check, item))
                    .collect::<Vec<_>>();
                Ok(Value::List(texts))
            }
            (Kind::Map(check), DeValue::Table(entries)) => {
                for (name, item) in entries {
                    if let Some(text) = self.item(key, check, item) {
                        let origin = self.origin(name.span().start);
                        let path = format!("{path}.{}", name.get_ref());
                        self.layer.set(&path, Value::Text(text), origin);
                    }
                }
                return;
            }
            (_, other) => {
                self.problem(value.span(), &wrong_type(other), Some(key.doc.to_owned()));
                return;
            }
        };
        match read {
            Ok(read) => {
                let origin = self.origin(value.span().start);
                self.layer.set(path, read, origin);
            }
            Err(why) => {
                self.problem(
                    value.span(),
                    &format!("`{}` {why}", key.path),
                    Some(key.doc.to_owned()),
                );
            }
        }
    }

    /// A text within a list or table.
    fn item(&mut self, key: &Key, check: schema::Check, item: &Spanned<DeValue>) -> Option<String> {
        let DeValue::String(text) = item.get_ref() else {
            let found = type_name(item.get_ref());
            self.problem(
                item.span(),
                &format!("`{}` must hold texts, but this is {found}", key.path),
                None,
            );
            return None;
        };
        if let Err(why) = check(text) {
            self.problem(
                item.span(),
                &format!("`{text}` in `{}` {why}", key.path),
                None,
            );
            return None;
        }
        Some(text.to_string())
    }

    fn channels(&mut self, value: &Spanned<DeValue>) {
        let DeValue::Array(channels) = value.get_ref() else {
            self.problem(value.span(), "channels are written as `[[channel]]`", None);
            return;
        };
        for channel in channels {
            let DeValue::Table(table) = channel.get_ref() else {
                self.problem(
                    channel.span(),
                    "channels are written as `[[channel]]`",
                    None,
                );
                continue;
            };
            let mut table = table.clone();
            let Some((_, name)) = table.remove_entry(CHANNEL_NAME) else {
                self.problem(
                    channel.span(),
                    "a channel needs a name",
                    Some("add `name = \"…\"`".to_owned()),
                );
                continue;
            };
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            match name.get_ref() {
                DeValue::String(text) if !text.is_empty() && text.chars().all(fine) => {
                    if self.layer.channels.iter().any(|known| known == text) {
                        self.problem(
                            name.span(),
                            &format!("there is a channel `{text}` already"),
                            None,
                        );
                        continue;
                    }
                    self.layer.channels.push(text.to_string());
                    self.table(&table, "", &format!("{CHANNEL}.{text}."), CHANNEL_KEYS);
                }
                _ => self.problem(
                    name.span(),
                    "a channel's name must be lower-case letters, digits and `-`",
                    None,
                ),
            }
        }
    }
}

/// What the environment sets. A misspelt `XTASK_…` would be silently without effect, so it is
/// a problem, as an unknown key is; one that is like none of ours belongs to another xtask.
fn read_environment(env: &Env) -> Result<Layer, Vec<Problem>> {
    let (mut layer, mut problems) = (Layer::default(), Vec::new());
    for key in KEYS {
        let Some(text) = env.get(key.env) else {
            continue;
        };
        let origin = || Origin::Env(key.env.to_owned());
        match key.kind.read(text) {
            Ok(Value::Map(entries)) => {
                for (name, value) in entries {
                    layer.set(
                        &format!("{}.{name}", key.path),
                        Value::Text(value),
                        origin(),
                    );
                }
            }
            Ok(value) => layer.set(key.path, value, origin()),
            Err(why) => problems.push(Problem::general(format!(
                "environment variable `{}`: `{}` {why}",
                key.env, key.path
            ))),
        }
    }
    let bare = |name: &'static str| name.strip_prefix(ENV_PREFIX).unwrap_or(name);
    for name in env
        .names()
        .filter(|name| KEYS.iter().all(|key| key.env != *name))
    {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        // The tests' own switches are not settings.
        if rest.starts_with("E2E_") {
            continue;
        }
        if let Some(near) = nearest(rest, KEYS.iter().map(|key| bare(key.env))) {
            problems.push(Problem::general(format!(
                "environment variable `{name}` is no setting\n  = help: did you mean `{ENV_PREFIX}{near}`?"
            )));
        }
    }
    if problems.is_empty() {
        Ok(layer)
    } else {
        Err(problems)
    }
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A value as TOML, for people; a secret-looking entry is not shown.
pub fn show(path: &str, value: &Value) -> String {
    let quote = |text: &str| format!("{text:?}");
    match value {
        Value::Bool(yes) => yes.to_string(),
        Value::Count(count) => count.to_string(),
        Value::Size(None) => "\"\"".to_owned(),
        Value::Size(Some(bytes)) => quote(&bytes.to_string()),
        Value::Duration(duration) => quote(&humantime::format_duration(*duration).to_string()),
        Value::Text(_) if secret::is_secret_name(path) => format!("\"{}\"", secret::MASK),
        Value::Text(text) => quote(text),
        Value::List(items) => {
            format!(
                "[{}]",
                items
                    .iter()
                    .map(|item| quote(item))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        Value::Map(_) => String::new(),
    }
}

/// A value as JSON.
pub fn to_json(path: &str, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(yes) => (*yes).into(),
        Value::Count(count) => (*count).into(),
        Value::Size(bytes) => (*bytes).into(),
        Value::Duration(duration) => duration.as_secs_f64().into(),
        Value::Text(_) if secret::is_secret_name(path) => secret::MASK.into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.as_slice().into(),
        Value::Map(entries) => entries
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().into()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
