//! Logins to registries, as Docker, Podman and the environment keep them: which files there are and
//! in which order they are read, credential helpers, environment variables.
//!
//! How a login is shown to a registry is in `registry`.

pub mod config_file;
pub mod environment;
pub mod files;
pub mod find;
mod helper;
pub mod login;
