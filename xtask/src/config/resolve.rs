//! The configuration of a workspace: defaults, project file, personal file, environment and flags, each
//! over the one before.

use crate::{
    base::{env::Env, error::Failure},
    config::{
        files::{FILE, Files, LOCAL_FILE},
        layer::{Layer, Origin, Override},
        problem::{Problem, Source},
        read::{read_document, read_environment},
        schema::{KEYS, Kind, Value},
    },
};

/// The file of the built-in defaults.
const DEFAULTS_FILE: &str = "default.toml";
pub(super) const DEFAULTS: &str = include_str!("default.toml");

/// Reads everything but the flags.
///
/// # Errors
/// All problems of all sources.
pub fn resolve(files: &Files, env: &Env) -> Result<Layer, Failure> {
    let mut problems = Vec::new();
    let mut all = Layer::default();
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
            Ok(layer) => all.overlay(layer),
            Err(found) => problems.extend(found),
        }
    }
    for value in all.values.values_mut() {
        if matches!(&value.origin, Origin::File { name, .. } if name == DEFAULTS_FILE) {
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

/// Puts the values of flags over a layer.
///
/// # Errors
/// When the text of a flag is not a value of its key.
pub fn apply_overrides(layer: &mut Layer, overrides: &[Override]) -> Result<(), Failure> {
    for Override {
        key,
        flag,
        text,
        adds,
    } in overrides
    {
        let Some(known) = KEYS.iter().find(|known| known.path == *key) else {
            return Err(Failure::new(format!(
                "internal error: `{flag}` sets the key `{key}`, which does not exist"
            )));
        };
        let wrong = |why| Failure::usage(format!("`{flag} {text}`: `{key}` {why}"));
        if let (true, Kind::List(check)) = (*adds, known.kind) {
            check(text).map_err(wrong)?;
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
        match known.kind.read(text).map_err(wrong)? {
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
