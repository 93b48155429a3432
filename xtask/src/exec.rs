//! The only place that starts a process. Plans run here, and probes.

use std::{
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use duct::unix::HandleExt;

use crate::{
    catalogue,
    error::Failure,
    plan::{Cmd, OnFailure, Output, Plan, Step},
    timings::{Purpose, Timings, step_name},
    ui::{Ui, Verbosity},
};

/// How much of an engine's talk is kept to find its failure in.
const TAIL: usize = 64 * 1024;
/// How often a running child is looked at for a signal that reached only us.
pub const TICK: Duration = Duration::from_millis(100);

/// What a finished process left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; 128 + signal where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// The first line of its complaint that says something.
    pub fn complaint(&self) -> String {
        self.stderr
            .lines()
            .map(crate::ui::plain)
            .find(|line| !line.is_empty())
            .unwrap_or_else(|| "it said nothing".to_owned())
    }
}

/// An answer as a probe gives it, for tests.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unnecessary_wraps)]
pub fn said(code: i32, stdout: &str, stderr: &str) -> Result<Finished, NoAnswer> {
    Ok(Finished {
        code,
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    })
}

/// Why a probe has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It did not end in time, and was killed.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
    /// We were told to stop.
    Interrupted(i32),
}

/// Runs things, and listens for the signals that tell us to stop.
#[derive(Clone, Debug)]
pub struct Exec {
    caught: Arc<AtomicUsize>,
    cleaning: Arc<AtomicBool>,
    /// A signal that waits for the cleaning's end.
    put_off: Arc<AtomicUsize>,
    ui: Ui,
    timings: Timings,
}

impl Exec {
    /// From now on a signal is noted instead of ending us, so that what we started can be
    /// ended and cleaned up.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn new(ui: Ui, timings: Timings) -> std::io::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), number)?;
        }
        Ok(Self {
            caught,
            cleaning: Arc::default(),
            put_off: Arc::default(),
            ui,
            timings,
        })
    }

    /// One for tests, that says nothing.
    #[cfg(test)]
    pub fn silent() -> Self {
        use crate::called::Called;
        let ui = Ui {
            verbosity: Verbosity::Quiet,
            live: false,
            called: Called::ByCargo,
        };
        Self::new(ui, Timings::new(false)).unwrap()
    }

    /// The signal that told us to stop, if one did. While we clean up, none does.
    pub fn caught(&self) -> Option<i32> {
        self.signal()
            .filter(|_| !self.cleaning.load(Ordering::SeqCst))
    }

    fn signal(&self) -> Option<i32> {
        match self.caught.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Does what must be done also when a signal told us to stop. One that comes meanwhile ends
    /// the step that is under way, and no other: who presses Ctrl-C twice wants it to end, not to
    /// find containers tomorrow.
    pub fn cleaning<T>(&self, work: impl FnOnce() -> T) -> T {
        self.put_off();
        self.cleaning.store(true, Ordering::SeqCst);
        let done = work();
        self.put_off();
        self.cleaning.store(false, Ordering::SeqCst);
        self.caught
            .store(self.put_off.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        done
    }

    /// Keeps a signal for after the cleaning.
    fn put_off(&self) {
        let signal = self.caught.swap(0, Ordering::SeqCst);
        if signal != 0 {
            self.put_off.store(signal, Ordering::SeqCst);
        }
    }

    /// # Errors
    /// When a signal told us to stop.
    pub fn check(&self) -> Result<(), Failure> {
        self.caught()
            .map_or(Ok(()), |signal| Err(Failure::signal(signal)))
    }

    /// Shows what was run until now and how long it took, if that is wanted.
    pub fn show_timings(&self) {
        if let Some(table) = self.timings.table() {
            self.ui.raw(&table);
        }
    }

    /// Runs a plan's steps until one fails.
    ///
    /// # Errors
    /// The first failure, with the step's own exit code.
    pub fn run(&self, plan: &Plan) -> anyhow::Result<()> {
        plan.steps
            .iter()
            .try_for_each(|step| self.step(step).map(|_| ()))
    }

    /// Runs one step.
    ///
    /// # Errors
    /// When it fails and that means to stop, and when a signal told us to.
    pub fn step(&self, step: &Step) -> anyhow::Result<Finished> {
        self.check()?;
        if let Some((verb, object)) = &step.say {
            self.ui.status(verb, object);
        }
        self.ui.verbose(&format!("+ {}", step.cmd.render()));
        let began = Instant::now();
        let finished = self.finish(step);
        let failed = match &finished {
            Ok(finished) => exit_code(finished),
            Err(_) => Some("not started".to_owned()),
        };
        self.timings
            .note(Purpose::Step, &step_name(step), began, failed);
        let finished = finished?;
        self.check()?;
        if finished.ok() || step.on_failure == OnFailure::GoOn {
            return Ok(finished);
        }
        Err(self.explain(step, &finished).into())
    }

    /// Runs it to its end.
    fn finish(&self, step: &Step) -> anyhow::Result<Finished> {
        match step.output {
            // Nobody wants to see it, unless it fails.
            Output::Talk if self.ui.verbosity == Verbosity::Quiet => self.wait(
                &step.cmd,
                &expression(&step.cmd)
                    .stdin_null()
                    .stderr_to_stdout()
                    .stdout_capture(),
            ),
            Output::Talk if self.ui.live => {
                self.wait(&step.cmd, &expression(&step.cmd).stdout_to_stderr())
            }
            Output::Talk => self.talk(&step.cmd),
            Output::Result => self.wait(&step.cmd, &expression(&step.cmd)),
            Output::Quiet | Output::Measured => self.wait(
                &step.cmd,
                &expression(&step.cmd)
                    .stdin_null()
                    .stdout_capture()
                    .stderr_capture(),
            ),
            Output::Handover => {
                // Nothing of ours comes after it.
                self.show_timings();
                Err(handover(&step.cmd).into())
            }
        }
    }

    /// Why a step failed, with what is known of such a failure.
    fn explain(&self, step: &Step, finished: &Finished) -> Failure {
        if step.output == Output::Quiet || self.ui.verbosity == Verbosity::Quiet {
            self.ui.raw(&finished.stdout);
            self.ui.raw(&finished.stderr);
        }
        let what = step
            .cmd
            .args
            .iter()
            .take_while(|arg| !arg.starts_with('-'))
            .take(2);
        let words: Vec<_> = std::iter::once(&step.cmd.program)
            .chain(what)
            .map(String::as_str)
            .collect();
        let code = u8::try_from(finished.code).unwrap_or(1);
        let said = format!("{}\n{}", finished.stdout, finished.stderr);
        // An engine draws its progress on the terminal only where it has it for itself.
        let unread = step.output == Output::Talk && self.ui.live && said.trim().is_empty();
        let hints = if unread {
            vec![catalogue::UNREAD.to_owned()]
        } else {
            catalogue::hints_for(&said)
        };
        Failure::new(format!(
            "`{}` failed with exit code {}",
            words.join(" "),
            finished.code
        ))
        .hints(hints)
        .code(code)
        .with_said(said)
    }

    /// Asks a read-only question and keeps the answer, whatever its exit code.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ask(&self, cmd: &Cmd, limit: Duration) -> Result<Finished, NoAnswer> {
        self.ui.verbose(&format!("? {}", cmd.render()));
        let began = Instant::now();
        let answer = self.answer(cmd, limit);
        let failed = match &answer {
            Ok(finished) => exit_code(finished),
            Err(_) => Some("no answer".to_owned()),
        };
        self.timings
            .note(Purpose::Probe, &cmd.render(), began, failed);
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
            let next = deadline.min(Instant::now() + TICK);
            if let Some(output) = handle.wait_deadline(next).map_err(not_started)? {
                return Ok(finished(output));
            }
            let stop = self.caught().map(NoAnswer::Interrupted);
            let stop = stop.or((Instant::now() >= deadline).then_some(NoAnswer::TimedOut));
            if let Some(why) = stop {
                // A hung client's own children may hold its output open, so nobody waits for it.
                for pid in handle.pids() {
                    kill(pid, libc::SIGKILL);
                }
                thread::spawn(move || drop(handle.wait().map(|_| ())));
                return Err(why);
            }
        }
    }

    /// Starts a process whose standard output is read as it comes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn stream(&self, cmd: &Cmd) -> std::io::Result<Stream> {
        self.ui.verbose(&format!("+ {}", cmd.render()));
        let reader = expression(cmd).stdin_null().stderr_capture().reader()?;
        let stream = Stream {
            reader: Arc::new(reader),
            over: Arc::default(),
        };
        let (exec, reader, over) = (self.clone(), Arc::clone(&stream.reader), &stream.over);
        let over = Arc::clone(over);
        // A read does not return before there is something to read.
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                if exec.caught().is_some() {
                    let _ = reader.kill();
                    break;
                }
                thread::sleep(TICK);
            }
        });
        Ok(stream)
    }

    /// Does long work in this process that is to end soon after a signal. The work asks the check
    /// that it is given again and again, and ends with its error.
    ///
    /// # Errors
    /// The work's own, or that a signal told us to stop.
    pub fn interruptible<T>(
        &self,
        work: impl FnOnce(&(dyn Fn() -> std::io::Result<()> + Sync)) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let done = work(&|| self.check().map_err(std::io::Error::other));
        self.check()?;
        done
    }

    /// Waits, unless a signal comes; then its number is the error.
    ///
    /// # Errors
    /// The signal that told us to stop.
    pub fn pause(&self, time: Duration) -> Result<(), i32> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Some(signal) = self.caught() {
                return Err(signal);
            }
            thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Runs with everything it prints going to standard error, and its end kept.
    fn talk(&self, cmd: &Cmd) -> anyhow::Result<Finished> {
        let (mut reader, writer) = std::io::pipe()?;
        let copy = thread::spawn(move || {
            let (mut tail, mut chunk) = (Vec::new(), [0; 8192]);
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                let _ = std::io::stderr().write_all(&chunk[..count]);
                tail.extend_from_slice(&chunk[..count]);
                if tail.len() > 2 * TAIL {
                    tail.drain(..tail.len() - TAIL);
                }
            }
            tail
        });
        let mut finished =
            self.wait(cmd, &expression(cmd).stderr_to_stdout().stdout_file(writer))?;
        // The expression held the pipe's other end; it is gone with the call above.
        let tail = copy.join().unwrap_or_default();
        finished.stderr = String::from_utf8_lossy(&tail).into_owned();
        Ok(finished)
    }

    /// Waits for a child; a signal that reached only us is handed on to it.
    fn wait(&self, cmd: &Cmd, expression: &duct::Expression) -> anyhow::Result<Finished> {
        let handle = expression.start().map_err(|error| {
            Failure::new(format!("cannot start `{}`: {error}", cmd.program)).code(127)
        })?;
        if self.cleaning.load(Ordering::SeqCst) {
            self.put_off();
        }
        let mut handed_on = false;
        loop {
            if let Some(output) = handle.wait_timeout(TICK)? {
                return Ok(finished(output));
            }
            if let (Some(signal), false) = (self.signal(), handed_on) {
                handed_on = true;
                // On Ctrl-C the terminal told the child as well; once more does no harm.
                handle.send_signal(signal)?;
            }
        }
    }
}

/// What a process prints, as it comes. A signal that reached only us ends it.
pub struct Stream {
    reader: Arc<duct::ReaderHandle>,
    over: Arc<AtomicBool>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self.reader).read(buffer)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

#[allow(unsafe_code)]
fn kill(pid: u32, signal: i32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: takes two numbers and touches no memory (kill(2)). The pid is of a child that
        // has not been waited for, so it cannot have been given to another process.
        unsafe { libc::kill(pid, signal) };
    }
}

fn expression(cmd: &Cmd) -> duct::Expression {
    let mut expression = duct::cmd(&cmd.program, &cmd.args).unchecked();
    for (name, value) in &cmd.env {
        expression = expression.env(name, value.expose());
    }
    if let Some(stdin) = &cmd.stdin {
        expression = expression.stdin_bytes(stdin.secret.as_bytes());
    }
    expression
}

/// An exit code that is not 0, in words.
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
    }
}

/// Becomes the command: Ctrl-C, the terminal and the exit code are its own from here.
#[allow(clippy::disallowed_methods)] // duct cannot replace the process
fn handover(cmd: &Cmd) -> Failure {
    let mut command = std::process::Command::new(&cmd.program);
    command.args(&cmd.args);
    for (name, value) in &cmd.env {
        command.env(name, value.expose());
    }
    let error = command.exec();
    Failure::new(format!("cannot start `{}`: {error}", cmd.program)).code(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::called::Called;

    #[test]
    fn long_work_ends_at_a_signal() {
        let exec = Exec::silent();
        let work = |check: &dyn Fn() -> std::io::Result<()>| {
            check()?;
            exec.caught.store(2, Ordering::SeqCst);
            check()?;
            Ok("done")
        };
        let error = exec.interruptible(|check| work(check)).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>(), Some(&Failure::signal(2)));
        exec.caught.store(0, Ordering::SeqCst);
        assert_eq!(exec.interruptible(|_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn what_an_engine_printed_on_the_terminal_can_be_asked_about() {
        let hints = |live, script: &str| {
            let ui = Ui {
                verbosity: Verbosity::Normal,
                live,
                called: Called::ByCargo,
            };
            let exec = Exec::new(ui, Timings::new(false)).unwrap();
            let step = Step::new(Cmd::new("sh").args(["-c", script]), Output::Talk);
            let error = exec.step(&step).unwrap_err();
            error
                .downcast_ref::<Failure>()
                .unwrap()
                .hint_lines()
                .to_vec()
        };
        assert_eq!(hints(true, "exit 3"), [catalogue::UNREAD]);
        assert_eq!(hints(false, "exit 3"), [""; 0]);
        assert_eq!(
            hints(false, "echo no space left on device >&2; exit 3"),
            catalogue::hints_of("disk-full")
        );
    }
}
