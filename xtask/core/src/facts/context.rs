//! What a command works with, and the questions that it can ask an engine.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
        error::Failure,
        ui::Ui,
    },
    catalogue,
    config::files,
    engine::{
        Engine, EngineFacts,
        container::{self, Container, Owner},
        detect::{self, Here},
        image::{self, Image},
    },
    exec::{Exec, Finished, NoAnswer},
    facts::git,
    plan::{Cmd, Plan},
    registry::transport::{NewTransport, no_http_client},
    settings::{EngineChoice, GitValues, Settings, resolve::Arguments},
};

/// How long xtask waits before it asks an engine for the second and for the third time.
const PAUSES: &[Duration] = &[Duration::from_millis(200), Duration::from_secs(1)];

/// The settings, the environment, and the means to ask and to run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub env: &'a Env,
    pub settings: &'a Settings,
    pub exec: &'a Exec,
    pub ui: Ui,
    pub dry_run: bool,
    /// The command line, to read the settings again.
    pub arguments: &'a Arguments,
    pub engines: &'a EngineMemory,
    /// Makes the HTTP client. `None` in the program without one.
    pub transport: Option<NewTransport>,
}

/// What this process knows about the engines. It makes a command stay with one engine, and wait only once
/// for one that does not answer.
#[derive(Debug, Default)]
pub struct EngineMemory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// The engine that was chosen.
    chosen: Option<&'static str>,
    /// The engines that did not answer in time.
    timed_out: Vec<RejectedEngine>,
}

/// An engine that was not chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedEngine {
    pub program: &'static str,
    /// A predicate whose subject is the program.
    pub why: String,
}

const NOT_INSTALLED: &str = "is not installed (not in PATH)";

impl RejectedEngine {
    pub fn is_installed(&self) -> bool {
        self.why != NOT_INSTALLED
    }

    fn timed_out(&self) -> bool {
        catalogue::find_in_output(&self.why).is_some_and(|known| known.code == "engine-hung")
    }
}

/// What a command wants to know together with the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineQuery<'a> {
    pub container: Option<&'a str>,
    pub images: &'a [String],
}

/// The engine, and what it has of an [`EngineQuery`].
#[derive(Clone, Debug)]
pub struct EngineState {
    pub engine: EngineFacts,
    pub container: Option<Container>,
    /// The images that exist, in the order of the query.
    pub images: Vec<Image>,
}

/// Whether a plan ran, or was only printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    Yes,
    No,
}

impl Context<'_> {
    /// What makes the HTTP client.
    ///
    /// # Errors
    /// In the program without one.
    pub fn transport(&self) -> Result<NewTransport, Failure> {
        self.transport.ok_or_else(no_http_client)
    }

    /// Reads the settings again, for a command during which the files may change.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn reload_settings(&self) -> Result<Settings> {
        let files = files::find(&self.env.cwd)?;
        Ok(Settings::resolve(self.arguments, self.env, &files)?)
    }

    /// Chooses the engine, and asks it for what the query names. The questions run side by side.
    ///
    /// # Errors
    /// When no engine answers: one line for each that was tried, then what to do.
    pub fn query_engine(&self, query: EngineQuery) -> Result<EngineState, Failure> {
        self.first_that_answers(|program| self.query_program(program, query))
            .map(|(state, _)| state)
    }

    /// The engine, and those that were tried before it without success.
    ///
    /// # Errors
    /// When no engine answers.
    pub fn engine_and_rejected(&self) -> Result<(EngineFacts, Vec<RejectedEngine>), Failure> {
        self.first_that_answers(|program| self.query_program(program, EngineQuery::default()))
            .map(|(state, rejected)| (state.engine, rejected))
    }

    /// The version and place of a known engine.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn facts_of(&self, engine: &Engine) -> Result<EngineFacts, Failure> {
        self.query_program(&engine.program, EngineQuery::default())
            .map(|state| state.engine)
            .map_err(|why| engine.failure(&why))
    }

    /// A container of a known engine.
    ///
    /// # Errors
    /// When the engine does not answer, and when a signal interrupts.
    pub fn container_of(&self, engine: &Engine, name: &str) -> Result<Option<Container>, Failure> {
        let answer = self.ask(&container::inspect_cmd(&engine.program, name));
        self.exec.fail_if_interrupted()?;
        container::read_inspect(&engine.program, &answer)
            .map(|(_, container)| container)
            .map_err(|why| engine.failure(&why))
    }

    /// Images of a known engine: those of the references or ids that exist.
    ///
    /// # Errors
    /// When the engine does not answer, and when a signal interrupts.
    pub fn images_of<S: AsRef<str>>(
        &self,
        engine: &Engine,
        references: &[S],
    ) -> Result<Vec<Image>, Failure> {
        let limit = self.settings.engine.timeout.max(image::INSPECT_LIMIT);
        let found = self.inspect_images(&engine.program, references, limit);
        self.exec.fail_if_interrupted()?;
        found.map_err(|why| engine.failure(&why))
    }

    /// Asks a question that is answered within the engine's timeout.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ask(&self, cmd: &Cmd) -> Result<Finished, NoAnswer> {
        self.exec.capture(cmd, self.settings.engine.timeout)
    }

    /// The images of the references or ids that exist. If another process changes the engine's store meanwhile, it
    /// asks again.
    ///
    /// # Errors
    /// The reason why the engine did not answer, as a predicate whose subject is the program.
    pub fn inspect_images<S: AsRef<str>>(
        &self,
        program: &str,
        references: &[S],
        limit: Duration,
    ) -> Result<Vec<Image>, String> {
        let cmd = image::inspect_cmd(program, references);
        image::read_inspect(&self.ask_repeatedly(&cmd, limit, image::is_changed_meanwhile))
    }

    /// Asks a question, and asks it again after a moment if the answer is of no use.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ask_repeatedly(
        &self,
        cmd: &Cmd,
        limit: Duration,
        is_useless: impl Fn(&Result<Finished, NoAnswer>) -> bool,
    ) -> Result<Finished, NoAnswer> {
        let mut answer = self.exec.capture(cmd, limit);
        for pause in PAUSES {
            if !is_useless(&answer) || self.exec.pause(*pause).is_err() {
                break;
            }
            answer = self.exec.capture(cmd, limit);
        }
        answer
    }

    /// The path of a program, if it is in `PATH`.
    pub fn find_program(&self, program: &str) -> Option<PathBuf> {
        which::which_in(program, self.env.path(), &self.env.cwd).ok()
    }

    /// The reference under which the version's image is run and tested.
    ///
    /// # Errors
    /// When a tag's template needs a value that is missing.
    pub fn reference(&self) -> Result<String> {
        Ok(self.settings.reference(&self.git_values())?)
    }

    /// The values that the tags' templates take from git. Git runs only if a template uses one.
    pub fn git_values(&self) -> GitValues {
        let tags = &self.settings.channel.tags;
        if tags.iter().any(|tag| tag.contains("{git.")) {
            git::work_tree(self.exec, &self.settings.root).values
        } else {
            GitValues::default()
        }
    }

    /// Runs the plan; with `--dry-run`, prints it instead.
    ///
    /// # Errors
    /// The first step's that fails.
    pub fn run_or_print(&self, plan: &Plan) -> Result<Ran> {
        if self.dry_run {
            self.ui.print_plan(&plan.render())?;
            return Ok(Ran::No);
        }
        self.exec.run(plan)?;
        Ok(Ran::Yes)
    }

    /// The programs of the engines that may be used, in the order in which they are tried.
    pub fn candidates(&self) -> Vec<&'static str> {
        let kinds = self.settings.engine.prefer.candidates();
        kinds.iter().map(|kind| kind.program()).collect()
    }

    /// The programs of the engines that may have a container of ours, the preferred ones first. A preference may
    /// be newer than the container, so only `--engine` leaves an installed engine out.
    pub fn engines_to_search(&self) -> Vec<&'static str> {
        let mut programs = self.candidates();
        if !self.settings.is_engine_typed() {
            let all = EngineKind::ALL.iter().map(|kind| kind.program());
            let others = all.filter(|program| self.find_program(program).is_some());
            let others: Vec<_> = others.filter(|one| !programs.contains(one)).collect();
            programs.extend(others);
        }
        programs
    }

    /// Asks one engine, unless it has already timed out in this process.
    ///
    /// # Errors
    /// The reason why it gave no answer, as a predicate whose subject is the program.
    pub fn ask_one<T>(
        &self,
        program: &'static str,
        ask: impl Fn(&'static str) -> Result<T, String>,
    ) -> Result<T, String> {
        if let Some(known) = self.engines.timed_out(program) {
            return Err(known.why);
        }
        if self.find_program(program).is_none() {
            return Err(NOT_INSTALLED.to_owned());
        }
        ask(program).inspect_err(|why| {
            let why = why.clone();
            self.engines.note_failure(RejectedEngine { program, why });
        })
    }

    /// Takes the first engine that answers. Later questions of this process go to the same one.
    fn first_that_answers<T>(
        &self,
        ask: impl Fn(&'static str) -> Result<T, String>,
    ) -> Result<(T, Vec<RejectedEngine>), Failure> {
        let chosen = self.engines.chosen();
        let candidates = chosen.map_or_else(|| self.candidates(), |program| vec![program]);
        let mut rejected = Vec::new();
        for program in candidates {
            let found = self.ask_one(program, &ask);
            self.exec.fail_if_interrupted()?;
            match found {
                Ok(found) => {
                    if self.engines.choose(program) {
                        self.warn_of_replacement(program, &rejected);
                    }
                    return Ok((found, rejected));
                }
                Err(why) => rejected.push(RejectedEngine { program, why }),
            }
        }
        Err(self.no_engine_failure(&rejected))
    }

    /// Warns if an engine is used because another did not answer in time. If that one answers the
    /// next command, the command does not find what this one made.
    fn warn_of_replacement(&self, program: &str, rejected: &[RejectedEngine]) {
        for late in rejected.iter().filter(|one| one.timed_out()) {
            let other = late.program;
            self.ui.warn(&format!(
                "`{other}` {}, so `{program}` is used instead; the next command may use `{other}` again",
                late.why
            ));
            self.ui.hint(&format!(
                "stay with one engine: `--engine {program}` or `XTASK_ENGINE={program}`; give `{other}` more time: `XTASK_ENGINE_TIMEOUT=30s`"
            ));
        }
    }

    /// The failure if no engine answers: one line for each, then what to do.
    pub fn no_engine_failure(&self, rejected: &[RejectedEngine]) -> Failure {
        no_engine_failure(self.env, self.settings.engine.prefer, rejected)
    }

    /// Asks one engine for what the query names.
    ///
    /// # Errors
    /// The reason why it cannot be used, as a predicate whose subject is the program.
    pub fn query_program(&self, program: &str, query: EngineQuery) -> Result<EngineState, String> {
        thread::scope(|scope| {
            let container = query
                .container
                .map(|name| scope.spawn(move || self.ask(&container::inspect_cmd(program, name))));
            let limit = self.settings.engine.timeout;
            let images = (!query.images.is_empty())
                .then(|| scope.spawn(move || self.inspect_images(program, query.images, limit)));
            let version = self.ask(&detect::version_cmd(program));
            let kernel = own_kernel(self.env.os);
            let here = Here {
                env: self.env,
                kernel: &kernel,
            };
            let (mut engine, follow_up) = detect::read_version(program, &version, here)?;
            for question in follow_up {
                if let Ok(answer) = self.ask(&question.cmd(program)) {
                    question.add_answer(&mut engine, &answer, here);
                }
            }
            let panicked = || NoAnswer::NotStarted("its thread panicked".to_owned());
            let container = match container {
                Some(handle) => {
                    let answer = handle.join().unwrap_or(Err(panicked()));
                    container::read_inspect(program, &answer)?.1
                }
                None => None,
            };
            let images = match images {
                Some(handle) => handle.join().unwrap_or(Err(panicked().to_string()))?,
                None => Vec::new(),
            };
            Ok(EngineState {
                engine,
                container,
                images,
            })
        })
    }
}

/// The version of this machine's kernel; empty if it is unknown.
fn own_kernel(os: Os) -> String {
    match os {
        Os::Linux => fs::read_to_string("/proc/sys/kernel/osrelease")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        Os::Mac => String::new(),
    }
}

impl EngineMemory {
    fn with<T>(&self, work: impl FnOnce(&mut Remembered) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn chosen(&self) -> Option<&'static str> {
        self.with(|memory| memory.chosen)
    }

    /// Remembers the engine. True if none was chosen before.
    fn choose(&self, program: &'static str) -> bool {
        self.with(|memory| memory.chosen.replace(program).is_none())
    }

    fn timed_out(&self, program: &str) -> Option<RejectedEngine> {
        let is_it = |one: &&RejectedEngine| one.program == program;
        self.with(|memory| memory.timed_out.iter().find(is_it).cloned())
    }

    fn note_failure(&self, rejected: RejectedEngine) {
        // An engine that was chosen may only be busy. It is asked again.
        self.with(|memory| {
            if rejected.timed_out() && memory.chosen != Some(rejected.program) {
                memory.timed_out.push(rejected);
            }
        });
    }
}

fn no_engine_failure(env: &Env, prefer: EngineChoice, rejected: &[RejectedEngine]) -> Failure {
    let lines: Vec<_> = rejected
        .iter()
        .map(|one| format!("  {} {}", one.program, one.why))
        .collect();
    let what = match prefer {
        EngineChoice::Only(kind) if rejected.len() == 1 => {
            format!("{kind} was asked for and does not answer")
        }
        EngineChoice::Auto | EngineChoice::Only(_) => "no container engine answers".to_owned(),
    };
    let failure = Failure::new(format!("{what}\n{}", lines.join("\n")));
    match rejected
        .iter()
        .find_map(|one| catalogue::find_in_output(&one.why))
    {
        Some(known) => failure.hints(known.hints()),
        None => failure.hint(detect::how_to_install(env.os)),
    }
}

/// Refuses to touch a container that xtask did not start.
///
/// # Errors
/// When the container is somebody else's.
pub fn refuse_foreign(name: &str, container: &Container) -> Result<(), Failure> {
    match container.owner() {
        Owner::Xtask => Ok(()),
        Owner::Other if container.is_of_stigmer_cli() => Err(Failure::new(format!(
            "the container `{name}` is the stigmer CLI's: it runs `{}` ({})",
            container.image(),
            container.state.status,
        ))
        .hint("stop the CLI's runner and its server: `stigmer server stop`")
        .hint("give ours another name: `XTASK_RUN_CONTAINER=my-runner`; both then take executions from the same task queue")),
        Owner::Other => Err(Failure::new(format!(
            "the container `{name}` is not ours: it runs `{}`, {} ({}, created {})",
            container.image(),
            container.likely_creator(),
            container.state.status,
            container.created.split('.').next().unwrap_or_default(),
        ))
        .hint("give ours another name: `run.container` in `xtask.local.toml`, or `XTASK_RUN_CONTAINER`")
        .hint(format!("remove that container yourself if you don't need it: `docker rm {name}` or `podman rm {name}`"))),
    }
}

/// The failure of a command that needs the version's image.
pub fn missing_image_failure(settings: &Settings, reference: &str) -> Failure {
    let options = settings.version_options();
    Failure::new(format!("there is no image `{reference}` here"))
        .hint(format!("build it: `cargo xtask build-image {options}`"))
}

/// The failure of a command that needs the container to run.
pub fn not_running_failure(name: &str) -> Failure {
    Failure::new(format!("the container `{name}` is not running"))
        .hint("start it: `cargo xtask run-local`")
}

/// The failure of a command that needs the container to run, if it is paused.
pub fn paused_failure(engine: &Engine, name: &str) -> Failure {
    Failure::new(format!("the container `{name}` is paused")).hint(format!(
        "let it run again: `{}`; or end it: `cargo xtask stop`",
        engine.unpause(name).render()
    ))
}
