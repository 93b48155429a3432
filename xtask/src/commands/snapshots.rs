//! The plan of every command, for each engine and OS, without an engine: a change in what would
//! run shows as a change of a file under `snapshots/`.

use std::path::PathBuf;

use clap::Parser;

use super::{
    build_image::{self, BuildFacts},
    check,
    clean::{self, CleanFacts, Doomed},
    docker_login::{self, GitHubCli},
    logs::{self, Follow},
    publish::{self, MultiFacts},
    run_local::{self, RunFacts, mounts::Mount},
    shell, stop,
    test_image::{self, TestFacts},
};
use crate::{
    cli::{Cli, Command},
    config::{
        Files,
        schema::{BuildSecret, SecretSource},
    },
    engine::{
        Engine, EngineFacts, Kind, Place,
        cache::CacheMount,
        container::{self, Container},
        image::Image,
        multiarch::{BuilderFacts, Store},
    },
    env::{Env, Os, User},
    image::Platform,
    plan::Plan,
    probe::{Folder, Git, World},
    settings::{GitValues, Settings},
};

/// One column of the table: an engine on an OS.
struct Machine {
    name: &'static str,
    kind: Kind,
    rootless: bool,
    os: Os,
    user: User,
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

const MACHINES: &[Machine] = &[
    Machine {
        name: "docker_linux",
        kind: Kind::Docker,
        rootless: false,
        os: Os::Linux,
        user: ME,
    },
    Machine {
        name: "docker_linux_as_root",
        kind: Kind::Docker,
        rootless: false,
        os: Os::Linux,
        user: ROOT,
    },
    Machine {
        name: "docker_rootless_linux",
        kind: Kind::Docker,
        rootless: true,
        os: Os::Linux,
        user: ME,
    },
    Machine {
        name: "docker_macos",
        kind: Kind::Docker,
        rootless: false,
        os: Os::Mac,
        user: MAC_ME,
    },
    Machine {
        name: "podman_rootful_linux",
        kind: Kind::Podman,
        rootless: false,
        os: Os::Linux,
        user: ROOT,
    },
    Machine {
        name: "podman_rootful_macos",
        kind: Kind::Podman,
        rootless: false,
        os: Os::Mac,
        user: MAC_ME,
    },
    Machine {
        name: "podman_rootless_linux",
        kind: Kind::Podman,
        rootless: true,
        os: Os::Linux,
        user: ME,
    },
    Machine {
        name: "podman_rootless_macos",
        kind: Kind::Podman,
        rootless: true,
        os: Os::Mac,
        user: MAC_ME,
    },
];

impl Machine {
    fn env(&self) -> Env {
        let mut env = Env::fake(&[("HOME", "/home/me"), ("OPENAI_API_KEY", "sk-never-shown")]);
        (env.os, env.user) = (self.os, self.user);
        env
    }

    fn engine(&self) -> EngineFacts {
        EngineFacts {
            engine: Engine {
                kind: self.kind,
                program: self.kind.program().to_owned(),
            },
            version: match self.kind {
                Kind::Docker => "28.5.2",
                Kind::Podman => "4.3.1",
            }
            .to_owned(),
            platform: Platform::linux("amd64"),
            rootless: self.rootless,
            place: match self.os {
                Os::Linux => Place::Here,
                Os::Mac => Place::Vm,
            },
        }
    }

    fn build_facts(&self) -> BuildFacts {
        BuildFacts {
            foreign: Vec::new(),
            engine: self.engine(),
            git: Git {
                values: GitValues {
                    sha: Some("0123456789abcdef".to_owned()),
                    branch: Some("main".to_owned()),
                },
                commit_time: Some(1_700_000_000),
                tags: Vec::new(),
                dirty: true,
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

    fn run_facts(
        &self,
        container: Option<Container>,
        image: Option<Image>,
        reference: &str,
    ) -> RunFacts {
        RunFacts {
            world: World {
                engine: self.engine(),
                container,
                images: image.into_iter().collect(),
            },
            reference: reference.to_owned(),
            mounts: vec![Mount {
                host: "/home/me/.stigmer/data/workspace".to_owned(),
                rest: "/workspace".to_owned(),
                folder: Some(Folder::Missing),
            }],
            selinux_enforcing: self.os == Os::Linux,
            env_file: None,
            started_by: run_local::StartedBy::RunLocal,
        }
    }

    fn multi_facts(&self) -> MultiFacts {
        MultiFacts {
            build: self.build_facts(),
            builder: BuilderFacts {
                // One of them with the older store, which needs a builder of our own.
                store: if self.name == "docker_linux_as_root" {
                    Store::OnePlatform
                } else {
                    Store::SeveralPlatforms
                },
                ours_is_there: false,
            },
            github_cache_lacks: Vec::new(),
        }
    }

    fn plan(&self, line: &str) -> String {
        let cli = Cli::try_parse_from(["xtask"].into_iter().chain(line.split(' '))).unwrap();
        let files = Files {
            root: PathBuf::from("/src/agent-runner"),
            project: include_str!("../../../xtask.toml").to_owned(),
            local: None,
        };
        let env = self.env();
        let settings = Settings::resolve(&cli, &env, &files).unwrap();
        let engine = self.engine().engine;
        let reference = settings.reference(&GitValues::default()).unwrap();
        let mut ours = container::Container::default();
        ours.id = "0123456789abcdef".to_owned();
        ours.state.running = true;
        ours.config.labels =
            Some([("ai.stigmer.xtask.container".to_owned(), "run".to_owned())].into());
        let image: Image = serde_json::from_str(
            r#"{"Id":"sha256:1","Config":{"User":"stigmer","Healthcheck":{"Test":["CMD","probe"]}}}"#,
        )
        .unwrap();
        let plan = match &cli.command {
            Command::BuildMultiarch(args) => {
                let check = build_image::check_first(&settings, args.check);
                let facts = self.multi_facts();
                return publish::build_multiarch::plan(&settings, &facts, args, check)
                    .unwrap()
                    .render();
            }
            Command::Check(args) => Plan {
                steps: vec![
                    check::step(&settings, &self.build_facts(), args.build.no_cache).unwrap(),
                ],
            },
            Command::BuildImage(args) => {
                build_image::plan(&settings, &self.build_facts(), args).unwrap()
            }
            Command::RunLocal(args) => {
                // A released image is not here, a dev image is, and replaces a running container.
                let released = settings.channel.name == "release";
                let facts = if released {
                    self.run_facts(None, None, &reference)
                } else {
                    self.run_facts(Some(ours), Some(image), &reference)
                };
                run_local::plan(&settings, &env, &facts, args).unwrap()
            }
            Command::TestImage(_) => self.test_plan(&settings, reference, image),
            Command::Logs(args) => logs::plan(&settings, &engine, args, Follow::Yes),
            Command::Shell(args) => shell::plan(&settings, &engine, args, true),
            Command::Stop => stop::plan(&settings, &engine, Some(&ours)),
            Command::Clean(_) => self.clean_plan(&settings, reference, ours),
            Command::DockerLogin(args) => {
                let request =
                    docker_login::request(&settings, &env, args, GitHubCli::SignedIn).unwrap();
                docker_login::plan(&engine, &request, "sk-never-shown".to_owned())
            }
            Command::PushImage(_)
            | Command::PushMultiarch(_)
            | Command::PushArchive(_)
            | Command::VerifyImage(_)
            | Command::PackArchive(_)
            // Its rounds are two of the plans above.
            | Command::Watch(_)
            | Command::Up(_)
            | Command::Down
            | Command::Ask(_)
            | Command::Smoke(_)
            | Command::CiCheck(_)
            | Command::Formula(_)
            | Command::Status(_)
            | Command::Doctor(_)
            | Command::Config(_)
            | Command::Explain { .. }
            | Command::Completions { .. }
            | Command::Help { .. } => Plan::default(),
        };
        plan.render()
    }

    fn test_plan(&self, settings: &Settings, reference: String, image: Image) -> Plan {
        let facts = TestFacts {
            engine: self.engine(),
            reference,
            image,
            person: self.user,
            run_id: 7,
        };
        test_image::plan(settings, &facts).as_plan()
    }

    fn clean_plan(&self, settings: &Settings, reference: String, ours: Container) -> Plan {
        let engine = self.engine().engine;
        let builders = engine.our_builders();
        let doomed = Doomed {
            id: "sha256:1".to_owned(),
            size: 100,
            references: vec![reference],
            kept_by_others: false,
        };
        let facts = CleanFacts {
            builders: builders.iter().map(|(name, _)| *name).take(1).collect(),
            engine,
            container: Some(ours),
            images: vec![doomed],
            caches: vec![CacheMount {
                place: "/var/tmp/buildah-cache/agent-runner-uv".to_owned(),
                id: "agent-runner-uv".to_owned(),
            }],
        };
        clean::plan(settings, &facts)
    }
}

const LINES: &[&str] = &[
    "check",
    "build-image --version dev-me",
    "build-image --version 1.2.3 --no-cache --pull --platform linux/arm64 --progress plain",
    "run-local --version dev-me",
    "run-local --version 1.2.3",
    "run-local --version dev-me --foreground --network bridge",
    "test-image --version dev-me",
    "logs --tail 10",
    "shell",
    "stop",
    "clean --version dev-me --all",
    "docker-login --username me",
    "build-multiarch --version dev-me",
    "build-multiarch --version 1.2.3 --shard linux/arm64 --no-check",
];

#[test]
fn every_command_on_every_machine() {
    for machine in MACHINES {
        let plans: String = LINES
            .iter()
            .map(|line| format!("# cargo xtask {line}\n{}\n", machine.plan(line)))
            .collect();
        assert!(!plans.contains("sk-never-shown"), "a secret is in a plan");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(machine.name, plans);
        });
    }
}
