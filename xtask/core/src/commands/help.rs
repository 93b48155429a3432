//! `help`: clap's, with the commands in groups and the effective configuration below.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, builder::PossibleValue};

use crate::{
    base::{env::Env, error::Failure},
    commands::command::{Group, Standalone, StandaloneContext},
    config::{files, schema::closest_match},
    settings::{GitValues, Publish, Settings, resolve::Arguments},
};

/// Show help, also for a command
#[derive(Args, Clone, Debug)]
pub struct Help {
    /// The command [default: the list of all commands]
    command: Option<String>,
}

impl Standalone for Help {
    fn run(&self, cx: &StandaloneContext) -> Result<()> {
        let text = match &self.command {
            None => help_of_all_commands(cx.cli.clone(), cx.groups, cx.env),
            Some(name) => help_of_command(cx.cli.clone(), name)?,
        };
        Ok(cx.ui.print_prose(&text)?)
    }
}

/// The help of all commands.
pub fn help_of_all_commands(mut cli: clap::Command, groups: &[Group], env: &Env) -> String {
    cli.build();
    let text = |styled: Option<&clap::builder::StyledStr>| {
        styled.map(ToString::to_string).unwrap_or_default()
    };
    let about = text(cli.get_about());
    let mut out = format!("{about}\n\nUsage: cargo xtask <COMMAND> [OPTIONS]\n");
    for group in groups {
        let _ = writeln!(out, "\n{}:", group.heading);
        for name in group.commands {
            let about = cli.find_subcommand(name).and_then(clap::Command::get_about);
            let _ = writeln!(out, "  {name:<17}{}", text(about));
        }
    }
    out.push_str("\nOptions of every command:\n");
    for arg in cli.get_arguments() {
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
        let words = arg.get_possible_values();
        let words: Vec<_> = words.iter().map(PossibleValue::get_name).collect();
        let words = if value.is_empty() || words.is_empty() {
            String::new()
        } else {
            format!(" [{}]", words.join(", "))
        };
        let _ = writeln!(out, "  {option:<25}{}{words}", text(arg.get_help()));
    }
    out.push_str(&configuration(env));
    out
}

/// The settings that people look for first. If the configuration cannot be read, one line says so.
fn configuration(env: &Env) -> String {
    let settings = files::find(&env.cwd)
        .and_then(|files| Ok(Settings::resolve(&Arguments::default(), env, &files)?));
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            let why = why.to_string();
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
        Publish::ByName => "published only if --version names it",
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
            "workspace",
            settings.run.workspace.clone(),
            origin("run.workspace"),
        ),
        (
            "engine",
            settings.engine.prefer.word().to_owned(),
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

/// The help of one command, as clap renders it.
///
/// # Errors
/// When there is no such command.
fn help_of_command(mut cli: clap::Command, name: &str) -> Result<String, Failure> {
    cli.build();
    let known: Vec<_> = cli
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    cli.find_subcommand_mut(name)
        .map(|command| command.render_long_help().to_string())
        .ok_or_else(|| {
            let failure = Failure::usage(format!("there is no command `{name}`"));
            match closest_match(name, known.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("list them: `cargo xtask help`"),
            }
        })
}

#[cfg(test)]
impl crate::commands::testing::Examples for Help {}
