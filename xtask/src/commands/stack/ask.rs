//! `ask`: starts an execution, shows how it goes, and ends with the answer and the files made.

use anyhow::Result;

use super::{Ports, build_server, has_server_image, server_image};
use crate::{
    cli::AskArgs,
    commands::{Context, build_image},
    engine::{
        EngineFacts, label,
        run::{Mode, Run},
    },
    error::Failure,
    plan::{Output, Plan, Step},
    probe,
    settings::{Network, Settings},
};

/// A client in a container of its own, from the devserver's image.
fn client(
    settings: &Settings,
    engine: &EngineFacts,
    env: &crate::env::Env,
    port: u16,
    args: &AskArgs,
) -> Run {
    let network = engine.network(&Network::Auto);
    let host = engine.host_on(&network);
    let mut command = vec![
        "ask".to_owned(),
        "--server".to_owned(),
        format!("{host}:{port}"),
    ];
    for (flag, value) in [
        ("--session", &args.session),
        ("--agent", &args.agent),
        ("--model", &args.model),
    ] {
        if let Some(value) = value {
            command.extend([flag.to_owned(), value.clone()]);
        }
    }
    command.push(args.message.clone());
    let key = "STIGMER_API_KEY";
    let name = format!("{}-ask-{}", settings.run.container, std::process::id());
    Run {
        labels: vec![(label::CONTAINER.to_owned(), "ask".to_owned())],
        mode: Mode::Foreground { tty: false },
        env_by_name: env
            .get(key)
            .map(|_| (key.to_owned(), None))
            .into_iter()
            .collect(),
        command,
        ..Run::of(&name, &server_image(settings), env.user, network)
    }
}

pub fn run(cx: &Context, args: &AskArgs) -> Result<()> {
    let settings = cx.settings;
    let port = Ports::of(settings, cx.env)?.server;
    if !cx.dry_run && !probe::listens(&format!("localhost:{port}")) {
        return Err(Failure::new(format!(
            "nothing answers on localhost:{port}: there is no stigmer-server"
        ))
        .hint("start one, with all that belongs to it: `cargo xtask up`")
        .into());
    }
    let facts = build_image::facts(cx)?;
    let engine = &facts.engine;
    let mut plan = Plan::default();
    if !has_server_image(cx, engine)? {
        plan.steps.extend(build_server(settings, &facts)?);
    }
    let run = client(settings, engine, cx.env, port, args);
    plan.push(Step::new(engine.run_plain(&run), Output::Result));
    cx.carry_out(&plan)?;
    Ok(())
}
