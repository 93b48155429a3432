//! A repository of a registry, over the protocol that all registries share: what it holds, and what
//! is written to it. <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>
//!
//! Engines push an image together with its tags. xtask pushes an image by digest, verifies it and then
//! tags it, independent of the engine.

pub mod address;
pub mod authentication;
mod blobs;
pub mod certificates;
pub mod client;
mod proxy;
mod referrers;
mod refusal;
pub mod request;
pub mod response;
mod retry;
pub mod servers;
mod source;
mod transfers;
pub mod transport;
