//! Tests of the command line with fake engines. They check the calls of other programs, the output and the
//! exit codes.
#![allow(clippy::disallowed_methods)] // tests start processes

mod catalogue;
mod ci;
mod commands;
mod credentials;
mod detection;
mod export;
mod flavours;
mod formula;
mod handover;
mod installed;
mod messages;
#[path = "../ports/mod.rs"]
mod ports;
#[path = "../publication/mod.rs"]
mod publication;
mod publish;
mod registry;
mod release;
mod run;
mod sandbox;
mod signing;
mod stack;
mod terminal;
mod unusual_environments;
mod watch;
