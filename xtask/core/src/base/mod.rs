//! Small modules that each do one thing. They import nothing but other modules of this folder.

pub mod engine_kind;
pub mod env;
pub mod error;
pub mod github;
pub mod image;
pub mod invocation;
pub mod outdated;
#[cfg(test)]
pub mod pages;
pub mod parallel;
pub mod secret;
mod sources;
pub mod time;
pub mod ui;
pub mod version;
