//! What the start of the container needs to know.

use anyhow::Result;

use crate::{
    base::env::{Env, Os},
    commands::run_local::{
        mounts::{Mount, mount},
        network::has_network,
    },
    facts::{
        context::{Context, EngineQuery, EngineState},
        environment::{EnvFile, RunnerEnv, read_env_file},
        host,
    },
    settings::Settings,
};

/// The command that starts the container. `down` removes what `up` started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    RunLocal,
    Up,
}

/// What the plan needs to know.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub state: EngineState,
    pub reference: String,
    /// The mounts, in the settings' order.
    pub mounts: Vec<Mount>,
    pub selinux_enforcing: bool,
    /// Whether the configured network exists; with `container:NAME`, whether that container exists.
    pub has_network: bool,
    pub env_file: Option<EnvFile>,
    pub started_by: StartedBy,
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
        Ok(Self {
            mounts,
            has_network: has_network(cx, &state.engine)?,
            selinux_enforcing: cx.env.os == Os::Linux && host::selinux_enforcing(),
            env_file: read_env_file(settings, cx.env)?,
            state,
            reference,
            started_by,
        })
    }

    pub(super) fn runner_env<'a>(&'a self, settings: &'a Settings, env: &'a Env) -> RunnerEnv<'a> {
        RunnerEnv {
            settings,
            env,
            file: self.env_file.as_ref(),
        }
    }
}
