//! `test-image`: a throw-away container, and one line for each promise that the image makes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    Context,
    checks::{self, Check},
    health::{self, Unhealthy, Wait},
    run_local::hardening,
};
use crate::{
    cli::TestArgs,
    engine::{
        Engine, EngineFacts, container,
        image::Image,
        label,
        run::{IMAGE_USER, Run},
    },
    env::User,
    error::Failure,
    exec::Finished,
    image::{Platform, human_bytes},
    oci::filesystem,
    plan::{Cmd, Output, Plan, Step},
    probe::Wanted,
    secret,
    settings::{Network, Settings},
    ui::{Clock, human_time},
};

/// Everything that will run, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPlan {
    pub start: Step,
    pub health: Option<Cmd>,
    pub user: Cmd,
    pub volume: Cmd,
    pub root: Cmd,
    pub stop: Cmd,
    pub state: Cmd,
    pub export: Cmd,
    pub history: Cmd,
    pub remove: Step,
}

impl TestPlan {
    /// The same commands as a plan, to be shown.
    pub fn as_plan(&self) -> Plan {
        let quiet = |cmd: &Cmd| Step::new(cmd.clone(), Output::Quiet);
        let mut steps = vec![self.start.clone()];
        steps.extend(self.health.iter().map(quiet));
        steps.extend([&self.user, &self.volume].map(quiet));
        // It proves its point by failing.
        steps.push(quiet(&self.root).or_go_on());
        steps.extend([&self.stop, &self.state].map(quiet));
        steps.push(Step::new(self.export.clone(), Output::Measured));
        steps.push(quiet(&self.history));
        steps.push(self.remove.clone());
        Plan { steps }
    }
}

/// What the plan needs to know.
#[derive(Clone, Debug)]
pub struct TestFacts {
    pub engine: EngineFacts,
    pub reference: String,
    pub image: Image,
    pub person: User,
    /// Tells two runs at once apart.
    pub run_id: u32,
}

pub fn plan(settings: &Settings, facts: &TestFacts) -> TestPlan {
    let engine = &facts.engine.engine;
    let name = format!("{}-test-{}", settings.run.container, facts.run_id);
    // What an image promises must not depend on what else runs here. An engine makes the image's
    // own volume for it.
    let apart = Network::Named("none".to_owned());
    let run = Run {
        labels: vec![(label::CONTAINER.to_owned(), label::TEST.to_owned())],
        hardening: hardening(settings),
        stop_grace: settings.run.stop_grace,
        ..Run::of(&name, &facts.reference, facts.person, apart)
    };
    let sh = |script: &str| engine.exec(&name, ["/bin/sh", "-c", script]);
    TestPlan {
        start: Step::new(facts.engine.run_plain(&run), Output::Quiet).say(
            "Testing",
            format!("{} with {}", facts.reference, facts.engine.describe()),
        ),
        health: health::command(Some(&facts.image), &settings.health)
            .map(|argv| engine.exec(&name, argv)),
        user: engine.exec(&name, ["id", "-u"]),
        volume: sh("cd /workspace && echo kept > .xtask-test && cat .xtask-test && rm .xtask-test"),
        root: sh("touch /.xtask-test"),
        stop: engine.stop(&name, settings.run.stop_grace),
        state: container::inspect_cmd(&engine.program, &name),
        export: engine.export(&name),
        history: engine.history(&facts.reference),
        remove: Step::new(engine.remove(&name), Output::Quiet).or_go_on(),
    }
}

pub fn run(cx: &Context, args: &TestArgs) -> Result<()> {
    let clock = Clock::start();
    let facts = facts(cx)?;
    let plan = plan(cx.settings, &facts);
    if cx.dry_run {
        return Ok(cx.ui.result(&plan.as_plan().render())?);
    }
    let checks = carry_out(cx, &facts, &plan);
    let cleaned = clean_up(cx, &plan);
    let checks = checks?;
    cleaned?;
    let engine = facts.engine.describe();
    checks::report(cx, args.json, &facts.reference, &engine, &checks, clock)
}

fn facts(cx: &Context) -> Result<TestFacts> {
    let settings = cx.settings;
    let reference = cx.reference()?;
    let world = cx.probe().world(Wanted {
        container: None,
        images: std::slice::from_ref(&reference),
    })?;
    let image = world.images.into_iter().next().ok_or_else(|| {
        Failure::new(format!("there is no image `{reference}` here")).hint(format!(
            "build it: `cargo xtask build-image --version {}`",
            settings.version.value
        ))
    })?;
    Ok(TestFacts {
        engine: world.engine,
        reference,
        image,
        person: cx.env.user,
        run_id: std::process::id(),
    })
}

/// Also after Ctrl-C: the container goes.
fn clean_up(cx: &Context, plan: &TestPlan) -> Result<()> {
    let removed = cx.exec.cleaning(|| cx.exec.step(&plan.remove).map(|_| ()));
    cx.exec.check()?;
    removed
}

fn carry_out(cx: &Context, facts: &TestFacts, plan: &TestPlan) -> Result<Vec<Check>> {
    let settings = cx.settings;
    let mut checks = Vec::new();
    let clock = Clock::start();
    cx.exec.step(&plan.start)?;
    let healthy = wait_healthy(cx, &facts.engine.engine, plan, clock)?;
    let runs = healthy.iter().all(|check| check.ok);
    checks.extend(healthy);

    if runs {
        let ask = |cmd: &Cmd| -> Result<Finished> {
            let answer = cx.exec.ask(cmd, Duration::from_secs(30));
            cx.exec.check()?;
            answer.map_err(|why| {
                Failure::new(format!("`{}` gave no answer: {why:?}", cmd.render())).into()
            })
        };
        checks.push(user_check(&facts.image, &ask(&plan.user)?));
        checks.push(volume_check(&facts.image, &ask(&plan.volume)?));
        checks.push(root_check(settings, &ask(&plan.root)?));
        let clock = Clock::start();
        let grace = settings.run.stop_grace;
        let stopped = cx.exec.ask(&plan.stop, grace + Duration::from_secs(30));
        cx.exec.check()?;
        let took = clock.elapsed();
        checks.push(stop_check(
            stopped.is_ok_and(|done| done.ok()),
            took,
            grace,
            &ask(&plan.state)?,
        ));
    }
    checks.push(label_check(settings, &facts.image));
    checks.push(secret_check(
        &facts.image,
        &cx.exec
            .ask(&plan.history, Duration::from_secs(30))
            .map(|done| done.stdout)
            .unwrap_or_default(),
    ));
    let exported = cx.exec.stream(&plan.export)?;
    let read = filesystem::read_and_compress(exported);
    cx.exec.check()?;
    let (contents, compressed) = read.context("the image's file system could not be read")?;
    checks.push(elf_check(&facts.image, &contents));
    checks.push(size_check(
        "size compressed",
        compressed,
        settings.budget.compressed,
    ));
    checks.push(size_check(
        "size unpacked",
        contents.size,
        settings.budget.unpacked,
    ));
    Ok(checks)
}

fn wait_healthy(
    cx: &Context,
    engine: &Engine,
    plan: &TestPlan,
    clock: Clock,
) -> Result<Vec<Check>> {
    let Some(check) = &plan.health else {
        return Ok(vec![Check::new(
            "health check",
            false,
            "the image has none that this engine can see",
        )]);
    };
    let name = plan.state.args.last().cloned().unwrap_or_default();
    let wait = Wait {
        exec: cx.exec,
        ui: cx.ui,
        engine,
        container: &name,
        check,
        budget: cx.settings.health.budget,
    };
    Ok(match wait.run()? {
        Ok(_) => {
            let took = human_time(clock.elapsed());
            vec![Check::new(
                "health check",
                true,
                format!("passes, {took} after the start"),
            )]
        }
        Err(Unhealthy::TimedOut(words)) => vec![Check::new("health check", false, words)],
        Err(Unhealthy::Exited(container)) => {
            let code = container.state.exit_code;
            let logs = cx.exec.ask(
                &engine.logs(&name, false, Some(20), None),
                Duration::from_secs(10),
            );
            if let Ok(logs) = logs {
                cx.ui.raw(&logs.stdout);
                cx.ui.raw(&logs.stderr);
            }
            vec![Check::new(
                "health check",
                false,
                format!("the container ended with exit code {code}"),
            )]
        }
    })
}

fn user_check(image: &Image, id: &Finished) -> Check {
    let uid = id.stdout.trim();
    let ok = uid == IMAGE_USER.to_string() && !image.config.user.is_empty();
    Check::new(
        "user",
        ok,
        format!("runs as uid {uid}, the image says `{}`", image.config.user),
    )
}

fn volume_check(image: &Image, written: &Finished) -> Check {
    let volume = image
        .config
        .volumes
        .as_ref()
        .is_some_and(|volumes| volumes.contains_key("/workspace"));
    let writable = written.ok() && written.stdout.trim() == "kept";
    let detail = match (volume, writable) {
        (true, true) => "is a volume, and its user can write to it".to_owned(),
        (false, _) => "is no volume of the image".to_owned(),
        (true, false) => format!("cannot be written: {}", health::last_words(written)),
    };
    Check::new("/workspace", volume && writable, detail)
}

fn root_check(settings: &Settings, touched: &Finished) -> Check {
    if !settings.run.read_only {
        return Check::new(
            "read-only root",
            true,
            "not asked for (`run.hardening.read-only`)",
        );
    }
    let refused = !touched.ok();
    let detail = if refused {
        "works with a read-only root"
    } else {
        "the root can be written"
    };
    Check::new("read-only root", refused, detail)
}

fn stop_check(stopped: bool, took: Duration, grace: Duration, state: &Finished) -> Check {
    let code = container::read_containers(&state.stdout)
        .ok()
        .and_then(|containers| {
            containers
                .first()
                .map(|container| container.state.exit_code)
        });
    let ok = stopped && took < grace && code == Some(0);
    let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    Check::new(
        "stops on SIGTERM",
        ok,
        format!("exit code {code} after {}", human_time(took)),
    )
}

fn label_check(settings: &Settings, image: &Image) -> Check {
    let configured = &settings.image;
    let wanted = BTreeMap::from([
        ("version", settings.version.value.as_str()),
        ("source", configured.source.as_str()),
        ("title", configured.title.as_str()),
        ("description", configured.description.as_str()),
        ("licenses", configured.licenses.as_str()),
    ]);
    let key = |name: &str| format!("org.opencontainers.image.{name}");
    let mut wrong: Vec<_> = wanted
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .filter(|(name, value)| image.label(&key(name)) != Some(*value))
        .map(|(name, _)| name)
        .collect();
    if image.label(&key("created")).is_none() {
        wrong.push("created");
    }
    if wrong.is_empty() {
        return Check::new(
            "labels",
            true,
            "version, created and all that are configured",
        );
    }
    Check::new(
        "labels",
        false,
        format!("missing or other than configured: {}", wrong.join(", ")),
    )
}

/// Names alone are told, never values.
fn secret_check(image: &Image, history: &str) -> Check {
    let mut found = Vec::new();
    for entry in image.config.env.iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !value.is_empty() && (secret::is_secret_name(name) || secret::looks_like_secret(value)) {
            found.push(format!("environment {name}"));
        }
    }
    for (number, line) in history.lines().enumerate() {
        let assigned = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let named = assigned
            .filter(|(name, value)| !value.is_empty() && secret::is_secret_name(name))
            .map(|(name, _)| name.to_owned());
        let by_form = secret::looks_like_secret(line).then(|| "a text".to_owned());
        found.extend(
            named
                .chain(by_form)
                .map(|what| format!("history line {}: {what}", number + 1)),
        );
    }
    if found.is_empty() {
        Check::new("no secrets", true, "none in environment and history")
    } else {
        Check::new("no secrets", false, found.join("; "))
    }
}

fn elf_check(image: &Image, contents: &filesystem::Contents) -> Check {
    let platform = Platform::linux(&image.architecture);
    match filesystem::wrong_programs(&contents.programs, &platform) {
        None => Check::new(
            "architecture",
            true,
            format!(
                "{platform}: all {} programs and libraries",
                contents.programs.len()
            ),
        ),
        Some(why) => Check::new("architecture", false, why),
    }
}

fn size_check(name: &'static str, bytes: u64, budget: Option<u64>) -> Check {
    match budget {
        None => Check::new(name, true, format!("{}, no budget", human_bytes(bytes))),
        Some(budget) => Check::new(
            name,
            bytes <= budget,
            format!("{} of {}", human_bytes(bytes), human_bytes(budget)),
        ),
    }
}

#[cfg(test)]
mod tests;
