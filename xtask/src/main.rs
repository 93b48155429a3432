//! `cargo xtask`: builds, runs, tests and manages the agent-runner container.
//!
//! One direction: arguments + environment + TOML → settings (pure) → facts (read-only) →
//! plan (pure) → run.

mod catalogue;
mod cli;
mod commands;
mod config;
mod engine;
mod env;
mod error;
mod exec;
mod help;
mod image;
mod oci;
mod plan;
mod probe;
mod registry;
mod release;
mod secret;
mod settings;
mod timings;
mod ui;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::{
    cli::{Cli, Color},
    env::Env,
    error::Failure,
    exec::Exec,
    settings::Settings,
    timings::Timings,
    ui::{Ui, Verbosity},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return help::print_clap(&error),
    };
    let ui = ui_for(&cli);
    match start(&cli, ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error::show(&error, ui);
            if let Ok(env) = Env::capture()
                && commands::github::is_here(&env)
                && let Some(failure) = error.downcast_ref::<Failure>()
            {
                ui.raw(&commands::github::annotation(failure, "Dockerfile"));
            }
            ExitCode::from(code)
        }
    }
}

fn start(cli: &Cli, ui: Ui) -> Result<()> {
    let env = Env::capture()?;
    let exec = Exec::new(ui, Timings::new(cli.global.timings))?;
    if commands::without_settings(cli, &env, ui)? {
        return Ok(());
    }
    let files = config::find(&env.cwd)?;
    let settings = Settings::resolve(cli, &env, &files)?;
    let done = commands::run(
        cli,
        &commands::Context {
            env: &env,
            settings: &settings,
            exec: &exec,
            ui,
            dry_run: cli.global.dry_run,
        },
    );
    exec.show_timings();
    done
}

fn ui_for(cli: &Cli) -> Ui {
    match cli.global.color {
        // NO_COLOR, CLICOLOR_FORCE, TERM and terminals are anstream's to know.
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    Ui {
        verbosity: match (cli.global.quiet, cli.global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        },
        live: std::io::IsTerminal::is_terminal(&std::io::stderr()),
    }
}
