//! Prints messages to standard error and results to standard output. No other module prints. The texts are
//! readable without colour.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use crate::base::invocation::Invocation;

/// Which messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Prints messages and results.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    pub verbosity: Verbosity,
    /// Whether standard error is a terminal, on which a line can be redrawn.
    pub live: bool,
    /// How xtask was invoked. Messages use the same command.
    pub invocation: Invocation,
    /// The value of `--engine`, if it was typed. Hints repeat it.
    pub engine: Option<&'static str>,
}

/// Commands that use no engine.
const WITHOUT_ENGINE: &[&str] = &["explain", "config", "help", "completions"];

const BOLD_GREEN: &str = "\x1b[1;32m";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const BOLD_RED: &str = "\x1b[1;31m";
const BOLD_CYAN: &str = "\x1b[1;36m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl Ui {
    /// A status line like Cargo's: a verb and its object.
    pub fn status(self, verb: &str, object: &str) {
        if self.verbosity >= Verbosity::Normal {
            let object = self.invocation.adapt(object);
            self.write_message(&format!("{BOLD_GREEN}{verb:>12}{RESET} {object}\n"));
        }
    }

    /// A line below a status line.
    pub fn detail(self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            self.write_message(&format!("{text}\n"));
        }
    }

    /// A line that is printed only with `--verbose`.
    pub fn verbose(self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.write_message(&format!("{DIM}{text}{RESET}\n"));
        }
    }

    /// A warning. It is printed even with `--quiet`.
    pub fn warn(self, text: &str) {
        let text = self.invocation.adapt(text);
        self.write_message(&format!("{BOLD_YELLOW}warning:{RESET} {text}\n"));
    }

    /// An instruction, such as the next command or the remedy for a warning.
    pub fn hint(self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            let text = self.instruction(text);
            self.write_message(&format!("{BOLD_CYAN}hint:{RESET} {text}\n"));
        }
    }

    pub fn error(self, text: &str, hints: &[String]) {
        let mut out = format!("{BOLD_RED}error:{RESET} {}\n", self.invocation.adapt(text));
        for hint in hints {
            let hint = self.instruction(hint);
            let _ = writeln!(out, "{BOLD_CYAN}hint:{RESET} {hint}");
        }
        self.write_message(&out);
    }

    /// The text of a hint. Its commands are written as the user called xtask, with the same
    /// `--engine`.
    fn instruction(self, text: &str) -> String {
        let with_engine = match self.engine {
            Some(engine) => add_engine(text, engine),
            None => text.to_owned(),
        };
        self.invocation.adapt(&with_engine).into_owned()
    }

    /// Prints a text to standard error unchanged, even with `--quiet`.
    pub fn print_unchanged(self, text: &str) {
        let newline = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        self.write_message(&format!("{text}{newline}"));
    }

    /// Draws lines on a terminal, in place of those that it drew before. Each line is cut to the
    /// terminal's width. The next message takes their place.
    pub fn draw(self, lines: &[String]) {
        if !self.live || self.verbosity < Verbosity::Normal {
            return;
        }
        let width = columns().saturating_sub(1);
        let lines: Vec<String> = lines
            .iter()
            .map(|line| line.chars().take(width).collect())
            .collect();
        // The cursor stays at the beginning of the first line.
        let back = match lines.len() {
            0 | 1 => String::new(),
            count => format!("\x1b[{}A", count - 1),
        };
        self.write_message(&format!("{DIM}{}{RESET}{back}\r", lines.join("\n")));
    }

    /// Writes to standard error. On a terminal, it clears what [`Self::draw`] drew.
    fn write_message(self, text: &str) {
        let clear = if self.live { "\r\x1b[J" } else { "" };
        write_error(&format!("{clear}{text}"));
    }

    /// Prints a text such as help to standard output, with the command that invoked xtask.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn print_prose(self, text: &str) -> std::io::Result<()> {
        self.print(&self.invocation.adapt(text))
    }

    /// Prints the lines of a dry run to standard output. A line that runs xtask names it as it was invoked.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn print_plan(self, lines: &str) -> std::io::Result<()> {
        let lines =
            lines
                .split_inclusive('\n')
                .map(|line| match line.strip_prefix("cargo xtask ") {
                    Some(rest) => format!("{} {rest}", self.invocation.command()),
                    None => line.to_owned(),
                });
        self.print(&lines.collect::<String>())
    }

    /// Prints a result to standard output.
    ///
    /// # Errors
    /// When writing fails. It is not an error if the reader has exited, such as `| head`.
    pub fn print(self, text: &str) -> std::io::Result<()> {
        let mut out = anstream::stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Shows a question. The answer is typed after it.
    pub fn prompt(self, question: &str) {
        self.write_message(&format!("{question} "));
    }
}

/// Adds `--engine` to each command of xtask that uses an engine and names none. A command stands between
/// backticks, and variables or another program can stand before it.
fn add_engine(text: &str, engine: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(number, part)| {
        // Every second part is between backticks.
        let is_code = number % 2 == 1;
        if is_code && !part.contains("--engine") {
            add_engine_to_command(part, engine)
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

fn add_engine_to_command(line: &str, engine: &str) -> String {
    const CALL: &str = "cargo xtask ";
    let Some((before, after)) = line.split_once(CALL) else {
        return line.to_owned();
    };
    let (command, rest) = after.split_at(after.find(' ').unwrap_or(after.len()));
    if WITHOUT_ENGINE.contains(&command) {
        return line.to_owned();
    }
    format!("{before}{CALL}{command} --engine {engine}{rest}")
}

/// The terminal's width in columns; 80 if it is unknown.
#[allow(unsafe_code)]
fn columns() -> usize {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the call writes to the structure, which lives until after the call (ioctl_tty(2)).
    let error = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match size.ws_col {
        0 => 80,
        _ if error != 0 => 80,
        columns => usize::from(columns),
    }
}

/// Writes to standard error. An error is ignored, because there is no other place to report it.
fn write_error(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// A duration for people: `0.4 s`, `12.3 s`, `2 min 5 s`.
pub fn human_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// Measures the time since its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&human_time(self.elapsed()))
    }
}

/// Makes the output of another program safe to print within a line: removes colours, line ends and other
/// control characters.
pub fn single_line(text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    let text = text.replace(['\r', '\n', '\t'], " ");
    text.trim().replace(char::is_control, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_keeps_the_engine_that_was_typed() {
        let with = |text: &str| add_engine(text, "podman");
        assert_eq!(
            with("next: `cargo xtask run-local --version dev-me` or `cargo xtask stop`"),
            "next: `cargo xtask run-local --engine podman --version dev-me` or `cargo xtask stop --engine podman`"
        );
        assert_eq!(
            with("leave it out: `TEMPORAL_TLS=false cargo xtask up --version dev-me`"),
            "leave it out: `TEMPORAL_TLS=false cargo xtask up --engine podman --version dev-me`"
        );
        let named = "stop that one: `cargo xtask stop --engine docker`";
        assert_eq!(with(named), named);
        assert_eq!(
            with("use `--engine docker`, or `cargo xtask stop`"),
            "use `--engine docker`, or `cargo xtask stop --engine podman`"
        );
        let explain = "see `cargo xtask explain daemon-down`";
        assert_eq!(with(explain), explain);
        assert_eq!(with("free some space"), "free some space");
    }
}
