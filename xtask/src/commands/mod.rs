//! One file a command: mostly a pure `plan` from settings and facts, and a thin `run`.

mod build_image;
mod check;
mod checks;
mod clean;
mod completions;
mod config;
mod docker_login;
mod doctor;
mod explain;
mod findings;
mod health;
mod logs;
mod publish;
pub mod run_local;
mod shell;
mod stack;
mod status;
mod stop;
mod test_image;
pub mod watch;

#[cfg(test)]
mod snapshots;

pub use self::publish::{github, preflight::Options};

use anyhow::Result;

use crate::{
    cli::{Cli, Command},
    engine::{
        Engine,
        container::{Container, Owner},
    },
    env::Env,
    error::Failure,
    exec::Exec,
    help,
    plan::Plan,
    probe::{self, Probe},
    settings::{GitValues, Settings},
    ui::Ui,
};

/// What a command works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub env: &'a Env,
    pub settings: &'a Settings,
    pub exec: &'a Exec,
    pub ui: Ui,
    pub dry_run: bool,
}

impl Context<'_> {
    pub fn probe(&self) -> Probe<'_> {
        Probe {
            exec: self.exec,
            env: self.env,
            engine: &self.settings.engine,
        }
    }

    /// The image that the version names.
    fn reference(&self) -> Result<String> {
        Ok(self.settings.reference(&self.git_values())?)
    }

    /// What the tags' templates take from git. Only one that takes something makes us ask git.
    fn git_values(&self) -> GitValues {
        let tags = &self.settings.channel.tags;
        if tags.iter().any(|tag| tag.contains("{git.")) {
            probe::git(self.exec, &self.settings.root).values
        } else {
            GitValues::default()
        }
    }

    /// Prints the plan, or runs it. Says whether it ran.
    fn carry_out(&self, plan: &Plan) -> Result<Ran> {
        if self.dry_run {
            self.ui.result(&plan.render())?;
            return Ok(Ran::No);
        }
        self.exec.run(plan)?;
        Ok(Ran::Yes)
    }

    /// Our own container of the configured name, if there is one.
    fn our_container(&self) -> Result<(Engine, Option<Container>)> {
        let name = &self.settings.run.container;
        let (engine, container) = self.probe().container(name)?;
        match container {
            Some(container) => {
                refuse_foreign(name, &container)?;
                Ok((engine, Some(container)))
            }
            None => Ok((engine, None)),
        }
    }
}

/// Whether a plan ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    Yes,
    No,
}

/// What is not ours is not touched.
fn refuse_foreign(name: &str, container: &Container) -> Result<(), Failure> {
    match container.owner() {
        Owner::Us => Ok(()),
        Owner::Somebody => Err(Failure::new(format!(
            "the container `{name}` is not ours: it runs `{}`, {} ({}, created {})",
            container.image(),
            container.looks_like(),
            container.state.status,
            container.created.split('.').next().unwrap_or_default(),
        ))
        .hint("give ours another name: `run.container` in `xtask.local.toml`, or `XTASK_RUN_CONTAINER`")
        .hint(format!("or, if you don't need it, remove that one yourself: `docker rm {name}` or `podman rm {name}`"))),
    }
}

fn not_running(name: &str) -> Failure {
    Failure::new(format!("the container `{name}` is not running"))
        .hint("start it: `cargo xtask run-local`")
}

/// The commands that need neither a configuration nor an engine. Says whether it was one.
///
/// # Errors
/// When the result cannot be written.
pub fn without_settings(cli: &Cli, env: &Env, ui: Ui) -> Result<bool> {
    match &cli.command {
        Command::Help { command: None } => ui.words(&help::text(env))?,
        Command::Help {
            command: Some(name),
        } => ui.words(&help::of_command(name)?)?,
        Command::Explain { code } => explain::run(code.as_deref(), ui)?,
        Command::Completions { shell } => completions::run(*shell, ui)?,
        Command::Check(_)
        | Command::BuildImage(_)
        | Command::RunLocal(_)
        | Command::Watch(_)
        | Command::TestImage(_)
        | Command::Logs(_)
        | Command::Status(_)
        | Command::Shell(_)
        | Command::Stop
        | Command::Up(_)
        | Command::Down
        | Command::Ask(_)
        | Command::Smoke(_)
        | Command::Clean(_)
        | Command::DockerLogin(_)
        | Command::PushImage(_)
        | Command::BuildMultiarch(_)
        | Command::PushMultiarch(_)
        | Command::PushArchive(_)
        | Command::VerifyImage(_)
        | Command::PackArchive(_)
        | Command::CiCheck(_)
        | Command::Formula(_)
        | Command::Doctor(_)
        | Command::Config(_) => return Ok(false),
    }
    Ok(true)
}

/// Runs a command.
///
/// # Errors
/// The command's failure.
pub fn run(cli: &Cli, cx: &Context) -> Result<()> {
    match &cli.command {
        Command::Check(args) => check::run(cx, args),
        Command::BuildImage(args) => build_image::run(cx, args),
        Command::RunLocal(args) => run_local::run(cx, args),
        Command::Watch(args) => watch::run(cx, cli, args),
        Command::TestImage(args) => test_image::run(cx, args),
        Command::Logs(args) => logs::run(cx, args),
        Command::Status(args) => status::run(cx, args),
        Command::Shell(args) => shell::run(cx, args),
        Command::Stop => stop::run(cx),
        Command::Up(args) => stack::up::run(cx, args),
        Command::Down => stack::down::run(cx),
        Command::Ask(args) => stack::ask::run(cx, args),
        Command::Smoke(args) => stack::smoke::run(cx, args),
        Command::Clean(args) => clean::run(cx, args),
        Command::DockerLogin(args) => docker_login::run(cx, args),
        Command::PushImage(args) => publish::push::run_image(cx, args),
        Command::BuildMultiarch(args) => publish::build_multiarch::run(cx, args),
        Command::PushMultiarch(args) => publish::push::run_multiarch(cx, args),
        Command::PushArchive(args) => publish::push::run_archive(cx, args),
        Command::VerifyImage(args) => publish::verify_image::run(cx, args),
        Command::PackArchive(args) => publish::archive::run(cx, args),
        Command::CiCheck(args) => publish::ci_check::run(cx, args),
        Command::Formula(args) => publish::formula::run(cx, args),
        Command::Doctor(args) => doctor::run(cx, args),
        Command::Config(args) => config::run(cx, args),
        Command::Explain { .. } | Command::Completions { .. } | Command::Help { .. } => Ok(()),
    }
}
