//! Looks for a container on every engine that may have it. An engine that gives no answer in time may have
//! it too, so "there is none" is certain only if all engines answered.

use std::thread;

use anyhow::Result;

use crate::{
    base::error::Failure,
    catalogue,
    engine::{
        Engine,
        container::{self, Container, Owner},
    },
    facts::context::{Context, EngineState, RejectedEngine, refuse_foreign},
};

/// Where a container of a name is.
#[derive(Clone, Debug)]
pub struct Search {
    name: String,
    /// The containers with their engines. Those that run come first.
    pub found: Vec<(Engine, Container)>,
    /// The engines that answered and have no such container.
    pub without: Vec<Engine>,
    /// The engines that are installed and gave no answer.
    pub silent: Vec<RejectedEngine>,
}

impl Context<'_> {
    /// Looks for a container on every engine that may have it. The questions run side by side.
    ///
    /// # Errors
    /// When no engine answers, and when a signal interrupts.
    pub fn search(&self, name: &str) -> Result<Search, Failure> {
        let answers = self.ask_all(&self.engines_to_search(), |program| {
            let answer = self.ask(&container::inspect_cmd(program, name));
            container::read_inspect(program, &answer)
        })?;
        let mut search = Search {
            name: name.to_owned(),
            found: Vec::new(),
            without: Vec::new(),
            silent: Vec::new(),
        };
        for answer in answers {
            match answer {
                // Two programs can be clients of the same engine, such as `podman` and a link to it.
                Ok((_, Some(container))) if search.has(&container) => {}
                Ok((engine, Some(container))) => search.found.push((engine, container)),
                Ok((engine, None)) => search.without.push(engine),
                Err(rejected) => search.silent.push(rejected),
            }
        }
        search.found.sort_by_key(|(_, one)| !one.state.is_up());
        search.silent.retain(RejectedEngine::may_have_containers);
        Ok(search)
    }

    /// Adds a hint to a failure if another engine has the image that this one does not have.
    pub fn name_engine_with_image(
        &self,
        failure: Failure,
        state: &EngineState,
        reference: &str,
    ) -> Failure {
        if !state.images.is_empty() {
            return failure;
        }
        let ask = |program: &'static str| {
            let limit = self.settings.engine.timeout;
            let found = self.inspect_images(program, &[reference], limit)?;
            Ok((program, !found.is_empty()))
        };
        let answers = self
            .ask_all(&self.engines_to_search(), ask)
            .unwrap_or_default();
        let others = answers.into_iter().flatten();
        let others =
            others.filter(|(program, has)| *has && *program != state.engine.engine.program);
        others.fold(failure, |failure, (program, _)| {
            failure.hint(format!(
                "use the engine that has this image: `--engine {program}`"
            ))
        })
    }

    /// Asks these engines at the same time. Those that are not installed are left out.
    ///
    /// # Errors
    /// When none answers, and when a signal interrupts.
    pub fn ask_all<T: Send>(
        &self,
        programs: &[&'static str],
        ask: impl Fn(&'static str) -> Result<T, String> + Sync,
    ) -> Result<Vec<Result<T, RejectedEngine>>, Failure> {
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = programs
                .iter()
                .map(|program| scope.spawn(|| self.ask_one(program, &ask)))
                .collect();
            let panicked = || "cannot be asked: its thread panicked".to_owned();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
                .zip(programs.iter())
                .map(|(answer, &program)| answer.map_err(|why| RejectedEngine { program, why }))
                .collect()
        });
        self.exec.fail_if_interrupted()?;
        if answers.iter().any(Result::is_ok) {
            let is_installed = |answer: &Result<T, RejectedEngine>| match answer {
                Ok(_) => true,
                Err(rejected) => rejected.is_installed(),
            };
            return Ok(answers.into_iter().filter(is_installed).collect());
        }
        let rejected: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        Err(self.no_engine_failure(&rejected))
    }
}

impl RejectedEngine {
    /// Whether it may have containers of ours. A daemon that does not run has no container. One that the user
    /// may not use most likely has none of theirs.
    pub fn may_have_containers(&self) -> bool {
        let known = catalogue::find_in_output(&self.why).map(|entry| entry.code);
        let has_none = matches!(known, Some("daemon-down" | "podman-down" | "socket-denied"));
        // A daemon on another machine may run, although the connection fails.
        let is_elsewhere = self.why.contains("timeout") || self.why.contains("no route to host");
        self.is_installed() && (!has_none || is_elsewhere)
    }
}

impl Search {
    fn has(&self, container: &Container) -> bool {
        self.found.iter().any(|(_, one)| one.id == container.id)
    }

    /// Our containers. There can be one in each engine.
    ///
    /// # Errors
    /// When all containers of the name belong to somebody else.
    pub fn ours(&self) -> Result<Vec<(Engine, Container)>, Failure> {
        let is_ours = |found: &&(Engine, Container)| found.1.owner() == Owner::Xtask;
        let ours: Vec<_> = self.found.iter().filter(is_ours).cloned().collect();
        if let (true, Some((_, foreign))) = (ours.is_empty(), self.found.first()) {
            refuse_foreign(&self.name, foreign)?;
        }
        Ok(ours)
    }

    /// Our container, for a command that needs one. A warning names the others.
    ///
    /// # Errors
    /// When all containers of the name belong to somebody else.
    pub fn one_of_ours(&self, cx: &Context) -> Result<Option<(Engine, Container)>, Failure> {
        let mut ours = self.ours()?.into_iter();
        let first = ours.next();
        for (engine, other) in ours {
            cx.ui.warn(&format!(
                "there is another container `{}` ({}) in {}: `--engine {}` selects it",
                self.name,
                other.state.status,
                engine.kind,
                engine.kind.program()
            ));
        }
        Ok(first)
    }

    /// The engine for the plan of a container that does not exist: the first one that answered.
    pub fn any_engine(&self) -> Option<Engine> {
        let found = self.found.iter().map(|(engine, _)| engine);
        self.without.iter().chain(found).next().cloned()
    }

    /// The names of the engines that answered and have no such container, for a message.
    fn without_names(&self) -> String {
        let names: Vec<_> = self
            .without
            .iter()
            .map(|one| one.kind.to_string())
            .collect();
        names.join(" or ")
    }

    /// Why some engines gave no answer, such as "`docker` did not answer within 3s".
    pub fn silence(&self) -> Option<String> {
        let lines: Vec<_> = self
            .silent
            .iter()
            .map(|one| format!("`{}` {}", one.program, one.why))
            .collect();
        (!lines.is_empty()).then(|| lines.join(", and "))
    }

    /// Warns that an engine that gave no answer may have such a container too.
    pub fn warn_of_silence(&self, cx: &Context) {
        if let Some(silence) = self.silence() {
            cx.ui.warn(&format!(
                "{silence}; it may have a container `{}` too",
                self.name
            ));
        }
    }

    /// Fails if an engine gave no answer: it may have the container that the others do not have.
    ///
    /// # Errors
    /// When there is such an engine.
    pub fn fail_if_silent(&self) -> Result<(), Failure> {
        let Some(silence) = self.silence() else {
            return Ok(());
        };
        let found = self.found.iter().map(|(engine, _)| engine);
        let others = self.without.iter().chain(found);
        let others: Vec<_> = others
            .map(|one| format!("`--engine {}`", one.kind.program()))
            .collect();
        let name = &self.name;
        let what = if self.without.is_empty() {
            format!("{silence}, so it may have a container `{name}` too")
        } else {
            let names = self.without_names();
            format!("there is no container `{name}` in {names}, but {silence}, so it may have one")
        };
        Err(Failure::new(what)
        .hint(
            "run the same command again; give the engine more time with `XTASK_ENGINE_TIMEOUT=30s`",
        )
        .hint(format!(
            "ask only the other engine: {}",
            others.join(" or ")
        )))
    }
}
