//! The container's environment as an engine takes it.

use crate::{
    base::secret,
    engine::EngineFacts,
    facts::environment::{RunnerEnv, Source},
    plan::EnvValue,
};

/// The container's environment, by the way in which each value reaches the engine.
#[derive(Debug, Default)]
pub struct ContainerEnv {
    /// On the engine's command line, with their values.
    pub shown: Vec<(String, String)>,
    /// By name; see [`crate::engine::run::Run::env_by_name`].
    pub by_name: Vec<(String, Option<EnvValue>)>,
}

impl ContainerEnv {
    /// Adds a value. A secret does not go on the command line.
    pub fn add(&mut self, name: &str, value: String) {
        if secret::is_secret_name(name) || secret::looks_like_secret(&value) {
            let value = Some(EnvValue::Secret(value));
            self.by_name.push((name.to_owned(), value));
        } else {
            self.shown.push((name.to_owned(), value));
        }
    }
}

/// The environment of the runner's container. If the host has a name on the container's network,
/// that name replaces `localhost` in addresses.
pub fn container_env(runner: &RunnerEnv, engine: &EngineFacts) -> ContainerEnv {
    let run = &runner.settings.run;
    let has_host_name = engine.has_host_name_on(&run.network);
    let rewrite = |name: &str, value: &str| -> Option<String> {
        let is_address = run.addresses.iter().any(|address| address == name);
        (has_host_name && is_address)
            .then(|| rewrite_localhost(value, engine.host_name()))
            .flatten()
    };
    let source = |name: &str| runner.get(name).map(|(_, source)| source);
    let mut out = ContainerEnv::default();
    // An option overrides the environment file. The key of the scripted model is no secret.
    for (name, value) in runner.scripted {
        let value = rewrite(name, value).unwrap_or_else(|| value.clone());
        out.shown.push(((*name).to_owned(), value));
    }
    for (name, value) in &run.env {
        match source(name) {
            Some(Source::Fixed | Source::Flag) => {
                out.add(name, rewrite(name, value).unwrap_or_else(|| value.clone()));
            }
            Some(Source::Scripted | Source::Passed | Source::EnvFile) | None => {}
        }
    }
    // Docker takes the name of a variable that is not set as an order to unset the image's value, so
    // only names that are set are passed.
    for name in &run.pass_env {
        if source(name) != Some(Source::Passed) {
            continue;
        }
        let rewritten = runner
            .value(name)
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
    // The engine reads the file itself. A variable is also passed by name if the container needs a
    // different value from the engine's: a rewritten address, or the value of an earlier line.
    for (file, line) in runner
        .file
        .iter()
        .flat_map(|file| file.lines.iter().map(move |line| (file, line)))
    {
        let name = &line.name;
        let Some((value, Source::EnvFile)) = runner.get(name) else {
            continue;
        };
        let rewritten = rewrite(name, value);
        let differs = rewritten.is_some() || file.engine_value(name, runner.env) != Some(value);
        if differs && !out.by_name.iter().any(|(known, _)| known == name) {
            let value = rewritten.unwrap_or_else(|| value.to_owned());
            out.by_name
                .push((name.clone(), Some(EnvValue::Secret(value))));
        }
    }
    out
}

/// `localhost:7233` → `host.docker.internal:7233`; none for an address of another machine.
pub fn rewrite_localhost(address: &str, host: &str) -> Option<String> {
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
mod tests {
    use super::*;

    #[test]
    fn localhost_is_rewritten_and_nothing_else() {
        let to = |address| rewrite_localhost(address, "host.docker.internal");
        assert_eq!(to("localhost:7233").unwrap(), "host.docker.internal:7233");
        assert_eq!(
            to("http://127.0.0.1:7234/v1").unwrap(),
            "http://host.docker.internal:7234/v1"
        );
        assert_eq!(
            to("http://me:pw@[::1]:1").unwrap(),
            "http://me:pw@host.docker.internal:1"
        );
        assert_eq!(to("localhost").unwrap(), "host.docker.internal");
        assert_eq!(to("localhost.example.com:1"), None);
        assert_eq!(to("temporal:7233"), None);
    }
}
