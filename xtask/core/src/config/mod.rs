//! Reads and checks the configuration. The first pass over a file reads only its schema version, the second
//! everything else. All problems are reported together.

pub mod display;
pub mod files;
pub mod layer;
#[cfg(test)]
mod page;
mod problem;
mod read;
pub mod resolve;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod values;
