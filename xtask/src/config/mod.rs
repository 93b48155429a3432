//! xtask.toml: read in two passes (the schema's version, then everything), checked as a
//! whole, and laid over the defaults. All problems are reported at once.

mod migrate;
mod problem;
mod read;
pub mod schema;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use crate::{env::Env, error::Failure, secret};
use problem::{Problem, Source};
use read::{read_document, read_environment};
use schema::Value;

/// The project's file, in the workspace's root.
pub const FILE: &str = "xtask.toml";
/// A person's own file beside it, not in git.
pub const LOCAL_FILE: &str = "xtask.local.toml";
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

/// A text as a TOML string. <https://toml.io/en/v1.0.0#string>
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A value as TOML, for people; a secret-looking entry is not shown.
pub fn show(path: &str, value: &Value) -> String {
    match value {
        Value::Bool(yes) => yes.to_string(),
        Value::Count(count) => count.to_string(),
        Value::Size(None) => "\"\"".to_owned(),
        Value::Size(Some(bytes)) => quote(&bytes.to_string()),
        Value::Duration(duration) => quote(&humantime::format_duration(*duration).to_string()),
        Value::Text(_) if secret::is_secret_name(path) => format!("\"{}\"", secret::MASK),
        Value::Text(text) => quote(&secret::redact(text)),
        Value::List(items) => {
            format!(
                "[{}]",
                items
                    .iter()
                    .map(|item| quote(&secret::redact(item)))
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
        Value::Text(text) => secret::redact(text).into(),
        Value::List(items) => items.iter().map(|item| secret::redact(item)).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(k, v)| (k.clone(), secret::redact(v).into()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
