//! `test-image`: checks an image in a container that is removed again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    base::{
        env::User,
        error::Failure,
        image::{Platform, human_bytes},
        secret,
        ui::{Clock, human_time},
    },
    cli::{FlavourOption, JsonOption, VersionOption},
    commands::{
        checks::{self, CheckResult},
        command::Command,
        health::{self, Unhealthy, Wait},
    },
    engine::{
        EngineFacts,
        container::{self, LogOptions},
        image::Image,
        label,
        run::Run,
    },
    exec::Finished,
    facts::context::{Context, EngineQuery, missing_image_failure},
    oci::filesystem,
    plan::{Output, Plan, Step, quote_for_shell},
    settings::{Network, RequiredUser, Restart, Settings},
};

/// How long a question to the container may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// Check the image: health, user, labels, volume, secrets
#[derive(Args, Clone, Debug)]
pub struct TestImage {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    json: JsonOption,
}

/// The plans, in their order. The second runs only if the container becomes healthy.
struct TestPlans {
    /// Starts the container.
    start: Plan,
    /// The health check; none if the engine sees none.
    healthy: Option<Step>,
    /// Asks the running container, stops it, and asks for its state.
    running: Plan,
    /// The commands that made the image.
    history: Step,
    /// The file system of the container.
    export: Step,
    /// Removes the container. It has no steps but its cleanup.
    cleanup: Plan,
}

impl TestPlans {
    fn render(&self) -> String {
        let steps = |steps: Vec<Step>| Plan::from(steps).render();
        self.start.render()
            + &steps(self.healthy.iter().cloned().collect())
            + &self.running.render()
            + &steps(vec![self.history.clone(), self.export.clone()])
            + &self.cleanup.render()
    }
}

/// What the plan needs to know.
struct TestFacts {
    engine: EngineFacts,
    reference: String,
    image: Image,
    invoking_user: User,
    /// Makes the names of this run differ from those of another at the same time.
    run_id: u32,
}

impl TestFacts {
    fn gather(cx: &Context) -> Result<Self> {
        let reference = cx.reference()?;
        let state = cx.query_engine(EngineQuery {
            container: None,
            images: std::slice::from_ref(&reference),
        })?;
        let image = state.images.first().cloned().ok_or_else(|| {
            let missing = missing_image_failure(cx.settings, &reference);
            cx.name_engine_with_image(missing, &state, &reference)
        })?;
        Ok(Self {
            engine: state.engine,
            reference,
            image,
            invoking_user: cx.env.user,
            run_id: std::process::id(),
        })
    }

    fn container(&self, settings: &Settings) -> String {
        format!("{}-test-{}", settings.run.container, self.run_id)
    }
}

/// A command that writes a file in a folder, reads it and removes it.
fn write_to(folder: &str) -> String {
    let file = quote_for_shell(&format!("{folder}/.xtask-test"));
    format!("echo kept > {file} && [ \"$(cat {file})\" = kept ] && rm {file}")
}

fn plan(settings: &Settings, facts: &TestFacts) -> TestPlans {
    let engine = &facts.engine.engine;
    let name = facts.container(settings);
    // The checks must not depend on what else runs on this machine. The engine makes the image's own
    // volume.
    let isolated = Network::Named("none".to_owned());
    let run = Run {
        labels: vec![(label::CONTAINER.to_owned(), label::TEST.to_owned())],
        hardening: settings.run.hardening.clone(),
        stop_grace: settings.run.stop_grace,
        restart: Restart::No,
        log_options: Vec::new(),
        command: settings.run.command.clone(),
        ..Run::restricted(&name, &facts.reference, facts.invoking_user, isolated)
    };
    let quiet = |cmd| Step::new(cmd, Output::Quiet);
    // A question that fails is the result of a check, not a failure of the plan.
    let question = |cmd| quiet(cmd).limit(QUESTION_LIMIT).ignore_failure();
    let sh = |script: &str| question(engine.exec(&name, ["/bin/sh", "-c", script]));
    let start = quiet(facts.engine.run_as_image_user(&run)).status(
        "Testing",
        format!("{} with {}", facts.reference, facts.engine.describe()),
    );
    TestPlans {
        start: vec![start].into(),
        healthy: health::command(Some(&facts.image), &settings.health)
            .map(|argv| quiet(engine.exec(&name, argv)).retry_for(settings.health.budget)),
        running: vec![
            question(engine.exec(&name, ["id", "-u"])),
            sh(&settings
                .require
                .volumes
                .iter()
                .map(|folder| write_to(folder))
                .collect::<Vec<_>>()
                .join(" && ")),
            // Root may write to every folder of a file system that is not read-only.
            question(engine.exec_as_root(&name, ["/bin/sh", "-c", "LC_ALL=C touch /.xtask-test"])),
            quiet(engine.stop(&name, settings.run.stop_grace))
                .limit(settings.run.stop_grace + QUESTION_LIMIT)
                .ignore_failure(),
            question(container::inspect_cmd(&engine.program, &name)),
        ]
        .into(),
        history: question(engine.history(&facts.reference)),
        export: Step::new(engine.export(&name), Output::Streamed),
        cleanup: Plan {
            steps: Vec::new(),
            cleanup: vec![quiet(engine.remove_with_volumes(&name)).ignore_failure()],
        },
    }
}

impl Command for TestImage {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let facts = TestFacts::gather(cx)?;
        let plans = plan(cx.settings, &facts);
        if cx.dry_run {
            return Ok(cx.ui.print_plan(&plans.render())?);
        }
        let checks = run_plans(cx, &facts, &plans);
        cx.exec.clean_up(&plans.cleanup);
        let checks = checks?;
        cx.exec.fail_if_interrupted()?;
        checks::report(
            cx,
            self.json,
            &facts.reference,
            &facts.engine,
            &checks,
            clock,
        )
    }
}

fn run_plans(cx: &Context, facts: &TestFacts, plans: &TestPlans) -> Result<Vec<CheckResult>> {
    let settings = cx.settings;
    let clock = Clock::start();
    cx.exec.run(&plans.start)?;
    let healthy = health_check(cx, facts, plans.healthy.as_ref(), clock)?;
    let is_running = plans.healthy.is_none() || healthy.ok;
    let mut checks = vec![healthy];
    if is_running {
        let outputs = cx.exec.outputs(&plans.running)?;
        let [user, volume, root, stopped, state] = &outputs[..] else {
            return Err(
                Failure::new("internal error: `test-image` has other steps than results").into(),
            );
        };
        checks.push(user_check(settings.require.user, &facts.image, user));
        let volumes = &settings.require.volumes;
        checks.extend(volume_check(volumes, &facts.image, volume));
        checks.push(root_check(settings, root));
        checks.push(stop_check(settings, stopped, state));
    }
    checks.push(label_check(settings, &facts.image));
    let history = cx.exec.step(&plans.history)?;
    checks.push(secret_check(
        &facts.image,
        &history,
        &settings.build.public_args,
    ));
    let exported = cx.exec.stream(&plans.export.cmd)?;
    let budget = settings.budget;
    // Compressing takes seconds.
    let read = if budget.compressed.is_some() {
        filesystem::read_and_compress(exported).map(|(contents, size)| (contents, Some(size)))
    } else {
        filesystem::read(exported).map(|contents| (contents, None))
    };
    cx.exec.fail_if_interrupted()?;
    let (contents, compressed) = read.context("the image's file system could not be read")?;
    checks.push(elf_check(&facts.image, &contents));
    checks.push(size_check("size compressed", compressed, budget.compressed));
    checks.push(size_check(
        "size unpacked",
        Some(contents.size),
        budget.unpacked,
    ));
    Ok(checks)
}

fn health_check(
    cx: &Context,
    facts: &TestFacts,
    step: Option<&Step>,
    clock: Clock,
) -> Result<CheckResult> {
    let check = |ok, detail: String| CheckResult::new("health check", ok, detail);
    let Some(step) = step else {
        let none = "the engine reports no health check for the image";
        return Ok(if cx.settings.require.health_check {
            check(false, none.to_owned())
        } else {
            check(
                true,
                format!("{none}, and none is required (`require.health-check`)"),
            )
        });
    };
    let engine = &facts.engine.engine;
    let name = facts.container(cx.settings);
    let wait = Wait {
        cx,
        engine,
        container: &name,
        check: &step.cmd,
        budget: cx.settings.health.budget,
    };
    Ok(match wait.run()? {
        Ok(_) => {
            let took = human_time(clock.elapsed());
            check(true, format!("passes, {took} after the start"))
        }
        Err(Unhealthy::TimedOut(why)) => check(false, why),
        Err(Unhealthy::Exited(container)) => {
            if let Ok(log) = cx.ask(&engine.logs(&name, &LogOptions::last(20))) {
                cx.ui.print_unchanged(&log.stdout);
                cx.ui.print_unchanged(&log.stderr);
            }
            let code = container.state.exit_code;
            check(false, format!("the container exited with code {code}"))
        }
    })
}

/// The uid is what the container says; of an image without `id`, what its configuration says.
fn user_check(required: RequiredUser, image: &Image, id: &Finished) -> CheckResult {
    let configured = &image.config.user;
    let uid = if id.ok() {
        id.stdout.trim().parse().ok()
    } else {
        let user = configured.split(':').next().unwrap_or_default();
        Some(user)
            .filter(|user| !user.is_empty())
            .map_or(Some(0), |user| user.parse().ok())
    };
    let ok = match (required, uid) {
        (RequiredUser::Any, _) => true,
        (_, None) => false,
        (RequiredUser::NotRoot, Some(uid)) => uid != 0,
        (RequiredUser::Uid(required), Some(uid)) => uid == required,
    };
    let uid = uid.map_or_else(
        || "an unknown uid".to_owned(),
        |uid: u32| format!("uid {uid}"),
    );
    let mut detail = format!("runs as {uid}; the image's user is `{configured}`");
    if let (false, RequiredUser::Uid(uid)) = (ok, required) {
        detail += &format!("; required is {uid}");
    }
    CheckResult::new("user", ok, detail)
}

/// None if no volumes are required.
fn volume_check(required: &[String], image: &Image, written: &Finished) -> Option<CheckResult> {
    if required.is_empty() {
        return None;
    }
    let volumes = image.config.volumes.as_ref();
    let is_volume = |folder: &&String| volumes.is_some_and(|all| all.contains_key(*folder));
    let missing = required.iter().find(|folder| !is_volume(folder));
    let (ok, detail) = match (missing, written.ok()) {
        (Some(folder), _) => (false, format!("{folder} is not a volume of the image")),
        (None, false) => (false, format!("cannot be written: {}", written.last_line())),
        (None, true) => (
            true,
            format!("{}: the image's user can write there", required.join(", ")),
        ),
    };
    Some(CheckResult::new("volumes", ok, detail))
}

fn root_check(settings: &Settings, touched: &Finished) -> CheckResult {
    if !settings.run.hardening.read_only {
        return CheckResult::new(
            "read-only root",
            true,
            "not asked for (`run.hardening.read-only`)",
        );
    }
    // Docker prints this to standard output.
    let said = format!("{}{}", touched.stdout, touched.stderr);
    if said.contains("executable file not found") || said.contains("/bin/sh: no such file") {
        return CheckResult::new(
            "read-only root",
            true,
            "not checked further: the image runs with it, and has no shell that could write",
        );
    }
    let refused = touched
        .stderr
        .to_lowercase()
        .contains("read-only file system");
    let detail = match (refused, touched.ok()) {
        (true, _) => "works with a read-only root".to_owned(),
        (false, true) => "the root can be written".to_owned(),
        (false, false) => format!("cannot be checked: {}", touched.last_line()),
    };
    CheckResult::new("read-only root", refused, detail)
}

fn stop_check(settings: &Settings, stopped: &Finished, state: &Finished) -> CheckResult {
    let grace = settings.run.stop_grace;
    let code = container::read_containers(&state.stdout)
        .ok()
        .and_then(|containers| {
            containers
                .first()
                .map(|container| container.state.exit_code)
        });
    let code = code.map_or_else(|| "unknown".to_owned(), |code: i32| code.to_string());
    let ok = stopped.ok() && stopped.took < grace && settings.require.stop_codes.contains(&code);
    CheckResult::new(
        "stops on SIGTERM",
        ok,
        format!("exit code {code} after {}", human_time(stopped.took)),
    )
}

fn label_check(settings: &Settings, image: &Image) -> CheckResult {
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
        return CheckResult::new(
            "labels",
            true,
            "the version, the creation time and all configured labels",
        );
    }
    CheckResult::new(
        "labels",
        false,
        format!(
            "missing or different from the configuration: {}",
            wrong.join(", ")
        ),
    )
}

/// Only names are shown, never values.
fn secret_check(image: &Image, history: &Finished, public: &[String]) -> CheckResult {
    if !history.ok() || history.stdout.trim().is_empty() {
        let why = format!("the history cannot be read: {}", history.last_line());
        return CheckResult::new("no secrets", false, why);
    }
    let mut found = Vec::new();
    for entry in image.config.env.iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !value.is_empty() && (secret::is_secret_name(name) || secret::looks_like_secret(value)) {
            found.push(format!("environment {name}"));
        }
    }
    for (number, line) in history.stdout.lines().enumerate() {
        let assigned = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let named = assigned
            .filter(|(name, value)| !value.is_empty() && secret::is_secret_name(name))
            .filter(|(name, _)| public.iter().all(|public| public != name))
            .map(|(name, _)| name.to_owned());
        let by_form = secret::looks_like_secret(line).then(|| "a text".to_owned());
        found.extend(
            named
                .chain(by_form)
                .map(|what| format!("history line {}: {what}", number + 1)),
        );
    }
    if found.is_empty() {
        CheckResult::new("no secrets", true, "none in environment and history")
    } else {
        CheckResult::new("no secrets", false, found.join("; "))
    }
}

fn elf_check(image: &Image, contents: &filesystem::Contents) -> CheckResult {
    let platform = Platform::linux(&image.architecture);
    match filesystem::wrong_programs(&contents.programs, &platform) {
        None => CheckResult::new(
            "architecture",
            true,
            format!(
                "{platform}: all {} programs and libraries",
                contents.programs.len()
            ),
        ),
        Some(why) => CheckResult::new("architecture", false, why),
    }
}

/// A size in bytes, if it was measured.
fn size_check(name: &'static str, measured: Option<u64>, budget: Option<u64>) -> CheckResult {
    let size = measured.map_or_else(|| "not measured".to_owned(), human_bytes);
    match budget {
        None => CheckResult::new(name, true, format!("{size}, no budget")),
        Some(budget) => CheckResult::new(
            name,
            measured.is_some_and(|bytes| bytes <= budget),
            format!("{size} of {}", human_bytes(budget)),
        ),
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for TestImage {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.rendered_examples(&["test-image --version dev-me"], |_: &Self, settings, _| {
            let facts = TestFacts {
                engine: machine.engine(),
                reference: machine.reference(settings),
                image: machine.image(),
                invoking_user: machine.user,
                run_id: 7,
            };
            Ok(plan(settings, &facts).render())
        })
    }
}

#[cfg(test)]
mod tests;
