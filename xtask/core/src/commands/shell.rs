//! `shell`: a shell, or another command, in the running container.

use anyhow::Result;
use clap::Args;

use crate::{
    commands::command::Command,
    engine::Engine,
    facts::context::{Context, not_running_failure, paused_failure},
    plan::{Output, Plan, Step},
    settings::Settings,
};

/// Bash if the image has it, for line editing and history. Bash prints its prompt to standard error, so
/// that must stay the terminal.
const SHELL: &str = "if command -v bash >/dev/null; then exec bash; fi; exec sh";

/// Open a shell in the running container
#[derive(Args, Clone, Debug)]
pub struct Shell {
    /// A command to run instead of a shell
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

impl Shell {
    fn plan(&self, settings: &Settings, engine: &Engine, tty: bool) -> Plan {
        let shell = || ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec();
        let argv = if self.command.is_empty() {
            shell()
        } else {
            self.command.clone()
        };
        let cmd = engine.exec_interactive(&settings.run.container, tty, &argv);
        vec![Step::new(cmd, Output::ReplaceProcess)].into()
    }
}

impl Command for Shell {
    fn run(&self, cx: &Context) -> Result<()> {
        let name = &cx.settings.run.container;
        let search = cx.search(name)?;
        let found = search.one_of_ours(cx)?;
        let engine = match found {
            Some((engine, container))
                if cx.dry_run || !container.state.is_paused() && container.state.is_up() =>
            {
                engine
            }
            Some((engine, container)) if container.state.is_paused() => {
                return Err(paused_failure(&engine, name).into());
            }
            Some(_) => return Err(not_running_failure(name).into()),
            None => match search.any_engine() {
                Some(engine) if cx.dry_run => engine,
                _ => {
                    search.fail_if_silent()?;
                    return Err(not_running_failure(name).into());
                }
            },
        };
        let tty = cx.env.stdin_tty && cx.env.stdout_tty;
        cx.run_or_print(&self.plan(cx.settings, &engine, tty))
            .map(|_| ())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Shell {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(
            &["shell", "shell ls -l /workspace"],
            |command: &Self, settings, _| {
                Ok(command.plan(settings, &machine.engine().engine, true))
            },
        )
    }
}
