//! `export`: prints the runner's container as a file for Compose, Kubernetes or systemd.

mod compose;
mod kubernetes;
mod quadlet;
mod runner;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
        error::Failure,
        image::Platform,
    },
    cli::{EnvOption, FlavourOption, Overrides, VersionOption},
    commands::{
        command::Command,
        export::runner::{Facts, Runner, Warning},
        health,
        run_local::{mounts::mount, warnings::short_stop_grace},
    },
    config::layer::Override,
    engine::{Engine, EngineFacts, Location},
    facts::{
        context::{Context, EngineQuery},
        environment::{env_file_path, env_file_warnings, read_env_file},
        host,
    },
    plan::quote_for_shell,
    settings::Settings,
};

/// Print the container as a file for Compose, Kubernetes or systemd
#[derive(Args, Clone, Debug)]
pub struct Export {
    #[arg(value_enum)]
    format: Format,
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    env: EnvOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Compose file for Docker
    Compose,
    /// Manifests: a Deployment, and the claims for its volumes
    Kubernetes,
    /// A unit with which systemd runs a container of Podman 4.4 or newer
    Quadlet,
}

impl Command for Export {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn overrides(&self) -> Vec<Override> {
        self.env.add_to(Overrides::default()).list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let facts = gather(cx)?;
        let check = match self.format {
            Format::Kubernetes => health_check(cx, &facts.reference)?,
            Format::Compose | Format::Quadlet => Vec::new(),
        };
        let (text, runner) = export(self.format, cx.settings, cx.env, &facts, &check)?;
        for warning in warnings(self.format, &runner, cx, &facts) {
            warn(cx, &warning);
        }
        cx.ui.print(&text)?;
        cx.ui.hint(&next(self.format, &runner, cx));
        Ok(())
    }
}

fn warn(cx: &Context, warning: &Warning) {
    cx.ui.warn(&warning.text);
    if let Some(hint) = &warning.hint {
        cx.ui.hint(hint);
    }
}

/// Asks this machine.
fn gather(cx: &Context) -> Result<Facts> {
    let mounts = cx.settings.mounts();
    let mounts = mounts
        .iter()
        .map(|volume| mount(volume, cx.settings, cx.env));
    Ok(Facts {
        reference: cx.reference()?,
        mounts: mounts.collect::<Result<_, _>>()?,
        selinux_enforcing: cx.env.os == Os::Linux && host::selinux_enforcing(),
        env_file: read_env_file(cx.settings, cx.env)?,
    })
}

/// The command of the health check, for probes: the configured one, else the image's own. If it asks an engine for the
/// image, it also warns of a user that Kubernetes refuses.
///
/// # Errors
/// When neither is known.
fn health_check(cx: &Context, reference: &String) -> Result<Vec<String>> {
    let configured = &cx.settings.health.command;
    if !configured.is_empty() {
        return Ok(configured.clone());
    }
    let set = "or set `health.command` in `xtask.toml`";
    let images = std::slice::from_ref(reference);
    let query = EngineQuery {
        container: None,
        images,
    };
    let state = cx.query_engine(query).map_err(|error| {
        error.hint(format!(
            "the probes run the image's health check: start an engine that has the image, {set}"
        ))
    })?;
    let why = match state.images.first() {
        Some(image) => match health::command(Some(image), &cx.settings.health) {
            Some(check) => {
                if let Some(warning) = kubernetes::named_user(cx.settings, image) {
                    warn(cx, &warning);
                }
                return Ok(check);
            }
            None => "the engine reports no health check for it",
        },
        None => "the engine does not have it",
    };
    Err(Failure::new(format!(
        "the probes run the health check of `{reference}`, and {why}"
    ))
    .hint(format!(
        "build the image, whose Dockerfile needs a HEALTHCHECK: `cargo xtask build-image {}`; {set}",
        cx.settings.version_options()
    ))
    .into())
}

/// The text in a format, and the runner that it describes. Pure.
fn export<'a>(
    format: Format,
    settings: &'a Settings,
    env: &Env,
    facts: &'a Facts,
    check: &[String],
) -> Result<(String, Runner<'a>), Failure> {
    let runner = |engine| Runner::new(settings, env, facts, engine);
    match format {
        Format::Compose => {
            let engine = docker(env);
            let runner = runner(Some(&engine));
            Ok((json(&compose::compose(&runner, &engine, env.user))?, runner))
        }
        Format::Kubernetes => {
            let runner = runner(None);
            Ok((documents(&kubernetes::manifests(&runner, check))?, runner))
        }
        Format::Quadlet => {
            if settings.run.command.iter().any(String::is_empty) {
                return Err(Failure::new(
                    "`run.command` has an empty argument, and Quadlet drops it with all that follow",
                )
                .hint("use Compose or Kubernetes, or an argument that is not empty"));
            }
            let engine = podman(env);
            let runner = runner(Some(&engine));
            Ok((quadlet::unit(&runner, &engine, env.user), runner))
        }
    }
}

/// JSON is YAML too.
fn json(file: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(file);
    let text = text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    Ok(format!("{text}\n"))
}

/// Several documents of YAML, because `podman kube play` of Podman 4.3 reads no list. kubectl takes a text that
/// begins with `{` for JSON, and would not read the second document.
fn documents(files: &[impl Serialize]) -> Result<String, Failure> {
    let texts = files.iter().map(json);
    texts.map(|text| Ok(format!("---\n{}", text?))).collect()
}

/// Docker as it usually runs on this system: as root, on macOS in a virtual machine.
fn docker(env: &Env) -> EngineFacts {
    let location = match env.os {
        Os::Linux => Location::Host,
        Os::Mac => Location::VirtualMachine,
    };
    assumed(EngineKind::Docker, "28.0.0", false, location)
}

/// Podman as systemd runs it: as the user who runs xtask, beside the containers.
fn podman(env: &Env) -> EngineFacts {
    let rootless = env.user.euid != 0;
    assumed(EngineKind::Podman, "5.0.0", rootless, Location::Host)
}

fn assumed(kind: EngineKind, version: &str, rootless: bool, location: Location) -> EngineFacts {
    EngineFacts {
        engine: Engine {
            kind,
            program: kind.program().to_owned(),
        },
        version: version.to_owned(),
        platform: Platform::linux("amd64"),
        rootless,
        location,
    }
}

fn warnings(format: Format, runner: &Runner, cx: &Context, facts: &Facts) -> Vec<Warning> {
    let mut all = Vec::new();
    let env_file = runner::env_file_place(env_file_path(cx.settings, cx.env));
    let texts = facts.env_file.iter().flat_map(env_file_warnings);
    let quotes = texts.map(|text| Warning { text, hint: None });
    let environment = runner::runner_env(cx.settings, cx.env, facts);
    all.extend(short_stop_grace(&environment).map(|(text, hint)| Warning::new(text, hint)));
    match format {
        Format::Compose => {
            all.extend(
                facts
                    .env_file
                    .as_ref()
                    .and_then(compose::env_file_differences),
            );
            all.extend(runner::own_addresses(&environment, &docker(cx.env)));
            all.extend(runner::ports_left_out(runner, &docker(cx.env)));
            all.extend(runner::missing_folders(runner.mounts));
            all.extend(runner::withheld(
                &runner.variables,
                "the environment in which you call Compose",
            ));
        }
        Format::Quadlet => {
            all.extend(quotes);
            all.extend(old_podman(cx));
            all.extend(runner::own_addresses(&environment, &podman(cx.env)));
            all.extend(runner::ports_left_out(runner, &podman(cx.env)));
            all.extend(runner::missing_folders(runner.mounts));
            all.extend(runner::withheld(&runner.variables, &env_file));
            all.extend(runner::not_passed(&runner.variables, &env_file));
        }
        Format::Kubernetes => {
            all.extend(quotes);
            let secret = format!("the Secret `{}`", kubernetes::name(runner));
            for name in runner::loopback_addresses(&environment) {
                all.push(Warning::new(
                    format!("{name} is an address of this machine: in a cluster it leads to the runner's own pod"),
                    format!("export with the address in the cluster: `-e {name}=HOST:PORT`"),
                ));
            }
            all.extend(kubernetes::folders_left_out(runner));
            all.extend(runner::withheld(&runner.variables, &secret));
            all.extend(runner::not_passed(&runner.variables, &secret));
        }
    }
    all
}

/// Warns if the Podman of this machine has no Quadlet. The unit may be for another machine.
fn old_podman(cx: &Context) -> Option<Warning> {
    let program = EngineKind::Podman.program();
    cx.find_program(program)?;
    let engine = Engine {
        kind: EngineKind::Podman,
        program: program.to_owned(),
    };
    let podman = cx.facts_of(&engine).ok()?;
    (podman.major_minor() < quadlet::FIRST_PODMAN).then(|| {
        Warning::new(
            format!("{} has no Quadlet, which Podman has since 4.4", podman.describe()),
            format!("use the unit on a machine with a newer Podman, or start the container with `cargo xtask run-local{}`", cx.settings.given_version_options()),
        )
    })
}

/// What to do with the output.
fn next(format: Format, runner: &Runner, cx: &Context) -> String {
    let container = &cx.settings.run.container;
    match format {
        Format::Compose => {
            "pipe the output into `docker compose -f - up --detach --wait`".to_owned()
        }
        Format::Kubernetes => {
            let name = kubernetes::name(runner);
            let file = runner.env_file.map_or("FILE", |file| &file.path);
            format!(
                "create the Secret, for variables without a value in the output: `kubectl create secret generic {name} --from-env-file={}`; then pipe the output into `kubectl apply -f -`",
                quote_for_shell(file)
            )
        }
        Format::Quadlet => {
            let (folder, systemctl) = match cx.env.user.euid {
                0 => ("/etc/containers/systemd", "systemctl"),
                _ => ("~/.config/containers/systemd", "systemctl --user"),
            };
            format!(
                "save the output as `{folder}/{container}.container`; then run `{systemctl} daemon-reload` and `{systemctl} start {container}`"
            )
        }
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Export {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        // Each format on the machines on which it differs.
        let lines: &[&str] = match (machine.name, machine.kind, machine.os) {
            ("docker_linux", _, _) => &[
                "export compose --version 1.2.3",
                "export kubernetes --version 1.2.3 -e TEMPORAL_SERVICE_ADDRESS=temporal:7233",
            ],
            (_, EngineKind::Docker, _) => &["export compose --version 1.2.3"],
            (_, EngineKind::Podman, Os::Linux) => &["export quadlet --version 1.2.3"],
            _ => &[],
        };
        machine.rendered_examples(lines, |command: &Self, settings, env| {
            let facts = machine.run_facts(settings, true);
            let facts = Facts {
                reference: facts.reference,
                mounts: facts.mounts,
                selinux_enforcing: facts.selinux_enforcing,
                env_file: facts.env_file,
            };
            let check = ["probe".to_owned()];
            export(command.format, settings, env, &facts, &check).map(|(text, _)| text)
        })
    }
}
