//! Reads a document, in two passes, and the environment: values with their origins, or all problems at
//! once.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    base::env::Env,
    config::{
        layer::{Layer, Origin},
        problem::{Problem, Source},
        schema::{
            self, CHANNEL, CHANNEL_KEYS, CHANNEL_NAME, KEYS, Key, Kind, SCHEMA, SCHEMA_KEY, Value,
            nearest,
        },
    },
};

/// How our environment variables begin.
const ENV_PREFIX: &str = "XTASK_";

const TOML_HELP: &str = "the TOML format: https://toml.io/en/v1.0.0";
const NO_CHANNEL: &str = "channels are written as `[[channel]]`";
const CHANNELS_HELP: &str = "write `[[channel]]` for each, and its `name` and other keys below";
const ALL_KEYS: &str = "all keys are in docs/configuration.md";

/// Reads one document: its schema first, then all of it.
pub fn read_document(source: Source) -> Result<Layer, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(source.text);
    if !errors.is_empty() {
        // What the parser makes of a broken file is a guess, but what it makes of the lines before the
        // first table is not, and the schema is one of them.
        let head = source
            .text
            .split_once("\n[")
            .map_or(source.text, |(head, _)| head);
        let (head, _) = DeTable::parse_recoverable(head);
        if let Err(SchemaProblem {
            newer: true,
            problem,
        }) = check_schema(source, head.get_ref())
        {
            return Err(vec![problem]);
        }
        let at = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        return Err(errors
            .iter()
            .map(|error| Problem::at(source, at(error), error.message(), TOML_HELP))
            .collect());
    }
    let mut document = document.into_inner();
    check_schema(source, &document).map_err(|found| vec![found.problem])?;
    document.remove(SCHEMA_KEY);

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

/// A schema that this xtask cannot read.
struct SchemaProblem {
    /// Whether the file is written for a newer xtask. Then nothing else in it is reported.
    newer: bool,
    problem: Problem,
}

/// The first pass: nothing but the schema's number, so that an old xtask says "update your checkout",
/// not "unknown key" or "this is not TOML".
fn check_schema(source: Source, document: &DeTable) -> Result<(), SchemaProblem> {
    let problem = |newer, span, message: &str, help: &str| {
        Err(SchemaProblem {
            newer,
            problem: Problem::at(source, span, message, help),
        })
    };
    let Some(value) = document.get(SCHEMA_KEY) else {
        return problem(
            false,
            0..0,
            &format!(
                "`{}` does not say which schema it is written in",
                source.name
            ),
            &format!("add this line at its top: `{SCHEMA_KEY} = {SCHEMA}`"),
        );
    };
    let number = value
        .get_ref()
        .as_integer()
        .and_then(|i| i.as_str().parse::<u64>().ok());
    match number {
        Some(schema) if schema > SCHEMA => problem(
            true,
            value.span(),
            &format!("the file is written in schema {schema}, this xtask reads up to {SCHEMA}"),
            "update your checkout: `git pull`",
        ),
        Some(schema) if schema > 0 => Ok(()),
        _ => problem(
            false,
            value.span(),
            &format!("`{SCHEMA_KEY}` must be a whole number from 1 to {SCHEMA}"),
            &format!("write `{SCHEMA_KEY} = {SCHEMA}`"),
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
    fn problem(&mut self, span: std::ops::Range<usize>, message: &str, help: &str) {
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
                    _ => self.problem(
                        value.span(),
                        &format!("`{path}` must be a table"),
                        &format!("write `[{path}]`, and its keys below"),
                    ),
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
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(path)) => format!("there is a key `{path}`"),
            (None, None) => ALL_KEYS.to_owned(),
        };
        self.problem(name.span(), &format!("unknown key `{path}`"), &help);
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
                    if let Err(why) = schema::entry_name(name.get_ref()) {
                        let message = format!("a name in `{}` {why}", key.path);
                        self.problem(name.span(), &message, key.doc);
                    } else if let Some(text) = self.item(key, check, item) {
                        let origin = self.origin(name.span().start);
                        let path = format!("{path}.{}", name.get_ref());
                        self.layer.set(&path, Value::Text(text), origin);
                    }
                }
                return;
            }
            (_, other) => {
                self.problem(value.span(), &wrong_type(other), key.doc);
                return;
            }
        };
        match read {
            Ok(read) => {
                let origin = self.origin(value.span().start);
                self.layer.set(path, read, origin);
            }
            Err(why) => {
                self.problem(value.span(), &format!("`{}` {why}", key.path), key.doc);
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
                key.doc,
            );
            return None;
        };
        if let Err(why) = check(text) {
            self.problem(
                item.span(),
                &format!("`{text}` in `{}` {why}", key.path),
                key.doc,
            );
            return None;
        }
        Some(text.to_string())
    }

    fn channels(&mut self, value: &Spanned<DeValue>) {
        let DeValue::Array(channels) = value.get_ref() else {
            self.problem(value.span(), NO_CHANNEL, CHANNELS_HELP);
            return;
        };
        for channel in channels {
            let DeValue::Table(table) = channel.get_ref() else {
                self.problem(channel.span(), NO_CHANNEL, CHANNELS_HELP);
                continue;
            };
            let mut table = table.clone();
            let Some((_, name)) = table.remove_entry(CHANNEL_NAME) else {
                self.problem(
                    channel.span(),
                    "a channel needs a name",
                    "add `name = \"…\"`",
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
                            "put the keys of both under one of them, or give this one another name",
                        );
                        continue;
                    }
                    self.layer.channels.push(text.to_string());
                    self.table(&table, "", &format!("{CHANNEL}.{text}."), CHANNEL_KEYS);
                }
                _ => self.problem(
                    name.span(),
                    "a channel's name must be lower-case letters, digits and `-`",
                    "such as `name = \"nightly\"`",
                ),
            }
        }
    }
}

/// Reads the settings of the environment. A variable `XTASK_…` that resembles one of ours is a problem,
/// as an unknown key is: a misspelled variable would have no effect. Other variables of that prefix
/// belong to another xtask.
pub fn read_environment(env: &Env) -> Result<Layer, Vec<Problem>> {
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
            Err(why) => problems.push(Problem::general(&format!(
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
        // Switches of the end-to-end tests.
        if rest.starts_with("E2E_") {
            continue;
        }
        if let Some(near) = nearest(rest, KEYS.iter().map(|key| bare(key.env))) {
            problems.push(Problem::general(&format!(
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
