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

use self::{
    config_file::ConfigFile,
    places::{AUTH_VARIABLE, of_engine},
};
use crate::base::{engine_kind::EngineKind, env::Env};

/// The logins that a program such as cosign finds by itself: those of the first credential file, and of the variable.
pub fn logins_of_user(env: &Env) -> ConfigFile {
    let files = EngineKind::ALL
        .iter()
        .flat_map(|kind| of_engine(*kind, env));
    let parse = |text: Vec<u8>| ConfigFile::parse(&text).ok();
    let mut first = files.filter_map(|file| read::text(&file, env).ok().flatten().and_then(parse));
    let mut logins = first.next().unwrap_or_default();
    let variable = env.get(AUTH_VARIABLE).map(str::as_bytes);
    if let Some(other) = variable.and_then(|text| ConfigFile::parse(text).ok()) {
        logins.add_logins(&other);
    }
    logins
}
