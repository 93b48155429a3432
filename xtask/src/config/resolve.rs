//! Merges the configuration of a checkout from the defaults, the project's file, the personal file, the
//! environment and flags. Later sources override earlier ones.

use crate::{
    base::{env::Env, error::Failure},
    config::{
        files::{FILE, Files, LOCAL_FILE},
        layer::{Layer, Origin, Override},
        problem::{Problem, Source},
        read::{read_document, read_environment},
        schema::{KEYS, Value, ValueType},
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
            Ok(layer) => merged.overlay(layer),
            Err(found) => problems.extend(found),
        }
    }
    for value in merged.values.values_mut() {
        if matches!(&value.origin, Origin::File { name, .. } if name == DEFAULTS_FILE) {
            value.origin = Origin::Default;
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

fn report(problems: &[Problem]) -> Failure {
    let count = match problems.len() {
        1 => "the configuration has a problem".to_owned(),
        many => format!("the configuration has {many} problems"),
    };
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Failure::usage(format!("{count}\n\n{}", all.join("\n\n")))
}

/// Sets the keys of flags.
///
/// # Errors
/// When the text of a flag is not valid for its key.
pub fn apply_overrides(layer: &mut Layer, overrides: &[Override]) -> Result<(), Failure> {
    for Override {
        key,
        flag,
        text,
        append,
    } in overrides
    {
        let Some(known) = KEYS.iter().find(|known| known.path == *key) else {
            return Err(Failure::new(format!(
                "internal error: `{flag}` sets the key `{key}`, which does not exist"
            )));
        };
        let invalid = |why| Failure::usage(format!("`{flag} {text}`: `{key}` {why}"));
        if let (true, ValueType::List(validate)) = (*append, known.value_type) {
            validate(text).map_err(invalid)?;
            let mut items = match layer.get(key).map(|sourced| &sourced.value) {
                Some(Value::List(items)) => items.clone(),
                _ => Vec::new(),
            };
            if !items.contains(text) {
                items.push(text.clone());
            }
            layer.set(key, Value::List(items), Origin::Flag(flag));
            continue;
        }
        match known.value_type.read(text).map_err(invalid)? {
            Value::Map(entries) => {
                for (name, value) in entries {
                    let path = format!("{key}.{name}");
                    layer.set(&path, Value::Text(value), Origin::Flag(flag));
                }
            }
            value => layer.set(key, value, Origin::Flag(flag)),
        }
    }
    Ok(())
}
