//! Machines on which the plans of all commands are made, without an engine.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os, User},
        error::Failure,
        image::{Platform, Repository},
    },
    build::{dockerfile::BuildFiles, facts::BuildFacts, foundation::Foundation},
    commands::{
        command::Command,
        run_local::{facts::RunFacts, mounts::Mount, network::NetworkState},
        table::Cli,
    },
    config::{files::Files, layer::Sourced},
    engine::{
        Engine, EngineFacts, Location,
        capabilities::ImageStore,
        container::Container,
        image::Image,
        label,
        multiarch::{BuilderFacts, BuilderNames},
    },
    facts::{context::EngineState, git::WorkTree, host::Folder},
    plan::Plan,
    release::builder::MultiarchFacts,
    settings::{BuildSecret, GitValues, SecretSource, Settings, resolve::Arguments},
};

/// A secret that no plan may show.
pub const SECRET: &str = "sk-never-shown";

/// The id of the process that makes the plans.
pub const PROCESS: u32 = 4242;

/// A command line, and what it would run.
pub struct Example {
    pub line: String,
    pub plan: String,
}

/// The examples of a command. A command that runs nothing has none.
pub trait Examples: Sized {
    fn examples(_: &Machine) -> Vec<Example> {
        Vec::new()
    }
}

/// An engine on an operating system.
pub struct Machine {
    pub name: &'static str,
    pub kind: EngineKind,
    pub rootless: bool,
    pub os: Os,
    pub user: User,
}

const ME: User = User {
    euid: 1001,
    uid: 1001,
    gid: 1001,
};
const MAC_ME: User = User {
    euid: 501,
    uid: 501,
    gid: 20,
};
const ROOT: User = User {
    euid: 0,
    uid: 0,
    gid: 0,
};

const fn machine(
    name: &'static str,
    kind: EngineKind,
    rootless: bool,
    os: Os,
    user: User,
) -> Machine {
    Machine {
        name,
        kind,
        rootless,
        os,
        user,
    }
}

/// All machines.
#[rustfmt::skip] // a table: one machine a line
pub const MACHINES: &[Machine] = &[
    machine("docker_linux", EngineKind::Docker, false, Os::Linux, ME),
    machine("docker_linux_as_root", EngineKind::Docker, false, Os::Linux, ROOT),
    machine("docker_rootless_linux", EngineKind::Docker, true, Os::Linux, ME),
    machine("docker_macos", EngineKind::Docker, false, Os::Mac, MAC_ME),
    machine("podman_rootful_linux", EngineKind::Podman, false, Os::Linux, ROOT),
    machine("podman_rootful_macos", EngineKind::Podman, false, Os::Mac, MAC_ME),
    machine("podman_rootless_linux", EngineKind::Podman, true, Os::Linux, ME),
    machine("podman_rootless_macos", EngineKind::Podman, true, Os::Mac, MAC_ME),
];

/// The arguments of a command, from the words of a line. The first word is the command's name.
pub fn parse<'a, T: Args>(words: impl IntoIterator<Item = &'a str>) -> T {
    let line = std::iter::once("xtask").chain(words);
    let matches = Cli::command().try_get_matches_from(line);
    let matches = matches.unwrap_or_else(|error| panic!("{error}"));
    let (_, matches) = matches.subcommand().unwrap();
    T::from_arg_matches(matches).unwrap()
}

impl Machine {
    pub fn env(&self) -> Env {
        let mut env = Env::fake(&[("HOME", "/home/me"), ("OPENAI_API_KEY", SECRET)]);
        (env.os, env.user) = (self.os, self.user);
        env
    }

    /// The plans of command lines, with this repository's configuration.
    pub fn examples<T: Args + Command>(
        &self,
        lines: &[&str],
        plan: impl Fn(&T, &Settings, &Env) -> Result<Plan, Failure>,
    ) -> Vec<Example> {
        self.rendered_examples(lines, |command: &T, settings, env| {
            Ok(plan(command, settings, env)?.render())
        })
    }

    /// As [`Self::examples`], for commands with several plans.
    pub fn rendered_examples<T: Args + Command>(
        &self,
        lines: &[&str],
        plan: impl Fn(&T, &Settings, &Env) -> Result<String, Failure>,
    ) -> Vec<Example> {
        let env = self.env();
        let example = |line: &&str| {
            let command: T = parse(line.split(' '));
            let arguments = Arguments {
                version: command.version().map(str::to_owned),
                flavour: command.flavour().map(str::to_owned),
                overrides: command.overrides(),
            };
            let settings = Settings::resolve(&arguments, &env, &project_files()).unwrap();
            let plan = plan(&command, &settings, &env);
            Example {
                line: (*line).to_owned(),
                plan: plan.unwrap_or_else(|error| panic!("{line}: {error}")),
            }
        };
        lines.iter().map(example).collect()
    }

    /// The version's reference.
    pub fn reference(&self, settings: &Settings) -> String {
        settings.reference(&GitValues::default()).unwrap()
    }

    pub fn engine(&self) -> EngineFacts {
        EngineFacts {
            engine: Engine {
                kind: self.kind,
                program: self.kind.program().to_owned(),
            },
            version: match self.kind {
                EngineKind::Docker => "28.5.2",
                EngineKind::Podman => "4.3.1",
            }
            .to_owned(),
            platform: Platform::linux("amd64"),
            rootless: self.rootless,
            location: match self.os {
                Os::Linux => Location::Host,
                Os::Mac => Location::VirtualMachine,
            },
        }
    }

    pub fn build_facts(&self) -> BuildFacts {
        BuildFacts {
            files: BuildFiles {
                text: Some("FROM scratch AS runtime\n".to_owned()),
                dockerfile: "/src/agent-runner/Dockerfile".into(),
                ..BuildFiles::default()
            },
            foreign_references: Vec::new(),
            newer: Vec::new(),
            foundation: (self.kind == EngineKind::Podman).then(|| Foundation {
                reference: "localhost/agent-runner-foundation:0123456789abcdef".to_owned(),
                exists: self.name == "podman_rootless_linux",
                base_id: "1".to_owned(),
            }),
            engine: self.engine(),
            git: WorkTree {
                values: GitValues {
                    sha: Some("0123456789abcdef".to_owned()),
                    branch: Some("main".to_owned()),
                },
                commit_time: Some(1_700_000_000),
                tags: Vec::new(),
                dirty: true,
                untrusted: None,
            },
            created: 1_700_000_000,
            secrets: vec![BuildSecret {
                id: "ca".to_owned(),
                source: SecretSource::File("/etc/ca.pem".to_owned()),
            }],
            tmpdir: (self.name == "podman_rootless_linux")
                .then(|| "/home/me/.cache/agent-runner".to_owned()),
        }
    }

    /// With `exists`, the image is here and an earlier container runs.
    pub fn run_facts(&self, settings: &Settings, exists: bool) -> RunFacts {
        let mount = |volume: &Sourced<String>| {
            let (host, rest) = volume.value.split_once(':').unwrap();
            Mount {
                host: host.replace('~', "/home/me"),
                rest: rest.to_owned(),
                folder: Some(Folder::Missing),
                missing_parents: Vec::new(),
            }
        };
        RunFacts {
            state: EngineState {
                engine: self.engine(),
                container: exists.then(|| self.running_container()),
                images: exists.then(|| self.image()).into_iter().collect(),
            },
            reference: self.reference(settings),
            mounts: settings.mounts().iter().map(mount).collect(),
            network: NetworkState::Usable,
            used_ports: Vec::new(),
            log_driver: "json-file".to_owned(),
            stigmer_cli_runs: false,
            runs_in: None,
            selinux_enforcing: self.os == Os::Linux,
            env_file: None,
            is_in_stack: false,
            scripted_model: Vec::new(),
        }
    }

    pub fn multi_facts(&self) -> MultiarchFacts {
        MultiarchFacts {
            build: self.build_facts(),
            builder: BuilderFacts {
                names: BuilderNames::of(
                    &Repository::parse("ghcr.io/stigmer/agent-runner").unwrap(),
                ),
                // One machine has the older store, which needs a builder of our own.
                store: if self.name == "docker_linux_as_root" {
                    ImageStore::SinglePlatform
                } else {
                    ImageStore::MultiPlatform
                },
                xtask_builder_exists: false,
            },
            missing_github_cache_variables: Vec::new(),
            process: PROCESS,
        }
    }

    /// Our container.
    pub fn running_container(&self) -> Container {
        let mut container = Container::default();
        container.id = "0123456789abcdef".to_owned();
        container.state.running = true;
        container.config.labels =
            Some([(label::CONTAINER.to_owned(), label::RUN.to_owned())].into());
        container
    }

    pub fn image(&self) -> Image {
        let json = r#"{"Id":"sha256:1","Config":{"User":"stigmer","Healthcheck":{"Test":["CMD","probe"]}}}"#;
        serde_json::from_str(json).unwrap()
    }
}

/// The settings of this repository.
pub fn settings() -> Settings {
    let arguments = Arguments {
        version: Some("dev-me".to_owned()),
        ..Arguments::default()
    };
    Settings::resolve(&arguments, &MACHINES[0].env(), &project_files()).unwrap()
}

fn project_files() -> Files {
    Files {
        root: PathBuf::from("/src/agent-runner"),
        project: include_str!("../../../../xtask.toml").to_owned(),
        local: None,
    }
}
