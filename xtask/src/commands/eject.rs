//! `--eject`: a command as a script, or why it cannot be one.

use anyhow::Result;

use super::{
    Context, build_image, check,
    docker_login::{self, TokenFrom},
    health, logs, run_local,
    run_local::{
        StartedBy,
        environment::container_env,
        mounts::{Mount, folder_steps},
    },
    shell, stop,
};
use crate::{
    cli::{BuildArgs, CheckArgs, Cli, Command, LoginArgs, LogsArgs, RunArgs, ShellArgs},
    config::schema::SecretSource,
    engine::{EngineFacts, container::Container, image::Image},
    error::Failure,
    oci::timestamps,
    plan::{EnvValue, Plan},
    probe::Folder,
    script::{Must, Script},
    settings::{Publish, Settings},
};

/// Who wants such a command without Rust.
const BINARY: &str = "a machine without Rust can run a binary: docs/without-rust.md";

/// # Errors
/// When the command cannot be a script, or its plan cannot be made.
pub fn run(cx: &Context, cli: &Cli) -> Result<()> {
    let script = match &cli.command {
        Command::Check(args) => check(cx, args)?,
        Command::BuildImage(args) => build_image(cx, args)?,
        Command::RunLocal(args) => run_local(cx, args)?,
        Command::Logs(args) => logs(cx, args)?,
        Command::Shell(args) => shell(cx, args)?,
        Command::Stop => stop(cx)?,
        Command::DockerLogin(args) => docker_login(cx, args)?,
        Command::PushImage(_)
        | Command::PushMultiarch(_)
        | Command::PushArchive(_)
        | Command::VerifyImage(_)
        | Command::BuildMultiarch(_)
        | Command::PackArchive(_)
        | Command::CiCheck(_)
        | Command::Formula(_) => {
            return refuse(
                "what is released is looked at by xtask itself, and a script could not do that",
                BINARY,
            );
        }
        Command::TestImage(_) | Command::Smoke(_) => {
            return refuse(
                "xtask itself judges the image, and a script could not do that",
                BINARY,
            );
        }
        Command::Up(_) | Command::Down | Command::Ask(_) => {
            return refuse("what it does depends on what answers when it runs", BINARY);
        }
        Command::Watch(_) => {
            return refuse(
                "it would have to look for changes itself",
                "its two halves can be scripts: `cargo xtask build-image --eject`, `cargo xtask run-local --eject`",
            );
        }
        Command::Clean(_) => {
            return refuse(
                "what it removes is what is there when it runs",
                "what it would remove now: `cargo xtask clean --dry-run`",
            );
        }
        Command::Status(_)
        | Command::Doctor(_)
        | Command::Config(_)
        | Command::Explain { .. }
        | Command::Completions { .. }
        | Command::Help { .. } => return refuse("what it prints is xtask's own", BINARY),
    };
    Ok(cx.ui.result(&script.render())?)
}

fn refuse(why: &str, hint: &str) -> Result<()> {
    Err(
        Failure::usage(format!("this command cannot be a script: {why}"))
            .hint(hint)
            .into(),
    )
}

/// A script of this plan, with nothing around it.
fn script(cx: &Context, name: &str, engine: &str, program: &str, plan: Plan) -> Script {
    let settings = cx.settings;
    let made_of = format!(
        "`{name}` for the version {}, as xtask {} of {} does it with {engine}.",
        settings.version.value,
        env!("CARGO_PKG_VERSION"),
        settings.root.display(),
    );
    Script::of(made_of, plan, program, &settings.root.to_string_lossy())
}

fn of_facts(cx: &Context, name: &str, engine: &EngineFacts, plan: Plan) -> Script {
    script(cx, name, &engine.describe(), &engine.engine.program, plan)
}

fn check(cx: &Context, args: &CheckArgs) -> Result<Script> {
    let facts = build_image::facts(cx)?;
    let step = check::step(cx.settings, &facts, args.build.no_cache)?;
    let plan = Plan {
        steps: build_image::cache_step(&facts)
            .into_iter()
            .chain([step])
            .collect(),
    };
    let mut script = of_facts(cx, "check", &facts.engine, plan);
    build_needs(cx, &mut script);
    Ok(script)
}

fn build_image(cx: &Context, args: &BuildArgs) -> Result<Script> {
    let facts = build_image::facts(cx)?;
    let plan = build_image::plan(cx.settings, &facts, args)?;
    let reference = cx.settings.reference(&facts.git.values)?;
    let mut script = of_facts(cx, "build-image", &facts.engine, plan);
    build_needs(cx, &mut script);
    if let Some(sha) = &facts.git.values.sha {
        script.commit = takes_from_git(cx.settings).then(|| sha.clone());
        let revision = build_image::revision(&facts.git).unwrap_or_default();
        script.words.push((
            format!("org.opencontainers.image.revision={revision}"),
            "\"org.opencontainers.image.revision=$revision\"",
        ));
        script.finds.extend([
            "revision=$(git -C \"$root\" rev-parse HEAD)",
            "[ -z \"$(git -C \"$root\" status --porcelain --untracked-files=normal)\" ] || revision=$revision-dirty",
        ]);
        // Else the time is the one that was set.
        if cx.env.get("SOURCE_DATE_EPOCH").is_none() {
            script.words.push((
                format!(
                    "org.opencontainers.image.created={}",
                    timestamps::rfc3339(facts.created)
                ),
                "\"org.opencontainers.image.created=$created\"",
            ));
            script.finds.push("created=$(TZ=UTC0 git -C \"$root\" log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)");
        }
    }
    for tag in cx.settings.references(&facts.git.values)? {
        script.before.push(Must::FreeTag(tag));
    }
    // Podman 4.3 exits with 0 when a signal ends its build.
    script.after.push(Must::Image(
        reference.clone(),
        format!("the build ended, but there is no image {reference}"),
    ));
    script.result = Some(reference);
    Ok(script)
}

/// The secrets that a build takes from the environment.
fn build_needs(cx: &Context, script: &mut Script) {
    for secret in &cx.settings.build.secrets {
        if let SecretSource::Env(name) = &secret.source {
            let why = format!("the build takes the secret {} from it", secret.id);
            script.needs.push((name.clone(), why));
        }
    }
}

/// Whether names of this commit are in the image's own.
fn takes_from_git(settings: &Settings) -> bool {
    let channel = &settings.channel;
    channel
        .tags
        .iter()
        .chain(channel.labels.values())
        .chain(channel.build_args.values())
        .any(|template| template.contains("{git."))
}

fn run_local(cx: &Context, args: &RunArgs) -> Result<Script> {
    let settings = cx.settings;
    let mut facts = run_local::facts(cx, StartedBy::RunLocal)?;
    let health = health::command(facts.world.images.first(), &settings.health);
    let reference = facts.reference.clone();
    let pulls = settings.channel.publish == Publish::Yes;
    // Whatever is there now: the script asks.
    facts.world.images = if pulls {
        Vec::new()
    } else {
        vec![Image::default()]
    };
    facts.world.container = Some(Container::running_ours());
    let mut plan = run_local::plan(settings, cx.env, &facts, args)?;
    // A folder that is there now may be gone by then, and Docker would make one of root's.
    for mount in &facts.mounts {
        if let Some(Folder::There { .. }) = mount.folder {
            let gone = Mount {
                folder: Some(Folder::Missing),
                ..mount.clone()
            };
            let steps = folder_steps(&gone, settings, cx.env, &facts.world.engine)?;
            plan.steps.splice(0..0, steps);
        }
    }
    let mut script = of_facts(cx, "run-local", &facts.world.engine, plan);
    script.uid = Some(cx.env.user.euid);
    script.commit = takes_from_git(settings)
        .then(|| cx.git_values().sha)
        .flatten();
    for (name, value) in container_env(settings, cx.env, &facts).by_name {
        match value {
            Some(EnvValue::Plain(_)) => {}
            Some(EnvValue::Secret(_)) | None => {
                script
                    .needs
                    .push((name, "the container is given it: set it".to_owned()));
            }
        }
    }
    if !pulls {
        let otherwise = format!("there is no image {reference}: build it first");
        script.before.push(Must::Image(reference, otherwise));
    }
    let name = settings.run.container.clone();
    if let (Some(check), false, false) = (health, args.no_wait, args.foreground) {
        script.after.push(Must::Healthy {
            name: name.clone(),
            check,
            seconds: settings.health.budget.as_secs().max(1),
        });
    }
    script.result = (!args.foreground).then_some(name);
    Ok(script)
}

fn stop(cx: &Context) -> Result<Script> {
    let (engine, _) = cx.probe().container(&cx.settings.run.container)?;
    let plan = stop::plan(cx.settings, &engine, Some(&Container::running_ours()));
    Ok(script(
        cx,
        "stop",
        &engine.kind.to_string(),
        &engine.program,
        plan,
    ))
}

/// What is asked of the terminal when the script runs, in place of a flag.
fn on_terminal(script: &mut Script, flag: &str, finds: &'static str) {
    script.words.push((flag.to_owned(), "\"$@\""));
    script.finds.push(finds);
}

fn logs(cx: &Context, args: &LogsArgs) -> Result<Script> {
    let name = &cx.settings.run.container;
    let (engine, _) = cx.probe().container(name)?;
    let follow = if args.no_follow {
        logs::Follow::No
    } else {
        logs::Follow::Yes
    };
    let plan = logs::plan(cx.settings, &engine, args, follow);
    let mut script = script(cx, "logs", &engine.kind.to_string(), &engine.program, plan);
    if !args.follow && !args.no_follow {
        on_terminal(
            &mut script,
            "--follow",
            "if [ -t 1 ]; then set -- --follow; else set --; fi",
        );
    }
    script.before.push(Must::Container(name.clone()));
    Ok(script)
}

fn shell(cx: &Context, args: &ShellArgs) -> Result<Script> {
    let name = &cx.settings.run.container;
    let (engine, _) = cx.probe().container(name)?;
    let plan = shell::plan(cx.settings, &engine, args, true);
    let mut script = script(cx, "shell", &engine.kind.to_string(), &engine.program, plan);
    on_terminal(
        &mut script,
        "--tty",
        "if [ -t 0 ] && [ -t 1 ]; then set -- --tty; else set --; fi",
    );
    script.before.push(Must::Container(name.clone()));
    Ok(script)
}

fn docker_login(cx: &Context, args: &LoginArgs) -> Result<Script> {
    let request = docker_login::request(cx.settings, cx.env, args, docker_login::github_cli(cx))?;
    let (engine, _) = cx.probe().engine_and_others()?;
    let plan = docker_login::plan(&engine.engine, &request, String::new());
    let mut script = of_facts(cx, "docker-login", &engine, plan);
    match request.token {
        TokenFrom::Env(name) => {
            let why = format!("the token of {} for {}", request.user, request.registry);
            script.needs.push((name.to_owned(), why));
        }
        // Typed, it would be seen.
        TokenFrom::Stdin | TokenFrom::Prompt => script
            .finds
            .push("[ ! -t 0 ] || die 'hand the token in: printenv MY_TOKEN | sh this-script'"),
        TokenFrom::GitHubCli => {}
    }
    Ok(script)
}
