//! `logs`: the container's log; on a terminal it follows.

use anyhow::Result;

use super::Context;
use crate::{
    cli::LogsArgs,
    engine::Engine,
    error::Failure,
    plan::{Output, Plan, Step},
    settings::Settings,
};

/// Whether to go on showing what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    Yes,
    No,
}

pub fn plan(settings: &Settings, engine: &Engine, args: &LogsArgs, follow: Follow) -> Plan {
    let cmd = engine.logs(
        &settings.run.container,
        follow == Follow::Yes,
        args.tail,
        args.since.as_deref(),
    );
    Plan {
        steps: vec![Step::new(cmd, Output::Handover)],
    }
}

pub fn run(cx: &Context, args: &LogsArgs) -> Result<()> {
    let name = &cx.settings.run.container;
    let (engine, container) = cx.our_container()?;
    if container.is_none() && !cx.dry_run {
        return Err(Failure::new(format!("there is no container `{name}`"))
            .hint("start it: `cargo xtask run-local`")
            .into());
    }
    let follow = args.follow || (cx.env.stdout_tty && !args.no_follow);
    let follow = if follow { Follow::Yes } else { Follow::No };
    cx.carry_out(&plan(cx.settings, &engine, args, follow))
        .map(|_| ())
}
