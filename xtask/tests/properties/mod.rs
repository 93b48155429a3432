//! Properties that hold for every input. Each property is a function that panics if it does not hold for the
//! input. `cargo test` checks it with its corpus and with changed inputs of the corpus. Built with `--cfg
//! fuzzing`, xtask is a target for libFuzzer, with the same corpus.
//!
//! A property says more than that nothing panics: rejected input has a position and a reason, accepted input
//! is valid by the specification, and printed values can be read again.

mod config;
mod engine;
mod environment;
mod oci;
mod registry;
mod secret;
mod shell;
mod version;
mod work_tree;

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

#[derive(Clone, Copy)]
pub struct Property {
    /// The name of the corpus's folder in `xtask/corpus`.
    pub name: &'static str,
    /// Panics if the property does not hold.
    pub check: fn(&[u8]),
}

const fn property(name: &'static str, check: fn(&[u8])) -> Property {
    Property { name, check }
}

/// All properties.
#[rustfmt::skip] // a table: one property a line
pub const ALL: &[Property] = &[
    property("config", config::is_read_or_reported),
    property("config-read-back", config::can_be_read_again),
    property("config-tags", config::tags),
    property("config-newer-schema", config::newer_schema),
    property("config-hides-secrets", config::hides_secrets),
    property("environment-variable", config::environment_variable),
    property("env-file", environment::file),
    property("version", version::version),
    property("tag-template", version::template),
    property("channel-pattern", version::pattern),
    property("repository", version::repository),
    property("platform", version::platform),
    property("shell-words", shell::words),
    property("secret", secret::redacted),
    property("engine-version", engine::version),
    property("engine-container", engine::container),
    property("engine-image", engine::image),
    property("engine-image-list", engine::image_list),
    property("engine-cache-mounts", engine::cache_mounts),
    property("registry-answer", registry::answer),
    property("registry-challenge", registry::challenge),
    property("registry-login", registry::login),
    property("registry-page", registry::page),
    property("registry-location", registry::location),
    property("manifest", oci::manifest),
    property("archive", oci::archive),
    property("layer", oci::layer),
    property("dockerignore", work_tree::dockerignore),
    property("git-log", work_tree::git_log),
];

/// The input as text. Invalid UTF-8 is replaced, as in the output of programs.
fn text(input: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// A rejection has a reason.
#[track_caller]
fn assert_reason(why: &str) {
    assert!(!why.trim().is_empty(), "rejected without a reason");
}
