//! Help: clap's, with the commands grouped and the effective configuration below.

use std::{fmt::Write as _, process::ExitCode};

use clap::{ColorChoice, CommandFactory, Parser, error::ErrorKind};

use crate::{
    cli::{Cli, GROUPS},
    config::{self, schema::nearest},
    env::Env,
    error::Failure,
    settings::{GitValues, Publish, Settings},
    ui::Ui,
};

/// Prints what clap has to say, help or a wrong call, with its exit code.
pub fn print_clap(error: &clap::Error, env: &Env, ui: Ui) -> ExitCode {
    let top_level = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) && error
        .render()
        .to_string()
        .contains(&format!("Usage: {} [OPTIONS] <COMMAND>", ui.called.words()));
    if top_level {
        if error.kind() == ErrorKind::DisplayHelp {
            let _ = ui.words(&text(env));
        } else {
            ui.raw(&ui.called.say(&text(env)));
        }
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The whole help.
pub fn text(env: &Env) -> String {
    let command = Cli::command().color(ColorChoice::Never);
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut out = format!("{about}\n\nUsage: cargo xtask <COMMAND> [OPTIONS]\n");
    for (group, names) in GROUPS {
        let _ = writeln!(out, "\n{group}:");
        for name in *names {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            let _ = writeln!(out, "  {name:<17}{about}");
        }
    }
    out.push_str("\nOptions of every command:\n");
    for arg in command.get_arguments() {
        let long = arg.get_long().unwrap_or_default();
        let short = arg
            .get_short()
            .map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = arg
            .get_action()
            .takes_values()
            .then(|| arg.get_value_names().unwrap_or_default())
            .and_then(|names| names.first())
            .map_or(String::new(), |name| format!(" <{name}>"));
        let option = format!("{short}--{long}{value}");
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "  {option:<36}{about}");
    }
    out.push_str("  -h, --help                          Print help, also for a command\n");
    out.push_str(&configuration(env));
    out
}

/// The part of the configuration that people look for first. Help needs none: where it cannot
/// be read, that is said and no more.
fn configuration(env: &Env) -> String {
    let defaults = Cli::try_parse_from(["xtask", "config"]).map_err(|error| error.to_string());
    let settings = config::find(&env.cwd)
        .map_err(|error| error.to_string())
        .and_then(|files| {
            Settings::resolve(&defaults?, env, &files).map_err(|error| error.to_string())
        });
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            let first = why.lines().next().unwrap_or_default();
            return format!("\nConfiguration: {first} (see `cargo xtask config`)\n");
        }
    };
    let origin = |path: &str| {
        settings
            .layer
            .get(path)
            .map(|value| value.origin.to_string())
            .unwrap_or_default()
    };
    let tags = settings
        .tags(&GitValues::default())
        .map_or_else(|_| settings.channel.tags.join(", "), |tags| tags.join(", "));
    let publish = match settings.channel.publish {
        Publish::Yes => "published",
        Publish::ByName => "published only by name",
        Publish::No => "never published",
    };
    let rows = [
        (
            "version",
            settings.version.value.to_string(),
            settings.version.origin.to_string(),
        ),
        (
            "channel",
            format!("{}, {publish}", settings.channel.name),
            String::new(),
        ),
        ("tags", tags, String::new()),
        (
            "image",
            settings.image.repository.as_str().to_owned(),
            origin("image.repository"),
        ),
        (
            "base image",
            settings.build.base_image.clone(),
            origin("build.base-image"),
        ),
        (
            "container",
            settings.run.container.clone(),
            origin("run.container"),
        ),
        (
            "volumes",
            settings.run.volumes.join(", "),
            origin("run.volumes"),
        ),
        (
            "engine",
            format!("{:?}", settings.engine.prefer).to_lowercase(),
            origin("engine.prefer"),
        ),
    ];
    let mut out = "\nConfiguration (all of it: `cargo xtask config`):\n".to_owned();
    for (name, value, origin) in rows {
        let origin = if origin.is_empty() {
            origin
        } else {
            format!("  # {origin}")
        };
        let _ = writeln!(out, "  {name:<12}{value}{origin}");
    }
    out
}

/// One command's help, as clap has it.
///
/// # Errors
/// When there is no such command.
pub fn of_command(name: &str) -> Result<String, Failure> {
    let mut command = Cli::command();
    command.build();
    command
        .find_subcommand_mut(name)
        .map(|command| command.render_long_help().to_string())
        .ok_or_else(|| {
            let known = GROUPS.iter().flat_map(|(_, names)| names.iter().copied());
            let failure = Failure::usage(format!("there is no command `{name}`"));
            match nearest(name, known) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("`cargo xtask help` lists them"),
            }
        })
}
