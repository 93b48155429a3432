//! The whole command line against fake engines: what is called, in which order, what is
//! printed, and the exit codes.
#![allow(clippy::disallowed_methods)] // tests start processes

mod catalogue;
mod ci;
mod commands;
mod detection;
mod formula;
mod installed;
mod odd;
mod publish;
mod talk;
mod watch;
mod world;
