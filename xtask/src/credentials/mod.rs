//! Logins to registries, as Docker, Podman and the environment keep them: which places there are and
//! in which order they are searched, credential helpers, environment variables.
//!
//! How a login is shown to a registry is in `registry`.

pub mod config_file;
pub mod environment;
pub mod find;
pub mod found;
mod helper;
pub mod login;
pub mod places;
mod read;
mod registries_conf;
pub mod registry_name;
pub mod stored;
