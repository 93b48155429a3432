//! Everything that differs between Docker and Podman. Every match on [`EngineKind`] is exhaustive: after a
//! new variant is added, the compiler lists the places that need code for it.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod build;
pub mod cache;
pub mod capabilities;
pub mod container;
pub mod detect;
pub mod diagnosis;
pub mod image;
pub mod labelled;
pub mod login;
pub mod multiarch;
pub mod run;

use crate::{
    base::{engine_kind::EngineKind, error::Failure, image::Platform},
    plan::Cmd,
};

/// An engine, and the name of its client program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub kind: EngineKind,
    pub program: String,
}

impl Engine {
    pub fn cmd(&self) -> Cmd {
        Cmd::new(self.program.as_str())
    }

    /// The failure of a question to the engine. The reason is a predicate whose subject is the program.
    pub fn failure(&self, why: &str) -> Failure {
        Failure::new(format!("`{}` {why}", self.program))
    }

    /// Asks whether a network exists.
    pub fn inspect_network(&self, name: &str) -> Cmd {
        self.cmd().args(["network", "inspect", name])
    }
}

/// Where the engine runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// On the host's own kernel. Containers can use the host's network and folders.
    Host,
    /// In a virtual machine on the host. The virtual machine mounts the home folder.
    VirtualMachine,
    /// On another machine, which has this endpoint.
    Remote(String),
}

/// What an engine reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    pub engine: Engine,
    /// The server's version. It determines the engine's capabilities.
    pub version: String,
    pub platform: Platform,
    pub rootless: bool,
    pub location: Location,
}

impl EngineFacts {
    /// The major and minor version; zeros if the version cannot be parsed.
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
        match &self.location {
            Location::Host => {}
            Location::VirtualMachine => text.push_str(", in a virtual machine"),
            Location::Remote(endpoint) => text.push_str(&format!(", at {endpoint}")),
        }
        if self.engine.program != self.engine.kind.program() {
            text.push_str(&format!(", as `{}`", self.engine.program));
        }
        text
    }
}

/// Whether a name from an engine's output is safe as an argument: it is a single word and cannot be read
/// as an option.
fn is_safe_argument(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    !text.is_empty() && !text.contains(bad) && !text.starts_with('-')
}

/// The labels that mark images and containers of xtask. A container inherits the labels of its image, so
/// containers have a label of their own: otherwise a container that somebody else starts from our image
/// would count as ours.
pub mod label {
    /// On images: the repository that the image was built for.
    pub const IMAGE: &str = "ai.stigmer.xtask.image";
    /// On images: the flavour; none on the plain image.
    pub const FLAVOUR: &str = "ai.stigmer.xtask.flavour";
    /// On containers: the container's purpose.
    pub const CONTAINER: &str = "ai.stigmer.xtask.container";
    /// On containers: the image version.
    pub const VERSION: &str = "ai.stigmer.xtask.version";

    /// On the containers that `up` started. `down` removes them.
    pub const STACK: &str = "ai.stigmer.xtask.stack";

    /// The value of [`CONTAINER`] for the Temporal server of `up` and `smoke`.
    pub const TEMPORAL: &str = "temporal";
    /// The value of [`CONTAINER`] for the stigmer-server of `up` and `smoke`.
    pub const SERVER: &str = "server";

    /// The value of [`CONTAINER`] for `run-local`.
    pub const RUN: &str = "run";
    /// The value of [`CONTAINER`] for `test-image`.
    pub const TEST: &str = "test";
}
