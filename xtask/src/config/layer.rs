//! Configuration values and their origins.

use std::{collections::BTreeMap, fmt};

use crate::config::schema::Value;

/// The origin of a value.
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

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub origin: Origin,
}

/// Values by path (`run.limits.pids`, `run.env.MODE`, `channel.dev.tags`), and the names of the channels in
/// the order in which a version is matched.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub(super) values: BTreeMap<String, Sourced<Value>>,
    pub(super) channels: Vec<String>,
}

impl Layer {
    pub fn set(&mut self, path: &str, value: Value, origin: Origin) {
        self.values
            .insert(path.to_owned(), Sourced { value, origin });
    }

    pub fn get(&self, path: &str) -> Option<&Sourced<Value>> {
        self.values.get(path)
    }

    /// The entries of a table, by name.
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

    /// Adds a layer that overrides this one. Its new channels come first.
    pub fn overlay(&mut self, upper: Self) {
        self.values.extend(upper.values);
        // A known channel keeps its position. Otherwise a file that changes a key of the last channel, which
        // matches everything, would move that channel to the front.
        let new = upper
            .channels
            .into_iter()
            .filter(|name| !self.channels.contains(name));
        self.channels = new.chain(self.channels.clone()).collect();
    }
}

/// A flag that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub key: &'static str,
    pub flag: &'static str,
    pub text: String,
    /// Whether the text is appended to the key's list. Otherwise it replaces the key's value.
    pub append: bool,
}
