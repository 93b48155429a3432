//! A Compose file. <https://github.com/compose-spec/compose-spec/blob/main/spec.md>

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    base::env::User,
    commands::{
        export::runner::{Runner, Warning, dns_label},
        run_local::mounts::Mount,
    },
    engine::EngineFacts,
    facts::environment::EnvFile,
    settings::{Network, Restart},
};

#[derive(Debug, Serialize)]
pub struct ComposeFile {
    name: String,
    services: BTreeMap<String, Service>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<&'static str, External>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Named>,
}

/// A network that the user created.
#[derive(Debug, Serialize)]
struct External {
    name: String,
    external: bool,
}

/// A volume with the same name as `run-local` gives it. Otherwise, Compose would put the project's name before it.
#[derive(Debug, Serialize)]
struct Named {
    name: String,
}

#[derive(Debug, Serialize)]
struct Service {
    image: String,
    container_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_mode: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env_file: Vec<String>,
    /// None for the value in the environment of Compose.
    environment: BTreeMap<String, Option<String>>,
    volumes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_limit: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    cpus: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<i64>,
    init: bool,
    read_only: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tmpfs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    security_opt: Vec<&'static str>,
    restart: &'static str,
    stop_grace_period: String,
    logging: Logging,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
}

#[derive(Debug, Serialize)]
struct Logging {
    driver: &'static str,
    options: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct Healthcheck {
    test: Vec<String>,
    interval: &'static str,
    timeout: &'static str,
    start_period: &'static str,
    retries: u32,
}

/// Makes the Compose file of the runner, for an engine that starts it as `run-local` would.
pub fn compose(runner: &Runner, engine: &EngineFacts, user: User) -> ComposeFile {
    let run = &runner.settings.run;
    let network = engine.network(&run.network);
    let by_name = by_name(runner).map(|name| (name.clone(), None));
    let shown = runner.variables.shown.iter();
    let shown = shown.map(|(name, value)| (name.clone(), Some(literal(value))));
    let is_volume = |mount: &&Mount| mount.folder.is_none();
    let volumes = runner.mounts.iter().filter(is_volume);
    let created = network.created_by_user();
    let service = Service {
        image: literal(runner.image),
        container_name: literal(&run.container),
        command: run.command.iter().map(|word| literal(word)).collect(),
        user: engine.identity(&run.user, user).user,
        network_mode: network_mode(&network),
        ports: runner.published_ports(engine),
        extra_hosts: if engine.has_host_name_on(&run.network) {
            vec![format!("{}:host-gateway", engine.host_name())]
        } else {
            Vec::new()
        },
        env_file: runner
            .env_file
            .iter()
            .map(|file| literal(&file.path))
            .collect(),
        environment: by_name.chain(shown).collect(),
        volumes: runner.volumes().map(|volume| literal(&volume)).collect(),
        mem_limit: run.limits.memory,
        cpus: run.limits.cpus.clone(),
        pids_limit: run.limits.pids_limit(),
        init: run.hardening.init,
        read_only: run.hardening.read_only,
        tmpfs: run.hardening.tmpfs.iter().map(|it| literal(it)).collect(),
        cap_drop: run.hardening.drop_capabilities.clone(),
        security_opt: if run.hardening.no_new_privileges {
            vec!["no-new-privileges"]
        } else {
            Vec::new()
        },
        restart: match run.restart {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::UnlessStopped => "unless-stopped",
        },
        stop_grace_period: seconds(run.stop_grace),
        logging: Logging {
            driver: "json-file",
            options: engine
                .log_limits("json-file")
                .iter()
                .filter_map(|option| option.split_once('='))
                .collect(),
        },
        healthcheck: healthcheck(&runner.settings.health.command),
    };
    ComposeFile {
        name: dns_label(&run.container),
        services: [(runner.program(), service)].into(),
        networks: created
            .map(|name| {
                let external = External {
                    name: literal(name),
                    external: true,
                };
                ("default", external)
            })
            .into_iter()
            .collect(),
        volumes: volumes
            .map(|mount| {
                let name = mount.host.clone();
                (name.clone(), Named { name })
            })
            .collect(),
    }
}

/// The variables whose values Compose takes from its environment. Such a variable overrides the environment file,
/// even if it has no value. So a variable that has none now can still be added to that file.
fn by_name<'a>(runner: &'a Runner) -> impl Iterator<Item = &'a String> {
    let variables = &runner.variables;
    let unset = variables.unset.iter();
    let unset = unset.filter(|_| runner.env_file.is_none());
    variables
        .passed
        .iter()
        .chain(&variables.withheld)
        .chain(unset)
}

/// None for a network of Compose: that of the project, or one that the user created.
fn network_mode(network: &Network) -> Option<String> {
    match network {
        Network::Host => Some("host".to_owned()),
        Network::Named(_) if network.created_by_user().is_some() => None,
        Network::Named(name) => Some(literal(name)),
        Network::Auto | Network::Bridge => None,
    }
}

/// The image has a health check of its own. The configured one has the same times.
fn healthcheck(command: &[String]) -> Option<Healthcheck> {
    (!command.is_empty()).then(|| Healthcheck {
        test: std::iter::once("CMD".to_owned())
            .chain(command.iter().map(|word| literal(word)))
            .collect(),
        interval: "30s",
        timeout: "10s",
        start_period: "40s",
        retries: 3,
    })
}

/// Compose replaces `$NAME`, and makes one `$` of two.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// Warns of values in the environment file that Compose reads differently: engines take them as they are.
pub fn env_file_differences(file: &EnvFile) -> Option<Warning> {
    let is_special = |value: &str| {
        value.contains(['$', '"', '\'', '`', '\\']) || value.contains(" #") || value != value.trim()
    };
    let lines = file.lines.iter();
    let names: Vec<_> = lines
        .filter(|line| line.value.as_deref().is_some_and(is_special))
        .map(|line| line.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Warning::new(
            format!(
                "Compose reads `$`, quotes, `\\`, ` #` and spaces at the ends of values in `{}`, and `run-local` takes them as they are: {}",
                file.path,
                names.join(", ")
            ),
            "write these values in single quotes, in another file for Compose".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::environment::parse_env_file;

    #[test]
    fn a_dollar_is_no_variable() {
        assert_eq!(literal("a$b${c}"), "a$$b$${c}");
    }

    #[test]
    fn values_that_compose_reads_differently_are_named_without_their_values() {
        let text = "A=x$y\nB='q'\nC=plain\nD=x # y\nE= x\nF\nG=a#b\n";
        let warning = env_file_differences(&parse_env_file(".env", text).unwrap()).unwrap();
        assert!(warning.text.ends_with(": A, B, D, E"), "{warning:?}");
        assert_eq!(
            env_file_differences(&parse_env_file(".env", "C=plain\n").unwrap()),
            None
        );
    }

    #[test]
    fn networks_that_the_user_created_are_external() {
        let mode = |word: &str| network_mode(&Network::from(word.to_owned()));
        assert_eq!(mode("host").unwrap(), "host");
        assert_eq!(mode("container:db").unwrap(), "container:db");
        assert_eq!(mode("none").unwrap(), "none");
        assert_eq!(mode("bridge"), None);
        assert_eq!(mode("mine"), None);
    }

    #[test]
    fn only_a_configured_health_check_is_in_the_file() {
        assert!(healthcheck(&[]).is_none());
        let check = healthcheck(&["probe".to_owned(), "$x".to_owned()]).unwrap();
        assert_eq!(check.test, ["CMD", "probe", "$$x"]);
    }
}
