//! Failures: what failed, why, the exact next command, and the exit code.

use std::fmt;

use crate::{catalogue, ui::Ui};

/// An error made for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    hints: Vec<String>,
    code: u8,
    /// What the engine said; it was shown, and is looked at for what it means.
    said: String,
}

/// Shows why something failed, and what to do. The exit code.
pub fn show(error: &anyhow::Error, ui: Ui) -> u8 {
    let failure = error.downcast_ref::<Failure>();
    let hints = failure.map_or_else(|| of_system(error), |failure| failure.hints.clone());
    ui.error(&format!("{error:#}"), &hints);
    failure.map_or(1, Failure::exit_code)
}

/// What to do where the system itself refused us.
fn of_system(error: &anyhow::Error) -> Vec<String> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    let hint = match kind {
        Some(StorageFull | QuotaExceeded) => {
            "make room on that disk (`df -h` shows them), then run the same command again"
        }
        Some(PermissionDenied | ReadOnlyFilesystem) => {
            "make that place writable for you, then run the same command again"
        }
        Some(_) | None => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// The exit code of a wrong call or a wrong configuration, as clap's.
pub const USAGE: u8 = 2;

impl Failure {
    /// Something went wrong: exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            code: 1,
            said: String::new(),
        }
    }

    /// The call or the configuration was wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).code(USAGE)
    }

    /// A signal ended it: exit code 128 + signal, as shells do.
    pub fn signal(number: i32) -> Self {
        Self::new("interrupted").code(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what the catalogue tells of this code.
    #[must_use]
    pub fn known(self, code: &str) -> Self {
        self.hints(catalogue::hints_of(code))
    }

    /// Says under which code the catalogue tells more.
    #[must_use]
    pub fn more(self, code: &'static str) -> Self {
        self.hint(catalogue::more(code))
    }

    /// Adds several such lines.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub fn with_said(mut self, said: String) -> Self {
        self.said = said;
        self
    }

    pub fn said(&self) -> &str {
        &self.said
    }

    pub fn exit_code(&self) -> u8 {
        self.code
    }

    pub fn hint_lines(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
