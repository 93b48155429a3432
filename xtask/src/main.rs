//! `cargo xtask`: builds, runs, tests and manages the agent-runner container.
//!
//! One direction: arguments + environment + TOML → settings (pure) → facts (read-only) →
//! plan (pure) → run.

#![cfg_attr(fuzzing, no_main, allow(dead_code))] // libFuzzer brings its own main

mod called;
mod catalogue;
mod cli;
mod commands;
mod config;
mod credentials;
mod engine;
mod env;
mod error;
mod exec;
mod help;
mod image;
mod oci;
mod outdated;
#[cfg(test)]
mod pages;
mod plan;
mod probe;
#[cfg(any(test, fuzzing))]
mod properties;
mod registry;
mod release;
mod secret;
mod settings;
mod sources;
mod time;
mod timings;
mod ui;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches};

use crate::{
    called::Called,
    cli::{Cli, Color},
    env::Env,
    error::Failure,
    exec::Exec,
    settings::Settings,
    timings::Timings,
    ui::{Ui, Verbosity},
};

fn main() -> ExitCode {
    let env = match Env::capture() {
        Ok(env) => env,
        Err(error) => {
            let why = anyhow::Error::from(error).context("cannot tell the current folder");
            return ExitCode::from(error::show(&why, plain_ui(Called::ByItself)));
        }
    };
    let called = Called::of(&env);
    let command = Cli::command().bin_name(called.words());
    let parsed = command.try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return help::print_clap(&error, &env, plain_ui(called)),
    };
    let ui = ui_for(&cli, called);
    match start(&cli, &env, ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error::show(&error, ui);
            if commands::github::is_here(&env)
                && let Some(failure) = error.downcast_ref::<Failure>()
            {
                ui.raw(&commands::github::annotation(failure, "Dockerfile"));
            }
            ExitCode::from(code)
        }
    }
}

fn start(cli: &Cli, env: &Env, ui: Ui) -> Result<()> {
    let exec = Exec::new(ui, Timings::new(cli.global.timings))?;
    if commands::without_settings(cli, env, ui)? {
        return Ok(());
    }
    let files = config::find(&env.cwd)?;
    let settings = Settings::resolve(cli, env, &files)?;
    outdated::hint(env, ui, &files.root);
    let done = commands::run(
        cli,
        &commands::Context {
            env,
            settings: &settings,
            exec: &exec,
            ui,
            dry_run: cli.global.dry_run,
        },
    );
    exec.show_timings();
    done
}

/// Before it is known what was typed.
fn plain_ui(called: Called) -> Ui {
    Ui {
        verbosity: Verbosity::Normal,
        live: false,
        called,
    }
}

fn ui_for(cli: &Cli, called: Called) -> Ui {
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
        called,
    }
}
