//! Failures: a message, hints and an exit code.

use std::fmt;

use crate::base::ui::Ui;

/// An error with everything that its report needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    hints: Vec<String>,
    code: u8,
    /// The engine's output. The user has seen it already. It is kept to recognise the failure.
    output: String,
}

/// The exit code for invalid arguments or an invalid configuration. clap uses the same code.
pub const USAGE: u8 = 2;

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            code: 1,
            output: String::new(),
        }
    }

    /// Invalid arguments or an invalid configuration: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).code(USAGE)
    }

    /// An interruption by a signal: exit code 128 + signal, as in shells.
    pub fn signal(number: i32) -> Self {
        Self::new("interrupted").code(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }

    /// Adds a hint: an instruction that begins with a verb.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds several hints.
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
    pub fn with_output(mut self, output: String) -> Self {
        self.output = output;
        self
    }

    pub fn output(&self) -> &str {
        &self.output
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

/// Prints an error with its hints. Returns the exit code.
pub fn report(error: &anyhow::Error, ui: Ui) -> u8 {
    let failure = error.downcast_ref::<Failure>();
    let hints = failure.map_or_else(|| system_hints(error), |failure| failure.hints.clone());
    ui.error(&format!("{error:#}"), &hints);
    failure.map_or(1, Failure::exit_code)
}

/// The hints for an error of the operating system.
fn system_hints(error: &anyhow::Error) -> Vec<String> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    let hint = match kind {
        Some(StorageFull | QuotaExceeded) => {
            "free space on that disk (`df -h` lists all disks), then run the same command again"
        }
        Some(PermissionDenied | ReadOnlyFilesystem) => {
            "give your user permission to write to that path, then run the same command again"
        }
        Some(_) | None => return Vec::new(),
    };
    vec![hint.to_owned()]
}
