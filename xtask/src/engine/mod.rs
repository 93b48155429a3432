//! Docker and Podman: everything in which they differ, and nothing else. Matches are exhaustive, so a
//! third engine is one new variant of [`EngineKind`] and a list of compile errors.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod build;
pub mod cache;
pub mod capabilities;
pub mod container;
pub mod detect;
pub mod diagnosis;
pub mod image;
pub mod login;
pub mod multiarch;
pub mod run;

use crate::{
    base::{engine_kind::EngineKind, image::Platform},
    plan::Cmd,
};

/// An engine that answered, and the program by which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub kind: EngineKind,
    pub program: String,
}

impl Engine {
    pub fn cmd(&self) -> Cmd {
        Cmd::new(self.program.as_str())
    }
}

/// Where containers run, seen from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this host's kernel: containers can use its network and folders.
    Here,
    /// In a virtual machine on this host, which mounts the home folder.
    Vm,
    /// On another machine, at this endpoint.
    Remote(String),
}

/// What an engine reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    pub engine: Engine,
    /// The server's version, which decides what the engine can do.
    pub version: String,
    pub platform: Platform,
    pub rootless: bool,
    pub place: Place,
}

impl EngineFacts {
    /// Major and minor version; zeros if the version has none.
    pub fn major_minor(&self) -> (u32, u32) {
        let mut numbers = self
            .version
            .split(['.', '-'])
            .map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// One line for people: `Podman 4.3.1, rootless`.
    pub fn describe(&self) -> String {
        let mut text = format!("{} {}", self.engine.kind, self.version);
        if self.rootless {
            text.push_str(", rootless");
        }
        match &self.place {
            Place::Here => {}
            Place::Vm => text.push_str(", in a virtual machine"),
            Place::Remote(endpoint) => text.push_str(&format!(", at {endpoint}")),
        }
        if self.engine.program != self.engine.kind.program() {
            text.push_str(&format!(", as `{}`", self.engine.program));
        }
        text
    }
}

/// Whether a text of an engine's list is a name that can be passed back to the engine: one word that is
/// not an option.
fn is_name(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    !text.is_empty() && !text.contains(bad) && !text.starts_with('-')
}

/// The labels of our images and containers. Containers inherit the labels of their image, so images and
/// containers need different keys: otherwise every container of our image would count as ours.
pub mod label {
    /// On images: the repository that they were built for.
    pub const IMAGE: &str = "ai.stigmer.xtask.image";
    /// On containers: what they were started for.
    pub const CONTAINER: &str = "ai.stigmer.xtask.container";
    /// On containers: the image version.
    pub const VERSION: &str = "ai.stigmer.xtask.version";

    /// On all containers that `up` started: `down` removes those.
    pub const STACK: &str = "ai.stigmer.xtask.stack";

    /// The values of [`CONTAINER`] for the runner's surroundings.
    pub const TEMPORAL: &str = "temporal";
    pub const SERVER: &str = "server";

    /// The value of [`CONTAINER`] for `run-local`.
    pub const RUN: &str = "run";
    /// The value of [`CONTAINER`] for `test-image`.
    pub const TEST: &str = "test";
}
