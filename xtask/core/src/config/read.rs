//! Reads a configuration file or the environment. The result is the values with their origins, or all
//! problems.

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
            self, CHANNEL, CHANNEL_KEYS, CHANNEL_NAME_KEY, ENV_PREFIX, FLAVOUR, FLAVOUR_KEYS, KEYS,
            Key, SCHEMA_KEY, SCHEMA_VERSION, Value, ValueType, closest_match,
        },
    },
};

const TOML_HELP: &str = "see the TOML specification: https://toml.io/en/v1.0.0";
const NO_CHANNEL: &str = "a channel must be an item of the array `[[channel]]`";
const CHANNELS_HELP: &str = "write `[[channel]]`, and the channel's `name` and other keys below it";
const NO_FLAVOUR: &str = "a flavour must be a table `[flavour.NAME]`";
const FLAVOURS_HELP: &str = "write `[flavour.tools]`, and the flavour's keys below it";
const ALL_KEYS: &str = "see docs/configuration.md for all keys";

/// Reads a configuration file. It checks the schema version first.
pub fn read_document(source: Source) -> Result<Layer, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(source.text);
    if !errors.is_empty() {
        // The schema version is reported first even if the TOML is invalid. It is in the lines before the
        // first table, which the parser reads correctly if an error is after them.
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
        reader.read_channels(&channels);
    }
    if let Some((_, flavours)) = document.remove_entry(FLAVOUR) {
        reader.read_flavours(&flavours);
    }
    reader.read_table(&document, "", "", KEYS);
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

/// A problem with the schema version.
struct SchemaProblem {
    /// Whether the file has a newer schema than this xtask supports. Nothing else is then reported.
    newer: bool,
    problem: Problem,
}

/// The first pass checks only the schema version. An old xtask then says "update your checkout" instead of
/// "unknown key" or "invalid TOML".
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
            &format!("`{}` does not have the key `{SCHEMA_KEY}`", source.name),
            &format!("add this line at the top of the file: `{SCHEMA_KEY} = {SCHEMA_VERSION}`"),
        );
    };
    let number = value
        .get_ref()
        .as_integer()
        .and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok());
    match number {
        Some(schema) if schema > SCHEMA_VERSION => problem(
            true,
            value.span(),
            &format!(
                "the file has schema {schema}, but this xtask supports only schemas up to {SCHEMA_VERSION}"
            ),
            "update your checkout: `git pull`",
        ),
        Some(schema) if schema > 0 => Ok(()),
        _ => problem(
            false,
            value.span(),
            &format!("`{SCHEMA_KEY}` must be a whole number from 1 to {SCHEMA_VERSION}"),
            &format!("write `{SCHEMA_KEY} = {SCHEMA_VERSION}`"),
        ),
    }
}

/// The second pass over a file.
struct Reader<'a> {
    source: Source<'a>,
    layer: Layer,
    /// The problems with their byte offsets, by which they are sorted.
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
            line: self.source.position(at).0,
        }
    }

    /// Reads a table. The path of each of its keys in `keys` begins with `prefix`, and the path in the layer
    /// with `store`.
    fn read_table(&mut self, table: &DeTable, prefix: &str, store: &str, keys: &[Key]) {
        for (name, value) in table {
            let path = format!("{prefix}{}", name.get_ref());
            let inner_prefix = format!("{path}.");
            if let Some(key) = keys.iter().find(|key| key.path == path) {
                self.read_value(key, &format!("{store}{path}"), value);
            } else if keys.iter().any(|key| key.path.starts_with(&inner_prefix)) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.read_table(inner, &inner_prefix, store, keys),
                    _ => self.problem(
                        value.span(),
                        &format!("`{path}` must be a table"),
                        &format!("write `[{path}]`, and its keys below it"),
                    ),
                }
            } else {
                self.report_unknown_key(name, &path, prefix, keys);
            }
        }
    }

    fn report_unknown_key(
        &mut self,
        name: &Spanned<std::borrow::Cow<str>>,
        path: &str,
        prefix: &str,
        keys: &[Key],
    ) {
        // A similar key of the same table is suggested first, then the same key of another table: keys in the
        // wrong table are a common mistake.
        let siblings: BTreeSet<&str> = keys
            .iter()
            .filter_map(|key| key.path.strip_prefix(prefix))
            .map(|rest| rest.split('.').next().unwrap_or(rest))
            .chain(prefix.is_empty().then_some(CHANNEL))
            .chain(prefix.is_empty().then_some(FLAVOUR))
            .collect();
        let sibling = closest_match(name.get_ref(), siblings.iter().copied());
        let elsewhere = keys
            .iter()
            .find(|key| key.path.rsplit('.').next() == Some(name.get_ref().as_ref()))
            .map(|key| key.path);
        let help = match (sibling, elsewhere) {
            (Some(sibling), _) => format!("did you mean `{sibling}`?"),
            (None, Some(path)) => format!("did you mean `{path}`?"),
            (None, None) => ALL_KEYS.to_owned(),
        };
        self.problem(name.span(), &format!("unknown key `{path}`"), &help);
    }

    fn read_value(&mut self, key: &Key, path: &str, value: &Spanned<DeValue>) {
        let wrong_type = |found: &DeValue| {
            format!(
                "`{}` must be {}, but is {}",
                key.path,
                key.value_type.describe(),
                type_name(found)
            )
        };
        let read = match (key.value_type, value.get_ref()) {
            (ValueType::Bool, DeValue::Boolean(yes)) => Ok(Value::Bool(*yes)),
            (ValueType::Count(..), DeValue::Integer(number)) => {
                // The parser has removed the prefix, such as `0x`, and underscores.
                let decimal = u64::from_str_radix(number.as_str(), number.radix());
                let text = decimal.map_or_else(|_| number.to_string(), |number| number.to_string());
                key.value_type.read(&text)
            }
            (
                ValueType::Size
                | ValueType::Duration
                | ValueType::Seconds
                | ValueType::Choice(_)
                | ValueType::Text(_),
                DeValue::String(text),
            ) => key.value_type.read(text),
            (ValueType::List(validate), DeValue::Array(items)) => {
                let texts = items
                    .iter()
                    .filter_map(|item| self.read_item(key, validate, item))
                    .collect::<Vec<_>>();
                Ok(Value::List(texts))
            }
            (ValueType::Map(validate), DeValue::Table(entries)) => {
                for (name, item) in entries {
                    if let Err(why) = schema::check_entry_name(name.get_ref()) {
                        let message = format!("a name in `{}` {why}", key.path);
                        self.problem(name.span(), &message, key.doc);
                    } else if let Some(text) = self.read_item(key, validate, item) {
                        let origin = self.origin(name.span().start);
                        let path = format!("{path}.{}", name.get_ref());
                        self.layer.set(&path, Value::Text(text), origin);
                    }
                }
                return;
            }
            // These keys were words before.
            (ValueType::Bool, other @ DeValue::String(_)) => {
                let help = format!("write `{0} = true` or `{0} = false`", key.path);
                self.problem(value.span(), &wrong_type(other), &help);
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

    /// Reads a text of a list or table.
    fn read_item(
        &mut self,
        key: &Key,
        validate: schema::Validator,
        item: &Spanned<DeValue>,
    ) -> Option<String> {
        let DeValue::String(text) = item.get_ref() else {
            let found = type_name(item.get_ref());
            self.problem(
                item.span(),
                &format!(
                    "`{}` must contain only texts, but this is {found}",
                    key.path
                ),
                key.doc,
            );
            return None;
        };
        if let Err(why) = validate(text) {
            self.problem(
                item.span(),
                &format!("`{text}` in `{}` {why}", key.path),
                key.doc,
            );
            return None;
        }
        Some(text.to_string())
    }

    fn read_flavours(&mut self, value: &Spanned<DeValue>) {
        let DeValue::Table(flavours) = value.get_ref() else {
            self.problem(value.span(), NO_FLAVOUR, FLAVOURS_HELP);
            return;
        };
        for (name, flavour) in flavours {
            let text = name.get_ref();
            let DeValue::Table(table) = flavour.get_ref() else {
                self.problem(name.span(), NO_FLAVOUR, FLAVOURS_HELP);
                continue;
            };
            if !is_name(text) {
                self.problem(
                    name.span(),
                    "a flavour's name can contain only lower-case letters, digits and `-`",
                    "write a name such as `[flavour.tools]`",
                );
            } else if table.is_empty() {
                self.problem(
                    name.span(),
                    &format!("the flavour `{text}` has no keys"),
                    "add `target = \"…\"`, the stage of the Dockerfile",
                );
            } else {
                self.read_table(table, "", &format!("{FLAVOUR}.{text}."), FLAVOUR_KEYS);
            }
        }
    }

    fn read_channels(&mut self, value: &Spanned<DeValue>) {
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
            let Some((_, name)) = table.remove_entry(CHANNEL_NAME_KEY) else {
                self.problem(
                    channel.span(),
                    "the channel has no name",
                    "add `name = \"…\"`",
                );
                continue;
            };
            match name.get_ref() {
                DeValue::String(text) if is_name(text) => {
                    if self.layer.channels.iter().any(|known| known == text) {
                        self.problem(
                            name.span(),
                            &format!("the channel `{text}` is defined twice"),
                            "merge the two channels, or rename this one",
                        );
                        continue;
                    }
                    self.layer.channels.push(text.to_string());
                    self.read_table(&table, "", &format!("{CHANNEL}.{text}."), CHANNEL_KEYS);
                }
                _ => self.problem(
                    name.span(),
                    "a channel's name can contain only lower-case letters, digits and `-`",
                    "write a name such as `name = \"nightly\"`",
                ),
            }
        }
    }
}

/// Reads the keys that environment variables set. A variable `XTASK_…` with a name similar to a known one is
/// a problem: it is probably a spelling mistake, and would have no effect. Other variables with that prefix
/// are ignored, because they may belong to the xtask of another project.
pub fn read_environment(env: &Env) -> Result<Layer, Vec<Problem>> {
    let (mut layer, mut problems) = (Layer::default(), Vec::new());
    let variables: Vec<_> = KEYS.iter().map(Key::env).collect();
    for (key, variable) in KEYS.iter().zip(&variables) {
        let Some(text) = env.get(variable) else {
            continue;
        };
        let origin = || Origin::Env(variable.clone());
        match key.value_type.read(text) {
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
            Err(why) => problems.push(Problem::without_position(&format!(
                "environment variable `{variable}`: `{}` {why}",
                key.path
            ))),
        }
    }
    // The common prefix would make all names similar.
    let known: Vec<_> = variables
        .iter()
        .filter_map(|variable| variable.strip_prefix(ENV_PREFIX))
        .collect();
    for name in env.names() {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        // `XTASK_E2E_…` are options of the end-to-end tests.
        if known.contains(&rest) || rest.starts_with("E2E_") {
            continue;
        }
        if let Some(similar) = closest_match(rest, known.iter().copied()) {
            problems.push(Problem::without_position(&format!(
                "unknown environment variable `{name}`\n  = help: did you mean `{ENV_PREFIX}{similar}`?"
            )));
        }
    }
    if problems.is_empty() {
        Ok(layer)
    } else {
        Err(problems)
    }
}

/// Whether a text can name a channel or a flavour.
fn is_name(text: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(is_valid)
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
