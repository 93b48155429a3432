//! `up`: a Temporal server if none answers, a development stigmer-server if none answers, and the
//! runner. What is there already stays as it is.

use anyhow::Result;

use super::{
    Names, Ports, build_server, find_image, has_server_image, remove_steps, scripted_model, server,
    server_health, server_image, succeeds, temporal, told, wait_until,
};
use crate::{
    cli::{RunArgs, UpArgs},
    commands::{
        Context,
        build_image::{self, BuildFacts},
        refuse_foreign,
        run_local::{self, StartedBy},
    },
    engine::container::Container,
    error::Failure,
    plan::{Output, Plan, Step},
    probe,
    settings::{Network, Settings},
};

/// By these variables the runner knows where it is met, and by these flags the server.
const MEETING: &[(&str, &str)] = &[
    ("--namespace", "TEMPORAL_NAMESPACE"),
    (
        "--runner-task-queue",
        "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE",
    ),
];

/// What is there before.
pub struct UpFacts {
    pub build: BuildFacts,
    pub ports: Ports,
    /// What the server must know to meet the runner: the namespace, the task queue.
    pub meeting: Vec<String>,
    pub temporal: PartFacts,
    pub server: PartFacts,
    pub has_runner_image: bool,
}

/// What is there of one part.
pub struct PartFacts {
    /// Something answers at its port, be it ours or not.
    pub answers: bool,
    /// A container of its name.
    pub container: Option<Container>,
    pub has_image: bool,
}

fn facts(cx: &Context, names: &Names) -> Result<UpFacts> {
    let settings = cx.settings;
    let ports = Ports::of(settings, cx.env)?;
    let build = build_image::facts(cx)?;
    let engine = &build.engine;
    let has = |reference: &str| find_image(cx, engine, reference).map(|found| found.is_some());
    let part = |name: &str, port: u16, has_image: bool| -> Result<PartFacts> {
        let container = cx.probe().container_of(&engine.engine, name)?;
        if let Some(container) = &container {
            refuse_foreign(name, container)?;
        }
        Ok(PartFacts {
            answers: probe::listens(&format!("localhost:{port}")),
            container,
            has_image,
        })
    };
    Ok(UpFacts {
        temporal: part(
            &names.temporal,
            ports.temporal,
            has(&settings.stack.temporal_image)?,
        )?,
        server: part(&names.server, ports.server, has_server_image(cx, engine)?)?,
        has_runner_image: has(&cx.reference()?)?,
        ports,
        meeting: MEETING
            .iter()
            .filter_map(|(flag, name)| Some((flag, told(settings, cx.env, name)?)))
            .flat_map(|(flag, value)| [(*flag).to_owned(), value.to_owned()])
            .collect(),
        build,
    })
}

/// Brings Temporal up, if nothing answers for it.
pub fn plan_temporal(
    settings: &Settings,
    facts: &UpFacts,
    names: &Names,
    person: crate::env::User,
) -> Plan {
    let mut plan = Plan::default();
    if facts.temporal.answers {
        return plan;
    }
    let engine = &facts.build.engine;
    if !facts.temporal.has_image {
        let image = &settings.stack.temporal_image;
        plan.push(
            Step::new(engine.engine.pull(image), Output::Talk).say("Pulling", image.as_str()),
        );
    }
    if let Some(old) = &facts.temporal.container {
        plan.steps
            .extend(remove_steps(engine, &names.temporal, old, settings.run.stop_grace).steps);
    }
    let mut part = temporal(
        settings,
        &names.temporal,
        engine.network(&Network::Auto),
        facts.ports,
    );
    part.mark = Some(&names.runner);
    let start = Step::new(part.run(engine, person), Output::Quiet);
    plan.push(start.say("Starting", format!("Temporal as {}", names.temporal)));
    plan
}

/// Brings the development stigmer-server up, if nothing answers for it.
///
/// # Errors
/// When its image cannot be planned.
pub fn plan_server(
    settings: &Settings,
    facts: &UpFacts,
    names: &Names,
    person: crate::env::User,
) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    if facts.server.answers {
        return Ok(plan);
    }
    let engine = &facts.build.engine;
    if !facts.server.has_image {
        plan.steps.extend(build_server(settings, &facts.build)?);
    }
    if let Some(old) = &facts.server.container {
        plan.steps
            .extend(remove_steps(engine, &names.server, old, settings.run.stop_grace).steps);
    }
    let network = engine.network(&Network::Auto);
    let host = engine.host_on(&network);
    let image = server_image(settings);
    let mut part = server(&names.server, &image, network, host, facts.ports);
    part.command.extend(facts.meeting.iter().cloned());
    part.mark = Some(&names.runner);
    let start = Step::new(part.run(engine, person), Output::Quiet);
    plan.push(start.say("Starting", format!("a stigmer-server as {}", names.server)));
    Ok(plan)
}

/// Whether a model is configured: then the scripted one is not for the runner.
fn has_model(cx: &Context) -> bool {
    [
        "STIGMER_LLM_PROVIDER",
        "STIGMER_LLM_MODEL",
        "STIGMER_LLM_BASE_URL",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
    ]
    .iter()
    .any(|&name| cx.env.get(name).is_some() || cx.settings.run.env.contains_key(name))
}

pub fn run(cx: &Context, args: &UpArgs) -> Result<()> {
    let names = Names::beside(&cx.settings.run.container);
    let facts = facts(cx, &names)?;
    let engine = &facts.build.engine;
    let person = cx.env.user;
    let first = plan_temporal(cx.settings, &facts, &names, person);
    let second = plan_server(cx.settings, &facts, &names, person)?;
    for (plan, what, port) in [
        (&first, "Temporal", facts.ports.temporal),
        (&second, "stigmer-server", facts.ports.server),
    ] {
        if plan.steps.is_empty() {
            cx.ui
                .status("Found", &format!("{what} on localhost:{port}"));
        }
        cx.carry_out(plan)?;
        if cx.dry_run || plan.steps.is_empty() {
            continue;
        }
        if port == facts.ports.temporal {
            wait_until(cx, engine, &[&names.temporal], || {
                let listens = probe::listens(&format!("localhost:{port}"));
                listens
                    .then_some(())
                    .ok_or_else(|| format!("nothing listens on {port}"))
            })?;
        } else {
            let health = server_health(engine, &names.server, facts.ports);
            wait_until(cx, engine, &[&names.server], || succeeds(cx, &health))?;
        }
    }
    if !facts.has_runner_image && cx.settings.channel.publish != crate::settings::Publish::Yes {
        let plan = build_image::plan(cx.settings, &facts.build, &crate::cli::BuildArgs::default())?;
        cx.carry_out(&plan)?;
    }
    start_runner(cx, &facts, args)
}

/// The runner as `run-local` starts it, with the scripted model where no other is configured and
/// the server is ours.
fn start_runner(cx: &Context, facts: &UpFacts, args: &UpArgs) -> Result<()> {
    let mut settings = cx.settings.clone();
    let ours = !facts.server.answers || facts.server.container.is_some();
    if ours && !has_model(cx) {
        for (name, value) in scripted_model(facts.ports) {
            settings.run.env.insert(name.to_owned(), value);
        }
        cx.ui.hint("the model is scripted: it needs no key and knows little; set `STIGMER_LLM_PROVIDER` and its key for a real one");
    }
    let cx = Context {
        settings: &settings,
        ..*cx
    };
    let run = RunArgs {
        version: args.version.clone(),
        ..RunArgs::default()
    };
    run_local::start(&cx, &run, StartedBy::Up)?;
    if !cx.dry_run {
        cx.ui.hint(
            "next: `cargo xtask ask \"write a haiku into haiku.txt\"`, and `cargo xtask down`",
        );
    }
    Ok(())
}
