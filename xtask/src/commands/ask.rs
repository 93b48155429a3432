//! `ask`: starts an execution, shows its progress, and prints the answer and the files that it made.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::Env, error::Failure},
    build::facts::BuildFacts,
    cli::VersionOption,
    commands::{
        command::Command,
        stack::{Ports, build_devserver_steps, devserver_image, has_devserver_image},
    },
    engine::{
        EngineFacts, label,
        run::{Mode, Run},
    },
    facts::{
        context::Context,
        environment::{RunnerEnv, read_env_file},
        host,
    },
    plan::{Output, Plan, Step},
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

/// What the plan needs to know.
struct AskFacts {
    build: BuildFacts,
    has_devserver_image: bool,
    server_port: u16,
    /// Makes the names of this run differ from those of another at the same time.
    run_id: u32,
}

impl Ask {
    /// The client runs in a container of its own, from the devserver's image.
    fn client(
        &self,
        settings: &Settings,
        engine: &EngineFacts,
        env: &Env,
        facts: &AskFacts,
    ) -> Run {
        let network = engine.network(&Network::Auto);
        let host = engine.host_name_on(&network);
        let server = format!("{host}:{}", facts.server_port);
        let mut command = vec!["ask".to_owned(), "--server".to_owned(), server];
        for (flag, value) in [
            ("--session", &self.session),
            ("--agent", &self.agent),
            ("--model", &self.model),
        ] {
            if let Some(value) = value {
                command.extend([flag.to_owned(), value.clone()]);
            }
        }
        command.push(self.message.clone());
        let key = "STIGMER_API_KEY";
        let name = format!("{}-ask-{}", settings.run.container, facts.run_id);
        Run {
            labels: vec![(label::CONTAINER.to_owned(), "ask".to_owned())],
            mode: Mode::Foreground { tty: false },
            env_by_name: env
                .get(key)
                .map(|_| (key.to_owned(), None))
                .into_iter()
                .collect(),
            command,
            ..Run::restricted(&name, &devserver_image(settings), env.user, network)
        }
    }

    fn plan(&self, settings: &Settings, env: &Env, facts: &AskFacts) -> Result<Plan, Failure> {
        let engine = &facts.build.engine;
        let mut plan = Plan::default();
        if !facts.has_devserver_image {
            plan.steps
                .extend(build_devserver_steps(settings, &facts.build)?);
        }
        let client = self.client(settings, engine, env, facts);
        plan.push(Step::new(engine.run_as_image_user(&client), Output::Result));
        Ok(plan)
    }
}

impl Command for Ask {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let file = read_env_file(cx.settings, cx.env)?;
        let runner = RunnerEnv {
            settings: cx.settings,
            env: cx.env,
            file: file.as_ref(),
        };
        let server_port = Ports::of(&runner)?.server;
        if !cx.dry_run && !host::listens(&format!("localhost:{server_port}")) {
            return Err(Failure::new(format!(
                "nothing answers on localhost:{server_port}: no stigmer-server is running"
            ))
            .hint("start the stack: `cargo xtask up`")
            .into());
        }
        let build = BuildFacts::gather(cx)?;
        let facts = AskFacts {
            has_devserver_image: has_devserver_image(cx, &build.engine)?,
            build,
            server_port,
            run_id: std::process::id(),
        };
        let plan = self.plan(cx.settings, cx.env, &facts)?;
        cx.run_or_print(&plan).map(|_| ())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Ask {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let line = "ask --version dev-me --session mine hello";
        machine.examples(&[line], |command: &Self, settings, env| {
            let facts = AskFacts {
                build: machine.build_facts(),
                has_devserver_image: true,
                server_port: 7234,
                run_id: 7,
            };
            command.plan(settings, env, &facts)
        })
    }
}
