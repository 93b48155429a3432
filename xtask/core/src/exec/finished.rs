//! The output and exit code of a finished process, or the reason why there are none.

use std::{fmt, time::Duration};

use crate::base::ui;

/// A finished process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; 128 + signal if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Finished {
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// The first line of standard error that is not empty.
    pub fn first_error_line(&self) -> String {
        self.stderr
            .lines()
            .map(ui::single_line)
            .find(|line| !line.is_empty())
            .unwrap_or_else(|| "it printed no error".to_owned())
    }

    /// The last line that it printed to standard output, else to standard error, else its exit code.
    pub fn last_line(&self) -> String {
        let last = |text: &str| {
            text.lines()
                .rev()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .map(str::to_owned)
        };
        last(&self.stdout)
            .or_else(|| last(&self.stderr))
            .unwrap_or_else(|| format!("exit code {}", self.code))
    }
}

/// Why a process gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It did not end in time, and was killed.
    TimedOut(Duration),
    /// It could not be started.
    NotStarted(String),
    /// A signal told xtask to stop.
    Interrupted(i32),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(
                f,
                "did not answer within {}",
                humantime::format_duration(*limit)
            ),
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
            Self::Interrupted(_) => f.write_str("was interrupted"),
        }
    }
}

/// An answer, for tests.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unnecessary_wraps)]
pub fn answer(code: i32, stdout: &str, stderr: &str) -> Result<Finished, NoAnswer> {
    Ok(Finished {
        code,
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
        took: Duration::ZERO,
    })
}
