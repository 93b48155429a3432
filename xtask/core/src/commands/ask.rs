//! `ask`: starts an execution, shows its progress, and prints the answer and the files that it made.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::Env, error::Failure},
    build::facts::BuildFacts,
    cli::VersionOption,
    commands::{
        command::Command,
        stack::{
            Names, Ports, belongs_to_stack, build_devserver_steps, devserver_command,
            devserver_image, find_devserver_image, serves,
        },
    },
    engine::{
        Engine, EngineFacts, label,
        run::{Mode, Run},
    },
    exec::Finished,
    facts::{
        context::Context,
        environment::{RunnerEnv, read_env_file},
        host,
    },
    plan::{EnvValue, Output, Plan, Step},
    settings::{Network, Settings},
};

/// Ask an agent, and show its answer and the files that it made
#[derive(Args, Clone, Debug)]
pub struct Ask {
    #[command(flatten)]
    version: VersionOption,
    /// The question or task
    message: String,
    /// The session, which is created if it does not exist [default: a new one for this question]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The agent [default: the development server's]
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// A model instead of the runner's own
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// The exit codes of the devserver's `ask`. Others are the engine's.
const EXECUTION_FAILED: i32 = 3;
const REQUEST_FAILED: i32 = 4;

const API_KEY: &str = "STIGMER_API_KEY";

/// What the plan needs to know.
struct AskFacts {
    client: Client,
    server_port: u16,
    /// The key of a stigmer-server that `up` did not start.
    api_key: Option<String>,
    /// The session if `--session` is not given. The client creates it.
    new_session: String,
    /// The runner's workspace on this machine.
    workspace: Option<String>,
}

/// Where the client runs.
enum Client {
    /// In the container of the server that `up` started.
    InServer { engine: Engine, server: String },
    /// In a container of its own, from the devserver's image.
    InImage {
        build: Box<BuildFacts>,
        /// Makes the names of this run differ from those of another at the same time.
        run_id: u32,
    },
}

impl Ask {
    fn session<'a>(&'a self, facts: &'a AskFacts) -> &'a str {
        self.session.as_deref().unwrap_or(&facts.new_session)
    }

    /// The arguments of the devserver's program.
    fn command(&self, server: String, facts: &AskFacts) -> Vec<String> {
        let mut command = vec!["ask".to_owned(), "--server".to_owned(), server];
        for (flag, value) in [
            ("--session", Some(self.session(facts))),
            ("--agent", self.agent.as_deref()),
            ("--model", self.model.as_deref()),
            ("--workspace", facts.workspace.as_deref()),
        ] {
            if let Some(value) = value {
                command.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        // A message may begin with a dash.
        command.extend(["--".to_owned(), self.message.clone()]);
        command
    }

    fn container(
        &self,
        settings: &Settings,
        engine: &EngineFacts,
        env: &Env,
        facts: &AskFacts,
        run_id: u32,
    ) -> Run {
        let network = engine.network(&Network::Auto);
        let host = engine.host_name_on(&network);
        let name = format!("{}-ask-{run_id}", settings.run.container);
        Run {
            labels: vec![(label::CONTAINER.to_owned(), "ask".to_owned())],
            mode: Mode::Once,
            env_by_name: facts
                .api_key
                .iter()
                .map(|value| (API_KEY.to_owned(), Some(EnvValue::Secret(value.clone()))))
                .collect(),
            command: self.command(format!("{host}:{}", facts.server_port), facts),
            ..Run::restricted(&name, &devserver_image(settings), env.user, network)
        }
    }

    /// The last step is the client.
    fn plan(&self, settings: &Settings, env: &Env, facts: &AskFacts) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let client = match &facts.client {
            Client::InServer { engine, server } => {
                let address = format!("127.0.0.1:{}", facts.server_port);
                engine.exec(server, devserver_command(self.command(address, facts)))
            }
            Client::InImage { build, run_id } => {
                plan.steps.extend(build_devserver_steps(settings, build)?);
                let run = self.container(settings, &build.engine, env, facts, *run_id);
                build.engine.run_as_image_user(&run)
            }
        };
        plan.push(Step::new(client, Output::Result));
        Ok(plan)
    }
}

impl AskFacts {
    fn gather(cx: &Context) -> Result<Self> {
        let settings = cx.settings;
        let file = read_env_file(settings, cx.env)?;
        let runner = RunnerEnv {
            settings,
            env: cx.env,
            file: file.as_ref(),
            scripted: &[],
        };
        let server_port = Ports::of(&runner)?.server;
        let server = Names::for_runner(&settings.run.container).server;
        let search = cx.search(&server)?;
        let ours = search.found.iter().find(|(_, found)| {
            belongs_to_stack(settings, found) && found.state.running && serves(found, server_port)
        });
        if let Some((engine, _)) = ours {
            let engine = engine.clone();
            return Ok(Self {
                client: Client::InServer { engine, server },
                server_port,
                api_key: None,
                new_session: new_session(),
                workspace: workspace(cx),
            });
        }
        search.fail_if_silent()?;
        if !cx.dry_run && !host::listens(&format!("localhost:{server_port}")) {
            return Err(Failure::new(format!(
                "nothing answers on localhost:{server_port}: no stigmer-server is running"
            ))
            .hint(format!(
                "start the stack: `cargo xtask up{}`",
                cx.settings.given_version_options()
            ))
            .into());
        }
        let build = BuildFacts::gather(cx)?;
        find_devserver_image(cx, &build.engine)?;
        Ok(Self {
            client: Client::InImage {
                build: Box::new(build),
                run_id: std::process::id(),
            },
            server_port,
            api_key: runner.value(API_KEY).map(str::to_owned),
            new_session: new_session(),
            workspace: workspace(cx),
        })
    }
}

/// The id of a session that does not exist yet.
fn new_session() -> String {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("ask-{:x}", since.as_millis())
}

/// The folder on this machine that is mounted as the runner's workspace.
fn workspace(cx: &Context) -> Option<String> {
    let mounts = cx.settings.mounts().into_iter();
    let mut folders = mounts.filter_map(|mount| {
        let (host, rest) = mount.value.split_once(':')?;
        (rest.split(':').next() == Some("/workspace")).then(|| host.to_owned())
    });
    let folder = cx.env.expand(&folders.next()?, &cx.settings.root)?;
    Some(folder.to_string_lossy().into_owned())
}

/// The failure of a client that did not end with an answer.
fn failure(client: &Finished, engine_command: &str, settings: &Settings) -> Failure {
    let again = format!(
        "start the stack again: `cargo xtask up{}`",
        settings.given_version_options()
    );
    match client.code {
        EXECUTION_FAILED => Failure::new("the execution failed: the reason is the last line above")
            .hint("look at the runner: `cargo xtask logs`, `cargo xtask status`"),
        REQUEST_FAILED => Failure::new(
            "the stigmer-server did not accept the request: its answer is the last line above",
        )
        .hint(format!(
            "look at the server: `cargo xtask logs server`; {again}"
        )),
        code => {
            Failure::new(format!("`{engine_command}` failed with exit code {code}")).hint(again)
        }
    }
}

impl Command for Ask {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let facts = AskFacts::gather(cx)?;
        let plan = self.plan(cx.settings, cx.env, &facts)?;
        if cx.dry_run {
            return Ok(cx.ui.print_plan(&plan.render())?);
        }
        let Some((client, before)) = plan.steps.split_last() else {
            return Ok(());
        };
        cx.exec.run(&before.to_vec().into())?;
        // The failure is made from the exit code below, so the step must not fail by itself.
        let answer = cx.exec.step(&client.clone().ignore_failure())?;
        if !answer.ok() {
            return Err(failure(&answer, &client.cmd.summary(), cx.settings).into());
        }
        // Another stigmer-server chooses the id of a session itself. The client has printed it.
        if self.session.is_none() && matches!(facts.client, Client::InServer { .. }) {
            let session = self.session(&facts);
            cx.ui.hint(&format!(
                "continue this session: `cargo xtask ask --session {session} \"…\"`"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Ask {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let facts = |client| AskFacts {
            client,
            server_port: 7234,
            api_key: None,
            new_session: "ask-1".to_owned(),
            workspace: Some("/home/me/work".to_owned()),
        };
        let in_server = || Client::InServer {
            engine: machine.engine().engine,
            server: "stigmer-agent-runner-server".to_owned(),
        };
        let in_image = || Client::InImage {
            build: Box::new(machine.build_facts()),
            run_id: 7,
        };
        let ours = machine.examples(&["ask hello"], |command: &Self, settings, env| {
            command.plan(settings, env, &facts(in_server()))
        });
        let line = "ask --version dev-me --session mine hello";
        let other = machine.examples(&[line], |command: &Self, settings, env| {
            command.plan(settings, env, &facts(in_image()))
        });
        ours.into_iter().chain(other).collect()
    }
}
