//! xtask.toml: read in two passes (the schema's version, then everything) and checked as a whole. All
//! problems are reported at once.

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
