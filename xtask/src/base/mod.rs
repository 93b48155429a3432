//! Small modules that know nothing of the others: each is about one thing, and imports at most
//! another of this folder.

pub mod engine_kind;
pub mod env;
pub mod error;
pub mod github;
pub mod image;
pub mod invocation;
pub mod outdated;
#[cfg(test)]
pub mod pages;
pub mod secret;
mod sources;
pub mod time;
pub mod ui;
pub mod version;
