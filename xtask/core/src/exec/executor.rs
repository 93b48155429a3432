//! Runs steps and asks questions, and notices the signals that tell xtask to stop.

use std::{
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use duct::unix::HandleExt;

use crate::{
    base::{
        error::Failure,
        ui::{Clock, Ui, Verbosity, human_time},
    },
    catalogue,
    exec::{
        finished::{Finished, NoAnswer},
        stream::Stream,
        terminal::{self, NoEcho, PseudoTerminal, copy_size},
        timings::{Purpose, Timings, step_name},
    },
    plan::{Cmd, OnFailure, Output, Plan, Step},
};

/// How much of an engine's output is kept, in bytes, to recognise its failure.
const KEPT_OUTPUT: usize = 64 * 1024;
/// How often xtask looks for a signal while it waits.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);
/// The pause between two attempts of a step that is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt of a step that is retried may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// Runs processes.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The signal that told xtask to stop; 0 for none.
    signal: Arc<AtomicUsize>,
    /// Whether signals wait until the work of [`Exec::with_deferred_signals`] is done.
    defers_signals: Arc<AtomicBool>,
    /// A signal that takes effect after the cleanup; 0 for none.
    deferred: Arc<AtomicUsize>,
    ui: Ui,
    timings: Timings,
}

/// The end of [`Exec::when_stopped`].
pub struct StopWatch(Arc<AtomicBool>);

impl Drop for StopWatch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Exec {
    /// Installs the signal handlers: from now on SIGINT, SIGTERM and SIGHUP don't end xtask, so that it
    /// can stop its children and clean up.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new(ui: Ui, timings: Timings) -> std::io::Result<Self> {
        let stop_signal = Arc::new(AtomicUsize::new(0));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&stop_signal), number)?;
        }
        Ok(Self {
            signal: stop_signal,
            defers_signals: Arc::default(),
            deferred: Arc::default(),
            ui,
            timings,
        })
    }

    /// An executor for tests, which prints nothing.
    #[cfg(test)]
    pub fn silent() -> Self {
        use crate::base::invocation::Invocation;
        let ui = Ui {
            verbosity: Verbosity::Quiet,
            live: false,
            invocation: Invocation::Cargo,
            engine: None,
        };
        Self::new(ui, Timings::new(false)).unwrap()
    }

    /// The signal that told xtask to stop. None during a cleanup.
    pub fn stop_signal(&self) -> Option<i32> {
        self.any_signal()
            .filter(|_| !self.defers_signals.load(Ordering::SeqCst))
    }

    fn any_signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Runs work that a signal must not prevent. A second Ctrl-C stops the current step but does
    /// not skip the rest of the cleanup.
    pub fn with_deferred_signals<T>(&self, work: impl FnOnce() -> T) -> T {
        self.defer_signal();
        self.defers_signals.store(true, Ordering::SeqCst);
        let done = work();
        self.defer_signal();
        self.defers_signals.store(false, Ordering::SeqCst);
        self.signal
            .store(self.deferred.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        done
    }

    fn defer_signal(&self) {
        let signal = self.signal.swap(0, Ordering::SeqCst);
        if signal != 0 {
            self.deferred.store(signal, Ordering::SeqCst);
        }
    }

    /// Fails if a signal told xtask to stop.
    ///
    /// # Errors
    /// When one did.
    pub fn fail_if_interrupted(&self) -> Result<(), Failure> {
        self.stop_signal()
            .map_or(Ok(()), |signal| Err(Failure::signal(signal)))
    }

    /// Runs long work of this process that ends soon after a signal. The work calls the check from time
    /// to time, and fails with the check's error.
    ///
    /// # Errors
    /// The work's own, and when a signal interrupts it.
    pub fn interruptible<T>(
        &self,
        work: impl FnOnce(&(dyn Fn() -> std::io::Result<()> + Sync)) -> Result<T>,
    ) -> Result<T> {
        let done = work(&|| self.fail_if_interrupted().map_err(std::io::Error::other));
        self.fail_if_interrupted()?;
        done
    }

    /// Does some work in a thread of its own as soon as a signal tells xtask to stop, if that happens
    /// before the returned value is dropped.
    pub fn when_stopped(&self, work: impl FnOnce() + Send + 'static) -> StopWatch {
        let exec = self.clone();
        let is_over = Arc::new(AtomicBool::new(false));
        let watch = StopWatch(Arc::clone(&is_over));
        thread::spawn(move || {
            while exec.stop_signal().is_none() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                thread::sleep(SIGNAL_INTERVAL);
            }
            work();
        });
        watch
    }

    /// Shows what ran so far and how long it took, if `--timings` asks for it.
    pub fn show_timings(&self) {
        if let Some(table) = self.timings.table() {
            self.ui.print_unchanged(&table);
        }
    }

    /// Runs the steps of a plan until one fails, then its cleanup in any case.
    ///
    /// # Errors
    /// The first failure, with the step's exit code.
    pub fn run(&self, plan: &Plan) -> Result<()> {
        self.outputs(plan).map(|_| ())
    }

    /// As [`Self::run`], and returns the result of each step, in the order of the steps.
    ///
    /// # Errors
    /// The first failure, with the step's exit code.
    pub fn outputs(&self, plan: &Plan) -> Result<Vec<Finished>> {
        let done = plan.steps.iter().map(|step| self.step(step)).collect();
        self.clean_up(plan);
        done
    }

    /// Runs the cleanup of a plan. Its failures are ignored.
    pub fn clean_up(&self, plan: &Plan) {
        if plan.cleanup.is_empty() {
            return;
        }
        self.with_deferred_signals(|| {
            for step in &plan.cleanup {
                let _ = self.step(step);
            }
        });
    }

    /// Runs one step.
    ///
    /// # Errors
    /// When it fails and its failure counts, and when a signal interrupts it.
    pub fn step(&self, step: &Step) -> Result<Finished> {
        self.fail_if_interrupted()?;
        if let Some((verb, object)) = &step.status {
            self.ui.status(verb, object);
        }
        if let Some(budget) = step.retry_for {
            let is_final = |why: &str| step.give_up_on.iter().any(|text| why.contains(text));
            let waited = self.retry(&step.cmd, &step_name(step), budget, |why| {
                is_final(why).then_some(())
            })?;
            return match waited {
                Ok(finished) => Ok(finished),
                Err(GaveUp::Because((), why)) => {
                    Err(Failure::new(format!("`{}` failed: {why}", step.cmd.summary())).into())
                }
                Err(GaveUp::TimedOut(why)) => Err(Failure::new(format!(
                    "`{}` did not succeed within {}: {why}",
                    step.cmd.summary(),
                    human_time(budget)
                ))
                .into()),
            };
        }
        self.ui.verbose(&format!("+ {}", step.cmd.render()));
        let began = Instant::now();
        let finished = self.run_step(step);
        let failed = match &finished {
            Ok(finished) => exit_code(finished),
            Err(_) => Some("not started".to_owned()),
        };
        self.timings
            .note(Purpose::Step, &step_name(step), began, failed);
        let mut finished = finished?;
        finished.took = began.elapsed();
        self.fail_if_interrupted()?;
        let has_text =
            |text: &&str| finished.stdout.contains(*text) || finished.stderr.contains(*text);
        if !finished.ok()
            && let Some(passing) = step.passing_failures.iter().copied().find(has_text)
        {
            let what = step.cmd.summary();
            self.ui.warn(&format!(
                "`{what}` failed with `{passing}`: trying once more"
            ));
            return self.step(&Step {
                passing_failures: Vec::new(),
                ..step.clone()
            });
        }
        if finished.ok() || step.on_failure == OnFailure::Continue {
            return Ok(finished);
        }
        Err(self.explain(step, &finished).into())
    }

    fn run_step(&self, step: &Step) -> Result<Finished> {
        let capture = || {
            expression(&step.cmd)
                .stdin_null()
                .stdout_capture()
                .stderr_capture()
        };
        match step.output {
            // With `--quiet` it is shown only if the step fails.
            Output::Progress if self.ui.verbosity == Verbosity::Quiet => self.wait(
                &step.cmd,
                &expression(&step.cmd)
                    .stdin_null()
                    .stderr_to_stdout()
                    .stdout_capture(),
            ),
            Output::Progress if self.ui.live => match PseudoTerminal::open() {
                Ok(terminal) => self.run_on_terminal(&step.cmd, terminal),
                Err(_) => self.wait(&step.cmd, &expression(&step.cmd).stdout_to_stderr()),
            },
            Output::Progress => self.run_and_copy_output(&step.cmd),
            Output::Result => self.wait(&step.cmd, &expression(&step.cmd)),
            Output::Quiet | Output::Streamed => match step.limit {
                None => self.wait(&step.cmd, &capture()),
                Some(limit) => match self.answer(&step.cmd, limit) {
                    Ok(finished) => Ok(finished),
                    Err(NoAnswer::Interrupted(signal)) => Err(Failure::signal(signal).into()),
                    Err(why) => Err(Failure::new(format!("`{}` {why}", step.cmd.summary())).into()),
                },
            },
            Output::ReplaceProcess => {
                // The process is replaced, so nothing of xtask runs after this.
                self.show_timings();
                Err(replace_process(&step.cmd).into())
            }
        }
    }

    /// Why a step failed, with the hints for a failure that the catalogue knows.
    fn explain(&self, step: &Step, finished: &Finished) -> Failure {
        if step.output == Output::Quiet || self.ui.verbosity == Verbosity::Quiet {
            self.ui.print_unchanged(&finished.stdout);
            self.ui.print_unchanged(&finished.stderr);
        }
        let code = u8::try_from(finished.code).unwrap_or(1);
        let output = format!("{}\n{}", finished.stdout, finished.stderr);
        let hints = catalogue::hints_for_output(&output);
        Failure::new(format!(
            "`{}` failed with exit code {}",
            step.cmd.summary(),
            finished.code
        ))
        .hints(hints)
        .code(code)
        .with_output(output)
    }

    /// Repeats a command until it succeeds, `give_up` returns something for why an attempt failed, or the time
    /// is over. Returns what the successful attempt left.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn retry<T>(
        &self,
        cmd: &Cmd,
        name: &str,
        budget: Duration,
        mut give_up: impl FnMut(&str) -> Option<T>,
    ) -> Result<Result<Finished, GaveUp<T>>> {
        let clock = Clock::start();
        let done = loop {
            let attempt = self.capture(cmd, ATTEMPT_LIMIT);
            self.fail_if_interrupted()?;
            let why = match attempt {
                Ok(done) if done.ok() => break Ok(done),
                Ok(done) => done.last_line(),
                Err(why) => why.to_string(),
            };
            if let Some(reason) = give_up(&why) {
                break Err(GaveUp::Because(reason, why));
            }
            if clock.elapsed() >= budget {
                break Err(GaveUp::TimedOut(why));
            }
            self.ui.draw(&[format!(
                "     Waiting for {name}, {} ({why})",
                human_time(clock.elapsed())
            )]);
            self.pause(RETRY_PAUSE).map_err(Failure::signal)?;
        };
        self.ui.draw(&[]);
        Ok(done)
    }

    /// Runs a read-only command that answers at once, such as git in a folder, without some variables of the
    /// environment. Returns its standard output.
    ///
    /// # Errors
    /// What it wrote to standard error, if it fails; empty if it is not installed.
    #[allow(clippy::disallowed_methods)] // xshell runs the short questions
    pub fn read(
        &self,
        program: &str,
        folder: &Path,
        args: &[&str],
        without: &[&str],
    ) -> Result<String, String> {
        let line = Cmd::new(program).args(args.iter().copied()).render();
        self.ui.verbose(&format!("? {line}"));
        let began = Instant::now();
        let shell = xshell::Shell::new().map_err(|error| error.to_string())?;
        shell.change_dir(folder);
        let mut cmd = shell.cmd(program).args(args).quiet().ignore_status();
        for name in without {
            cmd = cmd.env_remove(name);
        }
        let answer = match cmd.output() {
            Ok(output) if output.status.success() => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(_) => Err(String::new()),
        };
        let failed = answer.is_err().then(|| "failed".to_owned());
        self.timings.note(Purpose::Question, &line, began, failed);
        answer
    }

    /// Runs a command with a time limit and captures its output. Returns its result, whatever its exit code.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn capture(&self, cmd: &Cmd, limit: Duration) -> Result<Finished, NoAnswer> {
        self.ui.verbose(&format!("? {}", cmd.render()));
        let began = Instant::now();
        let mut answer = self.answer(cmd, limit);
        let failed = match &answer {
            Ok(finished) => exit_code(finished),
            Err(_) => Some("no answer".to_owned()),
        };
        self.timings
            .note(Purpose::Question, &cmd.render(), began, failed);
        if let Ok(finished) = &mut answer {
            finished.took = began.elapsed();
        }
        answer
    }

    fn answer(&self, cmd: &Cmd, limit: Duration) -> Result<Finished, NoAnswer> {
        let not_started = |error: std::io::Error| NoAnswer::NotStarted(error.to_string());
        let handle = expression(cmd)
            .stdin_null()
            .stdout_capture()
            .stderr_capture()
            .start()
            .map_err(not_started)?;
        let deadline = Instant::now() + limit;
        loop {
            let next = deadline.min(Instant::now() + SIGNAL_INTERVAL);
            if let Some(output) = handle.wait_deadline(next).map_err(not_started)? {
                return Ok(finished(output));
            }
            let stop = self.stop_signal().map(NoAnswer::Interrupted);
            let stop = stop.or((Instant::now() >= deadline).then_some(NoAnswer::TimedOut(limit)));
            if let Some(why) = stop {
                let _ = handle.kill();
                // A child of a killed client may hold its output open, so a thread of its own waits.
                thread::spawn(move || drop(handle.wait().map(|_| ())));
                return Err(why);
            }
        }
    }

    /// Starts a process whose standard output is read while it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn stream(&self, cmd: &Cmd) -> std::io::Result<Stream> {
        self.ui.verbose(&format!("+ {}", cmd.render()));
        let reader = expression(cmd).stdin_null().stderr_capture().reader()?;
        let exec = self.clone();
        Ok(Stream::new(reader, SIGNAL_INTERVAL, move || {
            exec.stop_signal().is_some()
        }))
    }

    /// Asks a question on the terminal. The result is empty if there is no answer.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn ask(&self, question: &str) -> Result<String, Failure> {
        self.ui.prompt(question);
        let answer = terminal::read_line(|| self.stop_signal().is_some());
        if let Some(signal) = self.stop_signal() {
            // The next message begins on a line of its own.
            self.ui.print_unchanged("\n");
            return Err(Failure::signal(signal));
        }
        Ok(answer.ok().flatten().unwrap_or_default().trim().to_owned())
    }

    /// As [`Self::ask`], without showing what is typed.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn ask_secret(&self, question: &str) -> Result<String, Failure> {
        let silent = NoEcho::new();
        let answer = self.ask(question);
        drop(silent);
        if answer.is_ok() {
            self.ui.print_unchanged("\n");
        }
        answer
    }

    /// Asks for confirmation on the terminal. No answer means no.
    ///
    /// # Errors
    /// When a signal interrupts.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let answer = self.ask(&format!("{question} [y/N]"))?;
        Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
    }

    /// Waits for a time.
    ///
    /// # Errors
    /// The number of the signal that interrupts it.
    pub fn pause(&self, time: Duration) -> Result<(), i32> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Some(signal) = self.stop_signal() {
                return Err(signal);
            }
            thread::sleep(SIGNAL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Runs a command, shows its output on standard error, and keeps the end of it.
    fn run_and_copy_output(&self, cmd: &Cmd) -> Result<Finished> {
        let (reader, writer) = std::io::pipe()?;
        let copy = thread::spawn(move || copy_to_stderr(reader));
        let mut finished =
            self.wait(cmd, &expression(cmd).stderr_to_stdout().stdout_file(writer))?;
        // The pipe's writing end was in the expression, which the call above has dropped.
        finished.stderr = copy.join().unwrap_or_default();
        Ok(finished)
    }

    /// As [`Self::run_and_copy_output`], for a command that draws its progress on a terminal.
    fn run_on_terminal(&self, cmd: &Cmd, terminal: PseudoTerminal) -> Result<Finished> {
        let reader = terminal.ours.try_clone()?;
        let copy = thread::spawn(move || copy_to_stderr(reader));
        let finished = {
            let stdout = terminal.theirs.try_clone()?;
            let to_terminal = expression(cmd)
                .stdout_file(stdout)
                .stderr_file(terminal.theirs);
            // The user may change the size of the real terminal.
            self.wait_and(cmd, &to_terminal, || copy_size(&terminal.ours))
        };
        let drawn = copy.join().unwrap_or_default();
        let mut finished = finished?;
        finished.stderr = anstream::adapter::strip_str(&drawn)
            .to_string()
            .replace('\r', "\n");
        Ok(finished)
    }

    /// Waits for a child, and forwards a signal to it.
    fn wait(&self, cmd: &Cmd, expression: &duct::Expression) -> Result<Finished> {
        self.wait_and(cmd, expression, || ())
    }

    /// As [`Self::wait`], and calls `work` at each interval.
    fn wait_and(
        &self,
        cmd: &Cmd,
        expression: &duct::Expression,
        work: impl Fn(),
    ) -> Result<Finished> {
        let handle = expression.start().map_err(|error| {
            Failure::new(format!("cannot start `{}`: {error}", cmd.program)).code(127)
        })?;
        if self.defers_signals.load(Ordering::SeqCst) {
            self.defer_signal();
        }
        let mut forwarded = false;
        loop {
            if let Some(output) = handle.wait_timeout(SIGNAL_INTERVAL)? {
                return Ok(finished(output));
            }
            if let (Some(signal), false) = (self.any_signal(), forwarded) {
                forwarded = true;
                // On Ctrl-C the child has the signal from the terminal already. A second one does no
                // harm.
                handle.send_signal(signal)?;
            }
            work();
        }
    }
}

/// Shows what a program prints on standard error, and returns the end of it.
fn copy_to_stderr(mut reader: impl Read) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 8192]);
    // Linux reports the end of a pseudo-terminal as an error, so an error ends the loop too.
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        let _ = std::io::stderr().write_all(&chunk[..count]);
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > 2 * KEPT_OUTPUT {
            kept.drain(..kept.len() - KEPT_OUTPUT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The platform that Docker builds, pulls and runs by default. No command gets it from the user's environment:
/// Docker would refuse to run an image that was built here for another platform.
pub const DOCKER_DEFAULT_PLATFORM: &str = "DOCKER_DEFAULT_PLATFORM";

/// Why a command is not repeated any more. Each holds the last line of the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GaveUp<T> {
    TimedOut(String),
    Because(T, String),
}

#[allow(clippy::disallowed_methods)] // duct runs pipes and streams
fn expression(cmd: &Cmd) -> duct::Expression {
    let mut expression = duct::cmd(&cmd.program, &cmd.args).unchecked();
    expression = expression.env_remove(DOCKER_DEFAULT_PLATFORM);
    for (name, value) in &cmd.env {
        expression = expression.env(name, value.expose());
    }
    if let Some(stdin) = &cmd.stdin {
        expression = expression.stdin_bytes(stdin.text.as_bytes());
    }
    expression
}

/// The exit code in words, if it is not 0.
fn exit_code(finished: &Finished) -> Option<String> {
    (!finished.ok()).then(|| format!("exit code {}", finished.code))
}

fn finished(output: &std::process::Output) -> Finished {
    let status = output.status;
    Finished {
        code: status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap_or(1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: Duration::ZERO,
    }
}

/// Replaces this process by the command, which then owns the terminal, Ctrl-C and the exit code.
#[allow(clippy::disallowed_methods)] // duct cannot replace the process
fn replace_process(cmd: &Cmd) -> Failure {
    let mut command = std::process::Command::new(&cmd.program);
    command.args(&cmd.args);
    command.env_remove(DOCKER_DEFAULT_PLATFORM);
    for (name, value) in &cmd.env {
        command.env(name, value.expose());
    }
    let error = command.exec();
    Failure::new(format!("cannot start `{}`: {error}", cmd.program)).code(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::invocation::Invocation;

    #[test]
    fn long_work_ends_at_a_signal() {
        let exec = Exec::silent();
        let work = |check: &dyn Fn() -> std::io::Result<()>| {
            check()?;
            exec.signal.store(2, Ordering::SeqCst);
            check()?;
            Ok("done")
        };
        let error = exec.interruptible(|check| work(check)).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>(), Some(&Failure::signal(2)));
        exec.signal.store(0, Ordering::SeqCst);
        assert_eq!(exec.interruptible(|_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn a_failure_is_recognised_with_and_without_a_terminal() {
        let hints = |live, script: &str| {
            let ui = Ui {
                verbosity: Verbosity::Normal,
                live,
                invocation: Invocation::Cargo,
                engine: None,
            };
            let exec = Exec::new(ui, Timings::new(false)).unwrap();
            let step = Step::new(Cmd::new("sh").args(["-c", script]), Output::Progress);
            let error = exec.step(&step).unwrap_err();
            error
                .downcast_ref::<Failure>()
                .unwrap()
                .hint_lines()
                .to_vec()
        };
        let known = catalogue::hints_for_code("disk-full");
        for live in [true, false] {
            assert_eq!(hints(live, "exit 3"), [""; 0]);
            let script = "echo no space left on device >&2; exit 3";
            assert_eq!(hints(live, script), known);
        }
        // The program draws as it does on a terminal, in colours.
        let drawn =
            "test -t 1 && test -t 2 && printf 'no \\033[1mspace\\033[0m left on device'; exit 3";
        assert_eq!(hints(true, drawn), known);
        assert_eq!(hints(false, drawn), [""; 0]);
    }

    #[test]
    fn a_failure_that_passes_by_itself_is_tried_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = |code: &str| {
            format!(
                "echo x >> {0}; echo 'no such layer' >&2; test $(wc -l < {0}) -ge {code}",
                log.display()
            )
        };
        let runs = |succeeds_at: &str, texts| {
            std::fs::write(&log, "").unwrap();
            let cmd = Cmd::new("sh").args(["-c", &script(succeeds_at)]);
            let mut step = Step::new(cmd, Output::Quiet);
            step.passing_failures = texts;
            let ok = Exec::silent().step(&step).is_ok();
            (ok, std::fs::read_to_string(&log).unwrap().lines().count())
        };
        assert_eq!(runs("1", vec!["layer"]), (true, 1));
        assert_eq!(runs("2", vec!["another", "layer"]), (true, 2));
        assert_eq!(runs("3", vec!["layer"]), (false, 2));
        assert_eq!(runs("2", vec!["another"]), (false, 1));
    }

    #[test]
    fn a_step_is_retried_until_it_succeeds_or_its_time_is_over() {
        let exec = Exec::silent();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tried");
        let script = format!(
            "test -e {0} || {{ touch {0}; echo not yet; exit 1; }}",
            file.display()
        );
        let cmd = Cmd::new("sh").args(["-c", &script]);
        let step = Step::new(cmd, Output::Quiet).retry_for(Duration::from_secs(5));
        assert!(exec.step(&step).unwrap().ok());
        let step = Step::new(Cmd::new("false"), Output::Quiet).retry_for(Duration::ZERO);
        let error = exec.step(&step).unwrap_err().to_string();
        assert_eq!(error, "`false` did not succeed within 0.0 s: exit code 1");
    }

    #[test]
    fn the_cleanup_runs_after_a_failure() {
        let exec = Exec::silent();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cleaned");
        let step = |program: &str| Step::new(Cmd::new(program), Output::Quiet);
        let touch = Cmd::new("touch").arg(file.to_string_lossy());
        let plan = Plan {
            steps: vec![step("true"), step("false")],
            cleanup: vec![step("false"), Step::new(touch, Output::Quiet)],
        };
        assert!(exec.run(&plan).is_err());
        assert!(file.exists());
    }
}
