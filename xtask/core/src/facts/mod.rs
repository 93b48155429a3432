//! Read-only facts: the engine and what it holds, git, this machine. A command asks for all of them
//! at once, before it plans.

pub mod context;
pub mod environment;
pub mod git;
pub mod host;
pub mod model;
pub mod search;
