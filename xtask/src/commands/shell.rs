//! `shell`: a shell, or another command, in the running container.

use anyhow::Result;

use super::{Context, not_running};
use crate::{
    cli::ShellArgs,
    engine::Engine,
    plan::{Output, Plan, Step},
    settings::Settings,
};

pub fn plan(settings: &Settings, engine: &Engine, args: &ShellArgs, tty: bool) -> Plan {
    // Bash where the image has it: line editing and history.
    let shell = || {
        ["/bin/sh", "-c", "exec bash 2>/dev/null || exec sh"]
            .map(str::to_owned)
            .to_vec()
    };
    let argv = if args.command.is_empty() {
        shell()
    } else {
        args.command.clone()
    };
    let cmd = engine.exec_interactive(&settings.run.container, tty, &argv);
    Plan {
        steps: vec![Step::new(cmd, Output::Handover)],
    }
}

pub fn run(cx: &Context, args: &ShellArgs) -> Result<()> {
    let (engine, container) = cx.our_container()?;
    if !cx.dry_run && !container.is_some_and(|container| container.state.running) {
        return Err(not_running(&cx.settings.run.container).into());
    }
    let tty = cx.env.stdin_tty && cx.env.stdout_tty;
    cx.carry_out(&plan(cx.settings, &engine, args, tty))
        .map(|_| ())
}
