//! What people see. Talk goes to standard error, results to standard output;
//! both read well without colour.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use crate::called::Called;

/// How much talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// The one place that writes.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    pub verbosity: Verbosity,
    /// Standard error is a terminal: a line can be drawn over.
    pub live: bool,
    /// How what we say names us.
    pub called: Called,
}

const BOLD_GREEN: &str = "\x1b[1;32m";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const BOLD_RED: &str = "\x1b[1;31m";
const BOLD_CYAN: &str = "\x1b[1;36m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl Ui {
    /// What is being done: a verb and its object, as cargo writes it.
    pub fn status(self, verb: &str, object: &str) {
        if self.verbosity >= Verbosity::Normal {
            let object = self.called.say(object);
            talk(&format!("{BOLD_GREEN}{verb:>12}{RESET} {object}\n"));
        }
    }

    /// A line under a status.
    pub fn line(self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            talk(&format!("{text}\n"));
        }
    }

    /// For `--verbose` only.
    pub fn verbose(self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            talk(&format!("{DIM}{text}{RESET}\n"));
        }
    }

    /// Something that may surprise later; shown even with `--quiet`.
    pub fn warn(self, text: &str) {
        let text = self.called.say(text);
        talk(&format!("{BOLD_YELLOW}warning:{RESET} {text}\n"));
    }

    /// What to do about a warning or next.
    pub fn hint(self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            let text = self.called.say(text);
            talk(&format!("{BOLD_CYAN}hint:{RESET} {text}\n"));
        }
    }

    pub fn error(self, text: &str, hints: &[String]) {
        let mut out = format!("{BOLD_RED}error:{RESET} {}\n", self.called.say(text));
        for hint in hints {
            let _ = writeln!(out, "{BOLD_CYAN}hint:{RESET} {}", self.called.say(hint));
        }
        talk(&out);
    }

    /// What an engine printed, as it is.
    pub fn raw(self, text: &str) {
        let newline = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        talk(&format!("{text}{newline}"));
    }

    /// Draws over the current line, where that can be seen. It stays within the line: what has
    /// gone to the next one could not be drawn over again.
    pub fn progress(self, text: &str) {
        if self.live && self.verbosity >= Verbosity::Normal {
            let text: String = text.chars().take(columns().saturating_sub(1)).collect();
            talk(&format!("\r\x1b[2K{DIM}{text}{RESET}"));
        }
    }

    /// Takes away what `progress` drew.
    pub fn progress_done(self) {
        if self.live && self.verbosity >= Verbosity::Normal {
            talk("\r\x1b[2K");
        }
    }

    /// A result in our own words, such as help: see [`Ui::result`].
    ///
    /// # Errors
    /// As those.
    pub fn words(self, text: &str) -> std::io::Result<()> {
        self.result(&self.called.say(text))
    }

    /// A result, to standard output.
    ///
    /// # Errors
    /// When standard output cannot be written; a reader that has gone (`| head`) is no error.
    pub fn result(self, text: &str) -> std::io::Result<()> {
        let mut out = anstream::stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Asks on the terminal; no answer is an empty one.
    pub fn ask(self, question: &str) -> String {
        talk(&format!("{question} "));
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(_) => answer.trim().to_owned(),
            Err(_) => String::new(),
        }
    }

    /// Asks on the terminal; no answer is no.
    pub fn confirm(self, question: &str) -> bool {
        let answer = self.ask(&format!("{question} [y/N]"));
        matches!(answer.to_lowercase().as_str(), "y" | "yes")
    }
}

/// How wide the terminal is; the usual 80 where it does not say.
#[allow(unsafe_code)]
fn columns() -> usize {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the call fills in the structure, which outlives it (ioctl_tty(2)).
    let asked = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match size.ws_col {
        0 => 80,
        _ if asked != 0 => 80,
        columns => usize::from(columns),
    }
}

/// Standard error may be gone; there is nobody left to tell then.
fn talk(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// A duration as people read it: `0.4 s`, `12.3 s`, `2 min 5 s`.
pub fn human_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// A running clock.
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

/// What somebody else said, fit for a line of ours: without colours, and without all else that would
/// move a terminal's cursor.
pub fn plain(text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    let text = text.replace(['\r', '\n', '\t'], " ");
    text.trim().replace(char::is_control, "")
}
