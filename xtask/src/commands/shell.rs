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
    // Bash where the image has it: line editing and history. Its prompt goes to standard error,
    // so nothing may be redirected on its way in.
    const SHELL: &str = "if command -v bash >/dev/null; then exec bash; fi; exec sh";
    let shell = || ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec();
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
