//! `cargo xtask`: builds, runs, tests and publishes the agent-runner container.
//!
//! One direction: arguments + environment + TOML → settings (pure) → facts (read-only) → plan (pure) →
//! run.
//!
//! The package `xtask` adds an HTTP client.

mod base;
mod build;
mod catalogue;
mod cli;
mod commands;
mod config;
mod credentials;
mod engine;
mod exec;
mod facts;
mod oci;
mod plan;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/properties/mod.rs"]
mod properties;
mod registry;
mod release;
mod settings;

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, error::ErrorKind};

use crate::{
    base::{
        env::Env,
        error::{self, Failure},
        github,
        invocation::Invocation,
        outdated,
        ui::{Ui, Verbosity},
    },
    cli::{Color, GlobalOptions},
    commands::{
        command::StandaloneContext,
        help,
        table::{Cli, GROUPS, Needs},
    },
    config::files,
    exec::{Exec, executor::DOCKER_DEFAULT_PLATFORM, handover, timings::Timings},
    facts::context::{Context, EngineMemory},
    registry::transport::no_http_client,
    settings::{EngineChoice, Settings, resolve::Arguments},
};

#[cfg(fuzzing)]
pub use crate::properties::fuzz;
/// What an HTTP client needs to implement [`Transport`].
pub use crate::registry::{
    address::Origin,
    certificates::{ClientCertificate, RegistryCertificates, of_system as system_authorities},
    request::{Authorization, Body, Form, Request, Upload},
    response::{NoResponse, ResponseHead},
    servers::Servers,
    transport::{NewTransport, Transport},
};

/// Runs the command of this process's arguments.
///
/// `transport`: the HTTP client. Without it, commands that need one are handed over to the program that has it.
pub fn run(transport: Option<NewTransport>) -> ExitCode {
    let env = match Env::capture() {
        Ok(env) => env,
        Err(error) => {
            let why = anyhow::Error::from(error).context("cannot find out the current folder");
            return ExitCode::from(error::report(&why, default_ui(Invocation::Binary)));
        }
    };
    let invocation = Invocation::of(&env);
    let name = invocation.command();
    let command = Cli::command().name(name).bin_name(name);
    let parsed = command.try_get_matches_from(&env.args);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => start(&cli, &env, ui(&cli.global, invocation), transport),
        Err(error) => report_parsing(&error, &env, default_ui(invocation)),
    }
}

fn start(cli: &Cli, env: &Env, ui: Ui, transport: Option<NewTransport>) -> ExitCode {
    let global = &cli.global;
    let command = match cli.command.needs() {
        Needs::Nothing(command) => {
            return finish(command.run(&surroundings(env, ui)), env, ui, None);
        }
        Needs::Registry(_) if transport.is_none() => {
            let failure = handover::to_xtask(env).unwrap_or_else(no_http_client);
            return finish(Err(failure.into()), env, ui, None);
        }
        Needs::Registry(command) | Needs::Configuration(command) => command,
    };
    let arguments = Arguments {
        version: command.version().map(str::to_owned),
        flavour: command.flavour().map(str::to_owned),
        overrides: [global.overrides(), command.overrides()].concat(),
    };
    let prepared = files::find(&env.cwd).and_then(|files| {
        let settings = Settings::resolve(&arguments, env, &files)?;
        let exec = Exec::new(ui, Timings::new(global.timings))?;
        Ok((settings, exec))
    });
    let (settings, exec) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return finish(Err(error), env, ui, None),
    };
    outdated::hint(env, ui, &settings.root);
    if global.dry_run && env.get(DOCKER_DEFAULT_PLATFORM).is_some() {
        ui.hint("run these commands without `DOCKER_DEFAULT_PLATFORM`, as xtask does");
    }
    let done = command.run(&Context {
        env,
        settings: &settings,
        exec: &exec,
        ui,
        dry_run: global.dry_run,
        arguments: &arguments,
        engines: &EngineMemory::default(),
        transport,
    });
    exec.show_timings();
    finish(done, env, ui, Some(&settings.build.dockerfile))
}

/// Shows a failure, and returns the exit code.
fn finish(done: Result<()>, env: &Env, ui: Ui, dockerfile: Option<&str>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    let code = error::report(&error, ui);
    if github::is_active(env)
        && let Some(failure) = error.downcast_ref::<Failure>()
    {
        ui.print_unchanged(&github::annotation(failure, dockerfile));
    }
    ExitCode::from(code)
}

/// Prints what clap reports: help, the version, or an invalid call. The help of all commands is [`help`]'s.
fn report_parsing(error: &clap::Error, env: &Env, ui: Ui) -> ExitCode {
    let names_command = Cli::command()
        .disable_help_flag(true)
        .ignore_errors(true)
        .try_get_matches_from(&env.args)
        .is_ok_and(|matches| matches.subcommand_name().is_some());
    match error.kind() {
        ErrorKind::DisplayHelp if !names_command => {
            let help = help::help_of_all_commands(Cli::command(), GROUPS, env);
            let _ = ui.print_prose(&help);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !names_command => {
            let help = help::help_of_all_commands(Cli::command(), GROUPS, env);
            ui.print_unchanged(&ui.invocation.adapt(&help));
        }
        _ => {
            let _ = error.print();
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE))
}

fn surroundings(env: &Env, ui: Ui) -> StandaloneContext<'_> {
    StandaloneContext {
        env,
        ui,
        cli: Cli::command(),
        groups: GROUPS,
    }
}

/// Used until the arguments have been parsed.
fn default_ui(invocation: Invocation) -> Ui {
    Ui {
        verbosity: Verbosity::Normal,
        live: false,
        invocation,
        engine: None,
    }
}

fn ui(global: &GlobalOptions, invocation: Invocation) -> Ui {
    match global.color {
        // anstream decides by NO_COLOR, CLICOLOR_FORCE, TERM and whether this is a terminal.
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    Ui {
        verbosity: match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        },
        live: std::io::stderr().is_terminal(),
        invocation,
        engine: global
            .engine
            .filter(|engine| *engine != EngineChoice::Auto)
            .map(EngineChoice::word),
    }
}
