//! What an image build needs to know, and what it asks the engine for. `build-image`, `check`,
//! `build-multiarch` and the publishing commands share it.

mod arguments;
pub mod dockerfile;
pub mod facts;
pub mod foundation;
mod instructions;
pub mod ownership;
pub mod request;
pub mod work_tree;
