//! What every format says about the runner's container. Pure.

use std::path::PathBuf;

use crate::{
    base::{env::Env, secret},
    commands::run_local::{
        environment::rewrite_localhost, mounts::Mount, warnings::PORTS_WITHOUT_EFFECT,
    },
    engine::EngineFacts,
    facts::{
        environment::{EnvFile, RunnerEnv, Source},
        host::Folder,
    },
    oci::digest,
    plan::quote_for_shell,
    settings::{Relabel, Settings},
};

/// The longest DNS label.
const LABEL_LENGTH: usize = 63;

/// What this machine has of what the settings name. No engine is needed to find it out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The image's reference.
    pub reference: String,
    pub mounts: Vec<Mount>,
    pub selinux_enforcing: bool,
    pub env_file: Option<EnvFile>,
}

/// The runner's container, with what the formats have in common.
#[derive(Clone, Debug)]
pub struct Runner<'a> {
    pub settings: &'a Settings,
    pub image: &'a str,
    pub variables: Variables,
    pub mounts: &'a [Mount],
    /// Whether SELinux needs a label on the folders of the host.
    pub relabel: bool,
    pub env_file: Option<&'a EnvFile>,
}

/// The variables of the container, by where their values come from. The environment file has the others. The
/// values of that file and of xtask's environment may be secrets, so no format contains them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// The format contains the value.
    pub shown: Vec<(String, String)>,
    /// The value comes from the environment of xtask.
    pub passed: Vec<String>,
    /// Variables of `run.pass-env` that have no value now.
    pub unset: Vec<String>,
    /// The value of `run.env` or `--env` looks like a secret.
    pub withheld: Vec<String>,
}

/// A message for the user: a warning, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub text: String,
    pub hint: Option<String>,
}

impl Warning {
    pub fn new(text: String, hint: String) -> Self {
        let hint = Some(hint);
        Self { text, hint }
    }
}

impl<'a> Runner<'a> {
    /// The runner on an engine. None stands for a cluster, which has no name for this machine.
    pub fn new(
        settings: &'a Settings,
        env: &Env,
        facts: &'a Facts,
        engine: Option<&EngineFacts>,
    ) -> Self {
        let environment = runner_env(settings, env, facts);
        Self {
            settings,
            image: &facts.reference,
            variables: variables(&environment, engine),
            mounts: &facts.mounts,
            relabel: match settings.run.hardening.selinux_relabel {
                Relabel::Always => true,
                Relabel::Never => false,
                Relabel::IfEnforcing => facts.selinux_enforcing,
            },
            env_file: facts.env_file.as_ref(),
        }
    }

    /// The mounts as the engines' option `--volume` has them.
    pub fn volumes(&self) -> impl Iterator<Item = String> {
        self.mounts.iter().map(|mount| mount.volume(self.relabel))
    }

    /// The name of what runs in the container, for formats that distinguish it from the container's own name: the
    /// last part of the image's repository.
    pub fn program(&self) -> String {
        let repository = self.settings.image.repository.as_str();
        dns_label(repository.rsplit('/').next().unwrap_or_default())
    }

    /// The ports as with `run-local`.
    pub fn published_ports(&self, engine: &EngineFacts) -> Vec<String> {
        let run = &self.settings.run;
        engine.published_ports(&run.network, &run.ports)
    }
}

/// The runner's environment on this machine.
pub fn runner_env<'a>(settings: &'a Settings, env: &'a Env, facts: &'a Facts) -> RunnerEnv<'a> {
    RunnerEnv {
        settings,
        env,
        file: facts.env_file.as_ref(),
        scripted: &[],
    }
}

fn variables(runner: &RunnerEnv, engine: Option<&EngineFacts>) -> Variables {
    let run = &runner.settings.run;
    let engine = engine.filter(|engine| engine.has_host_name_on(&run.network));
    let mut out = Variables::default();
    for (name, value) in &run.env {
        let is_fixed = matches!(
            runner.get(name),
            Some((_, Source::Fixed | Source::Flag | Source::Scripted))
        );
        if !is_fixed {
            continue;
        }
        let value = engine
            .filter(|_| run.addresses.contains(name))
            .and_then(|engine| rewrite_localhost(value, engine.host_name()))
            .unwrap_or_else(|| value.clone());
        if secret::is_secret_name(name) || secret::looks_like_secret(&value) {
            out.withheld.push(name.clone());
        } else {
            out.shown.push((name.clone(), value));
        }
    }
    for name in &run.pass_env {
        match runner.get(name) {
            Some((_, Source::Passed)) => out.passed.push(name.clone()),
            None => out.unset.push(name.clone()),
            Some((_, Source::EnvFile | Source::Fixed | Source::Flag | Source::Scripted)) => {}
        }
    }
    // A line of the environment file with only a name takes the value of the caller's environment.
    if let Some(file) = runner.file {
        let names = file.lines.iter().map(|line| &line.name);
        for name in names.filter(|name| !file.has_value(name)) {
            let is_used = matches!(runner.get(name), Some((_, Source::EnvFile)));
            if is_used && !out.passed.contains(name) {
                out.passed.push(name.clone());
            }
        }
    }
    out
}

/// The addresses that are this machine's loopback, each with the name of its variable and without its value,
/// which may have a password.
pub fn loopback_addresses<'a>(runner: &RunnerEnv<'a>) -> Vec<&'a str> {
    let addresses = runner.addresses().into_iter();
    addresses
        .filter(|(_, value)| rewrite_localhost(value, "").is_some())
        .map(|(name, _)| name)
        .collect()
}

/// Warns of addresses that the container takes from elsewhere, and that lead to the container itself.
pub fn own_addresses(runner: &RunnerEnv, engine: &EngineFacts) -> Vec<Warning> {
    let network = &runner.settings.run.network;
    if !engine.has_host_name_on(network) {
        return Vec::new();
    }
    let is_elsewhere = |name: &&str| {
        matches!(
            runner.get(name),
            Some((_, Source::EnvFile | Source::Passed))
        )
    };
    let names = loopback_addresses(runner).into_iter().filter(is_elsewhere);
    let host = engine.host_name();
    names
        .map(|name| {
            Warning::new(
                format!("{name} is an address of this machine: in the container's own network it leads to the container"),
                format!("export with the name that this machine has there: `-e {name}={host}:PORT`"),
            )
        })
        .collect()
}

/// Warns of ports that the format does not publish.
pub fn ports_left_out(runner: &Runner, engine: &EngineFacts) -> Option<Warning> {
    let run = &runner.settings.run;
    let have_effect = run.ports.is_empty() || engine.has_own_ports_on(&run.network);
    (!have_effect).then(|| {
        Warning::new(
            PORTS_WITHOUT_EFFECT.to_owned(),
            "export with another network: `XTASK_RUN_NETWORK=bridge`".to_owned(),
        )
    })
}

/// Warns of folders that `run-local` would create.
pub fn missing_folders(mounts: &[Mount]) -> Vec<Warning> {
    let is_missing = |mount: &&Mount| mount.folder == Some(Folder::Missing);
    let missing = mounts.iter().filter(is_missing);
    missing
        .map(|Mount { host, .. }| {
            let quoted = quote_for_shell(host);
            Warning::new(
                format!("there is no folder `{host}` to mount: only `run-local` creates it"),
                format!("create it: `mkdir -p {quoted}`"),
            )
        })
        .collect()
}

/// Warns of values that are not in the output because they look like secrets. `place` is where they belong.
pub fn withheld(variables: &Variables, place: &str) -> Option<Warning> {
    let names = variables.withheld.join(", ");
    (!names.is_empty()).then(|| {
        Warning::new(
            format!("the output does not contain what looks like a secret: the value of {names}"),
            format!("put it into {place}"),
        )
    })
}

/// Warns of variables that only xtask's environment has. `place` is where they belong.
pub fn not_passed(variables: &Variables, place: &str) -> Option<Warning> {
    let names = variables.passed.join(", ");
    (!names.is_empty()).then(|| {
        Warning::new(
            format!("the runner will not see these variables of your environment: {names}"),
            format!("put them into {place}, or give a value that is no secret: `-e NAME=value`"),
        )
    })
}

/// A name of lower-case letters, digits and single `-`, as DNS labels and Compose's projects must have it.
pub fn dns_label(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    match cut(&words.join("-"), LABEL_LENGTH) {
        "" => "container".to_owned(),
        label => label.to_owned(),
    }
}

/// A label that no other text has. A text that is no label itself gets a part of its digest: a number would depend on
/// the other texts, and a new text could take the name of an old one.
pub fn distinct_label(text: &str) -> String {
    let label = dns_label(text);
    if label == text {
        label
    } else {
        with_digest(&label, text)
    }
}

fn with_digest(label: &str, text: &str) -> String {
    let digest = digest::sha256(text.as_bytes());
    let end = digest::short(&digest);
    format!("{}-{end}", cut(label, LABEL_LENGTH - end.len() - 1))
}

/// The beginning of a label. The label has ASCII letters only.
fn cut(label: &str, length: usize) -> &str {
    label.get(..length).unwrap_or(label).trim_end_matches('-')
}

/// The folder and the options of `FOLDER[:OPTIONS]`, an item of `run.hardening.tmpfs`.
pub fn tmpfs_parts(item: &str) -> (&str, impl Iterator<Item = &str>) {
    let (folder, options) = item.split_once(':').unwrap_or((item, ""));
    (folder, options.split(','))
}

/// Where the environment file is, or would be.
pub fn env_file_place(path: Option<PathBuf>) -> String {
    path.map_or_else(
        || "a file that `run.env-file` names".to_owned(),
        |path| format!("`{}`", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (text, label) in [
            ("stigmer-agent-runner", "stigmer-agent-runner"),
            ("My_Runner.2", "my-runner-2"),
            ("-a--b-", "a-b"),
            ("___", "container"),
        ] {
            assert_eq!(dns_label(text), label);
        }
        let long = format!("{}-b", "a".repeat(62));
        assert_eq!(dns_label(&long), "a".repeat(62));
    }

    #[test]
    fn different_texts_have_different_labels() {
        assert_eq!(distinct_label("a-1"), "a-1");
        let other = distinct_label("a_1");
        assert!(other.starts_with("a-1-"), "{other}");
        let long = "a".repeat(70);
        let cut = ["b", "c"].map(|end| distinct_label(&format!("{long}{end}")));
        assert_ne!(cut[0], cut[1]);
        for label in &cut {
            assert_eq!(label.len(), 63, "{label}");
        }
    }
}
