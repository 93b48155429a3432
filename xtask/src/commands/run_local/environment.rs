//! The container's environment: fixed values, what is handed on, and the environment file.

use std::path::PathBuf;

use super::RunFacts;
use crate::{
    config::Origin,
    env::Env,
    error::Failure,
    plan::EnvValue,
    secret,
    settings::{Network, Settings},
};

/// An environment file as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    pub path: String,
    pub values: Vec<(String, String)>,
}

/// Where the environment file is, or would be.
pub fn env_file_path(settings: &Settings, env: &Env) -> Option<PathBuf> {
    let file = settings.run.env_file.as_ref()?;
    let base = match file.origin {
        // What is typed is typed where one stands.
        Origin::Flag(_) => &env.cwd,
        Origin::Default | Origin::File { .. } | Origin::Env(_) => &settings.root,
    };
    let path = env.expand(&file.value, base);
    Some(path.unwrap_or_else(|| PathBuf::from(&file.value)))
}

/// The environment file, if it is there; one that was asked for by name must be.
pub fn env_file(settings: &Settings, env: &Env) -> Result<Option<EnvFile>, Failure> {
    let (Some(file), Some(path)) = (&settings.run.env_file, env_file_path(settings, env)) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_env_file(&path.to_string_lossy(), &text).map(Some),
        Err(error) => match file.origin {
            Origin::Default | Origin::File { .. }
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Origin::Default | Origin::File { .. } | Origin::Env(_) | Origin::Flag(_) => {
                Err(Failure::usage(format!(
                    "cannot read the environment file `{}` (from {}): {error}",
                    path.display(),
                    file.origin
                )))
            }
        },
    }
}

/// Reads a file as both engines do: no quotes, no expansion. What they understand differently
/// is refused: of `export A=1` Docker complains and Podman makes a variable `export A`.
pub fn parse_env_file(path: &str, text: &str) -> Result<EnvFile, Failure> {
    // The line itself may hold a secret, so only its number is told.
    let wrong = |number, why| Err(Failure::usage(format!("`{path}:{number}`: {why}")));
    let mut values = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.starts_with('\u{feff}') {
            return wrong(
                number,
                "begins with a byte order mark, which Docker takes away and Podman does not: save the file as UTF-8 without one",
            );
        }
        if line.contains('\0') {
            return wrong(
                number,
                "has a NUL in it, which no variable can have: save the file as UTF-8",
            );
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(fine) {
            return wrong(
                number,
                "a line must be `NAME=value`, without `export`, spaces or quotes around the name",
            );
        }
        values.push((name.to_owned(), value.to_owned()));
    }
    Ok(EnvFile {
        path: path.to_owned(),
        values,
    })
}

/// The container's environment, by the way each value takes.
#[derive(Debug, Default)]
pub struct ContainerEnv {
    /// On the command line, with their values.
    pub shown: Vec<(String, String)>,
    /// By name; see [`crate::engine::run::Run::env_by_name`].
    pub by_name: Vec<(String, Option<EnvValue>)>,
}

impl ContainerEnv {
    /// Adds a fixed value, on the way that it may take.
    pub fn fix(&mut self, name: &str, value: String) {
        if secret::is_secret_name(name) || secret::looks_like_secret(&value) {
            let value = Some(EnvValue::Secret(value));
            self.by_name.push((name.to_owned(), value));
        } else {
            self.shown.push((name.to_owned(), value));
        }
    }
}

/// Fixed values, then what is handed on from ours. Secrets go by name, and an address on this
/// machine is rewritten where `localhost` would be the container itself.
pub fn container_env(settings: &Settings, env: &Env, facts: &RunFacts) -> ContainerEnv {
    let engine = &facts.world.engine;
    let bridge = engine.network(&settings.run.network) != Network::Host;
    let rewrite = |name: &str, value: &str| -> Option<String> {
        let is_address = settings.run.addresses.iter().any(|address| address == name);
        (bridge && is_address)
            .then(|| rewrite_localhost(value, engine.host_name()))
            .flatten()
    };
    let mut out = ContainerEnv::default();
    let passed =
        |name: &str| settings.run.pass_env.iter().any(|pass| pass == name) && env.has(name);
    let in_file = |name: &str| {
        facts
            .env_file
            .iter()
            .flat_map(|file| &file.values)
            .any(|(known, _)| known == name)
    };
    for (name, value) in &settings.run.env {
        // A person's own value wins over the project's, be it exported or in their file.
        if passed(name) || in_file(name) {
            continue;
        }
        out.fix(name, rewrite(name, value).unwrap_or_else(|| value.clone()));
    }
    for name in settings.run.pass_env.iter().filter(|name| env.has(name)) {
        // Docker takes a name that is not set as an order to unset the image's value, so only
        // names that are set are handed on.
        let rewritten = env
            .get(name)
            .and_then(|value| rewrite(name, value))
            .map(|value| {
                if secret::looks_like_secret(&value) {
                    EnvValue::Secret(value)
                } else {
                    EnvValue::Plain(value)
                }
            });
        out.by_name.push((name.clone(), rewritten));
    }
    for (name, value) in facts.env_file.iter().flat_map(|file| &file.values) {
        if let Some(value) = rewrite(name, value).filter(|_| !passed(name)) {
            out.by_name
                .push((name.clone(), Some(EnvValue::Secret(value))));
        }
    }
    out
}

/// The addresses on this machine that the container will look at: the variable, and the value
/// that wins.
pub fn addresses<'a>(
    settings: &'a Settings,
    env: &'a Env,
    file: Option<&'a EnvFile>,
) -> Vec<(&'a str, &'a str)> {
    let run = &settings.run;
    let value_of = |name: &'a String| {
        let passed = run.pass_env.contains(name).then(|| env.get(name)).flatten();
        let mut in_file = file.into_iter().flat_map(|file| &file.values);
        let in_file = in_file.rfind(|(known, _)| known == name);
        let value = passed
            .or(in_file.map(|(_, value)| value.as_str()))
            .or(run.env.get(name).map(String::as_str))?;
        Some((name.as_str(), value))
    };
    run.addresses.iter().filter_map(value_of).collect()
}

/// `localhost:7233` → `host.docker.internal:7233`; none where the host is another.
fn rewrite_localhost(address: &str, host: &str) -> Option<String> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"]
        .iter()
        .find_map(|local| {
            let tail = rest.strip_prefix(local)?;
            let whole = tail.is_empty() || tail.starts_with([':', '/']);
            whole.then(|| format!("{scheme}{user}{host}{tail}"))
        })
}

#[cfg(test)]
mod tests;
