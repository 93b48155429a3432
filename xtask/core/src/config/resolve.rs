//! Merges the configuration of a checkout from the defaults, the project's file, the personal file, the
//! environment and flags. Later sources override earlier ones.

use crate::{
    base::{env::Env, error::Failure},
    config::{
        files::{FILE, Files, LOCAL_FILE},
        layer::{Layer, Origin, Override, Sourced},
        problem::{Problem, Source},
        read::{read_document, read_environment},
        schema::{KEYS, Value, ValueType, check_entry_name},
    },
};

/// The file of the built-in defaults.
const DEFAULTS_FILE: &str = "default.toml";
pub(super) const DEFAULTS: &str = include_str!("default.toml");

/// Reads all sources except the flags.
///
/// # Errors
/// All problems of all sources, in one failure.
pub fn resolve(files: &Files, env: &Env) -> Result<Layer, Failure> {
    let mut problems = Vec::new();
    let mut merged = Layer::default();
    let sources = [
        Some(Source {
            name: DEFAULTS_FILE,
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
            Ok(mut layer) => {
                if source.name == DEFAULTS_FILE {
                    let values = layer.values.values_mut();
                    values.for_each(|value| value.origin = Origin::Default);
                }
                merged.overlay(layer);
            }
            Err(found) => problems.extend(found),
        }
    }
    match read_environment(env) {
        Ok(layer) => merged.overlay(layer),
        Err(found) => problems.extend(found),
    }
    if problems.is_empty() {
        Ok(merged)
    } else {
        Err(report(&problems))
    }
}

/// The text of a key in the project's file, or its default: without the personal file, the environment and flags. None
/// if the key has no text.
///
/// # Errors
/// The problems of the file.
pub fn shared_text(project: &str, path: &str) -> Result<Option<String>, Failure> {
    let mut merged = Layer::default();
    for (name, text) in [(DEFAULTS_FILE, DEFAULTS), (FILE, project)] {
        merged.overlay(read_document(Source { name, text }).map_err(|found| report(&found))?);
    }
    Ok(match merged.get(path).map(|found| &found.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    })
}

fn report(problems: &[Problem]) -> Failure {
    let count = match problems.len() {
        1 => "the configuration has a problem".to_owned(),
        many => format!("the configuration has {many} problems"),
    };
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Failure::usage(format!("{count}\n\n{}", all.join("\n\n")))
}

/// Sets the keys of flags. A flag gives a list one item and a table one entry. An entry without a value, such
/// as `--build-arg NAME`, has the value of your environment, and has no effect if the variable is not set.
///
/// # Errors
/// When the text of a flag is not valid for its key.
pub fn apply_overrides(
    layer: &mut Layer,
    overrides: &[Override],
    env: &Env,
) -> Result<(), Failure> {
    for Override { key, flag, text } in overrides {
        let Some(known) = KEYS.iter().find(|known| known.path == *key) else {
            return Err(Failure::new(format!(
                "internal error: `{flag}` sets the key `{key}`, which does not exist"
            )));
        };
        let invalid = |why| Failure::usage(format!("`{flag} {text}`: `{key}` {why}"));
        let origin = Origin::Flag(flag);
        match known.value_type {
            ValueType::List(validate) => {
                validate(text).map_err(invalid)?;
                let value = Value::List(vec![text.clone()]);
                layer.add(key, Sourced { value, origin });
            }
            ValueType::Map(validate) => {
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text.as_str(), variable(env, text)?),
                };
                // The value may be a secret.
                check_entry_name(name).map_err(|why| {
                    Failure::usage(format!("`{flag} {name}`: a name in `{key}` {why}"))
                })?;
                if let Some(value) = value {
                    validate(&value).map_err(invalid)?;
                    layer.set(&format!("{key}.{name}"), Value::Text(value), origin);
                }
            }
            value_type => {
                let value = value_type.read(text).map_err(invalid)?;
                layer.set(key, value, origin);
            }
        }
    }
    Ok(())
}

/// The value of a variable, which may be empty; none if it is not set.
fn variable(env: &Env, name: &str) -> Result<Option<String>, Failure> {
    match (env.get(name), env.has(name)) {
        (Some(value), _) => Ok(Some(value.to_owned())),
        (None, false) => Ok(None),
        (None, true) if env.is_empty(name) => Ok(Some(String::new())),
        (None, true) => Err(Failure::usage(format!(
            "the value of the variable `{name}` is not UTF-8"
        ))),
    }
}
