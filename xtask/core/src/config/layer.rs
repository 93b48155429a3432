//! Configuration values and their origins.

use std::{collections::BTreeMap, fmt};

use crate::config::schema::{FLAVOUR, KEYS, Merge, Value};

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        name: String,
        line: usize,
    },
    Env(String),
    Flag(&'static str),
    /// The origin of each item of a list to which several sources added.
    Items(Vec<Self>),
}

impl Origin {
    /// The origin of an item of a list.
    pub fn of_item(&self, number: usize) -> &Self {
        match self {
            Self::Items(origins) => origins.get(number).unwrap_or(self),
            Self::Default | Self::File { .. } | Self::Env(_) | Self::Flag(_) => self,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Items(origins) => {
                let mut names: Vec<_> = origins.iter().map(ToString::to_string).collect();
                names.dedup();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub origin: Origin,
}

impl Sourced<Value> {
    /// The items of a list, each with its origin.
    pub fn items(&self) -> impl Iterator<Item = (&str, &Origin)> {
        let items = match &self.value {
            Value::List(items) => items.as_slice(),
            Value::Bool(_)
            | Value::Count(_)
            | Value::Size(_)
            | Value::Duration(_)
            | Value::Text(_)
            | Value::Map(_) => &[],
        };
        let items = items.iter().enumerate();
        items.map(|(number, item)| (item.as_str(), self.origin.of_item(number)))
    }
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

    /// Sets a value from a stronger source. If the key's lists add, its items join the weaker list.
    pub fn add(&mut self, path: &str, upper: Sourced<Value>) {
        let key = KEYS.iter().find(|key| key.path == path);
        let merged = match (
            key.map(|key| key.merge),
            self.values.get(path),
            &upper.value,
        ) {
            (Some(Merge::Add(identity)), Some(lower), Value::List(_)) => {
                let same = |a: &str, b: &str| identity(a) == identity(b);
                let stays = |item: &str| !upper.items().any(|(added, _)| same(item, added));
                let all = lower.items().filter(|(item, _)| stays(item));
                let all = all.chain(upper.items());
                let (items, origins): (Vec<_>, Vec<_>) = all
                    .map(|(item, origin)| (item.to_owned(), origin.clone()))
                    .unzip();
                let origin = match origins.first() {
                    None => upper.origin.clone(),
                    Some(first) if origins.iter().all(|origin| origin == first) => first.clone(),
                    Some(_) => Origin::Items(origins),
                };
                Some(Sourced {
                    value: Value::List(items),
                    origin,
                })
            }
            (Some(Merge::Replace | Merge::Add(_)) | None, _, _) => None,
        };
        self.values.insert(path.to_owned(), merged.unwrap_or(upper));
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

    /// The names of the flavours, in alphabetical order.
    pub fn flavours(&self) -> Vec<&str> {
        let names = self
            .entries(FLAVOUR)
            .map(|(path, _)| path.split('.').next());
        let mut names: Vec<_> = names.flatten().collect();
        names.dedup();
        names
    }

    /// Adds a layer that overrides this one. Its new channels come first.
    pub fn overlay(&mut self, upper: Self) {
        for (path, value) in upper.values {
            self.add(&path, value);
        }
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
    /// The value; of a list one item, and of a table one entry as `NAME=value`.
    pub text: String,
}
