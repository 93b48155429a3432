//! What the start of the container needs to know.

use anyhow::Result;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
    },
    commands::{
        run_local::{
            mounts::{Mount, mount},
            network::{NetworkState, network_state},
            ports::used_by_others,
        },
        stack::{Names, Ports, belongs_to_stack, scripted_model, serves},
    },
    engine::container::{self, Container, Owner, STIGMER_CLI_CONTAINER},
    exec::Finished,
    facts::{
        context::{Context, EngineQuery, EngineState},
        environment::{EnvFile, RunnerEnv, read_env_file},
        host,
        model::Model,
    },
    settings::Settings,
};

/// The command that starts the container. `down` removes what `up` started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    RunLocal,
    Up {
        /// Whether the stigmer-server is the one of `up`, which has the scripted model.
        has_own_server: bool,
    },
}

/// What the plan needs to know.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub state: EngineState,
    pub reference: String,
    /// The mounts, in the settings' order.
    pub mounts: Vec<Mount>,
    pub selinux_enforcing: bool,
    pub network: NetworkState,
    /// The ports to publish on which another program listens.
    pub used_ports: Vec<u16>,
    pub env_file: Option<EnvFile>,
    /// Whether the container belongs to the stack of `up`, so that `down` removes it.
    pub is_in_stack: bool,
    /// The engine's log driver for new containers; empty if it does not matter or is not known.
    pub log_driver: String,
    /// Whether the stigmer CLI's runner runs beside this one.
    pub stigmer_cli_runs: bool,
    /// Another engine in which our container of this name runs.
    pub runs_in: Option<EngineKind>,
    /// The variables of the scripted model; empty if the runner does not use it.
    pub scripted_model: Vec<(&'static str, String)>,
}

impl RunFacts {
    /// Asks the engine and this machine.
    ///
    /// # Errors
    /// When no engine answers, and when a folder or a file of the settings cannot be used.
    pub fn gather(cx: &Context, started_by: StartedBy) -> Result<Self> {
        let settings = cx.settings;
        let reference = cx.reference()?;
        let state = cx.query_engine(EngineQuery {
            container: Some(&settings.run.container),
            images: std::slice::from_ref(&reference),
        })?;
        let mounts = settings.mounts();
        let mounts = mounts
            .iter()
            .map(|volume| mount(volume, settings, cx.env))
            .collect::<Result<_, _>>()?;
        let env_file = read_env_file(settings, cx.env)?;
        let runner = RunnerEnv {
            settings,
            env: cx.env,
            file: env_file.as_ref(),
            scripted: &[],
        };
        let stack = stack_of(cx, &state, started_by, &runner)?;
        Ok(Self {
            mounts,
            is_in_stack: stack.is_in_stack,
            scripted_model: scripted_model(&runner, stack.has_own_server),
            network: network_state(cx, &state)?,
            used_ports: used_by_others(settings, &state.engine, state.container.as_ref()),
            log_driver: log_driver(cx, &state),
            stigmer_cli_runs: stigmer_cli_runs(cx, &state),
            runs_in: runs_in(cx, &state),
            selinux_enforcing: cx.env.os == Os::Linux && host::selinux_enforcing(),
            env_file,
            state,
            reference,
        })
    }

    pub(super) fn runner_env<'a>(&'a self, settings: &'a Settings, env: &'a Env) -> RunnerEnv<'a> {
        RunnerEnv {
            settings,
            env,
            file: self.env_file.as_ref(),
            scripted: &self.scripted_model,
        }
    }
}

/// The engine's log driver. Empty if the engine does not answer: the container then starts without a limit for
/// its log.
fn log_driver(cx: &Context, state: &EngineState) -> String {
    let question = state.engine.log_driver_question();
    let answer = question.and_then(|question| cx.ask(&question).ok());
    let answer = answer.filter(Finished::ok);
    answer.map_or_else(String::new, |done| done.stdout.trim().to_owned())
}

/// Whether the runner of the stigmer CLI runs beside the container that is started. The CLI uses Docker.
fn stigmer_cli_runs(cx: &Context, state: &EngineState) -> bool {
    // A project without a model has nothing to do with stigmer.
    if !Model::is_used_by(cx.settings) {
        return false;
    }
    // In this engine, a container of the same name is replaced or refused.
    let has_its_name = cx.settings.run.container == STIGMER_CLI_CONTAINER;
    let not_in = has_its_name.then_some(state);
    !engines_that_run(
        cx,
        STIGMER_CLI_CONTAINER,
        not_in,
        Container::is_of_stigmer_cli,
    )
    .is_empty()
}

/// Another engine in which our container of this name runs.
fn runs_in(cx: &Context, state: &EngineState) -> Option<EngineKind> {
    let is_ours = |container: &Container| container.owner() == Owner::Xtask;
    let found = engines_that_run(cx, &cx.settings.run.container, Some(state), is_ours);
    found.into_iter().next()
}

/// The engines in which such a container of this name runs, but for one engine. It asks all engines of this machine,
/// also those that the settings do not choose. An engine that does not answer is left out.
pub fn engines_that_run(
    cx: &Context,
    name: &str,
    not_in: Option<&EngineState>,
    is_meant: impl Fn(&Container) -> bool,
) -> Vec<EngineKind> {
    let ask = |program| {
        let answer = cx.ask(&container::inspect_cmd(program, name));
        container::read_inspect(program, &answer)
    };
    let excluded = not_in.map(|state| state.engine.engine.kind.program());
    // Two programs can be clients of the same engine.
    let known = not_in.and_then(|state| Some(&state.container.as_ref()?.id));
    let programs = EngineKind::ALL.iter().map(|kind| kind.program());
    let others =
        programs.filter(|program| Some(*program) != excluded && cx.find_program(program).is_some());
    others
        .filter_map(|program| {
            let (engine, found) = cx.ask_one(program, ask).ok()?;
            let found = found?;
            let is_it = known != Some(&found.id) && found.state.is_up() && is_meant(&found);
            is_it.then_some(engine.kind)
        })
        .collect()
}

/// How the container relates to the stack of `up`.
struct Stack {
    is_in_stack: bool,
    has_own_server: bool,
}

/// A runner that `run-local` or `watch` starts belongs to the stack if it replaces a runner of the
/// stack, or if the stack's server exists. It uses that server only if its address has the server's port.
fn stack_of(
    cx: &Context,
    state: &EngineState,
    started_by: StartedBy,
    runner: &RunnerEnv,
) -> Result<Stack> {
    if let StartedBy::Up { has_own_server } = started_by {
        return Ok(Stack {
            is_in_stack: true,
            has_own_server,
        });
    }
    let names = Names::for_runner(&cx.settings.run.container);
    let is_in_stack = |container: &Container| belongs_to_stack(cx.settings, container);
    let server = cx.container_of(&state.engine.engine, &names.server)?;
    let server = server.filter(is_in_stack);
    Ok(Stack {
        is_in_stack: server.is_some() || state.container.as_ref().is_some_and(is_in_stack),
        has_own_server: Ports::of(runner).is_ok_and(|ports| {
            server.is_some_and(|server| server.state.is_up() && serves(&server, ports.server))
        }),
    })
}
