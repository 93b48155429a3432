//! The only place that starts a process.

pub mod executor;
pub mod finished;
pub mod handover;
pub mod stream;
pub mod terminal;
pub mod timings;

pub use executor::{Exec, GaveUp, StopWatch};
pub use finished::{Finished, NoAnswer};
