//! What holds for every input, however bad. Each property is a function of bytes, and panics where
//! it does not hold. `cargo test` tries it with its corpus and with what becomes of that; built with
//! `--cfg fuzzing`, xtask is libFuzzer's target instead of itself, with the same corpus.
//!
//! That nothing panics goes without saying, so each says more: what is refused is refused with its
//! place and its reason, what is taken is right by another's rules, what is printed reads back.

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
mod fuzz;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// One property.
#[derive(Clone, Copy)]
pub struct Property {
    /// Its corpus is the folder of this name, under `xtask/corpus`.
    pub name: &'static str,
    /// Panics where it does not hold.
    pub check: fn(&[u8]),
}

const fn property(name: &'static str, check: fn(&[u8])) -> Property {
    Property { name, check }
}

/// All there are.
#[rustfmt::skip] // a table: one property a line
pub const ALL: &[Property] = &[
    property("config", config::is_read_or_told),
    property("config-read-back", config::reads_back),
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
    property("curl-config", registry::curl_config),
    property("manifest", oci::manifest),
    property("archive", oci::archive),
    property("layer", oci::layer),
    property("dockerignore", work_tree::dockerignore),
    property("git-log", work_tree::git_log),
];

/// The input as text: what is not UTF-8 is replaced, as where the output of programs is read.
fn text(input: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// A reason is words, and not a page of them.
#[track_caller]
fn says_why(why: &str) {
    assert!(!why.trim().is_empty(), "refused without a reason");
}
