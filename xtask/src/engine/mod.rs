//! Docker and Podman: everything in which they differ, and nothing else.
//! Matches are exhaustive, so a third engine is one new variant and a list of compile errors.

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

use std::fmt;

use crate::{image::Platform, plan::Cmd};

/// Which engine answers, whatever its program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

impl Kind {
    /// In the order in which `auto` tries them.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// The program it is usually called by.
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

/// An engine that answered, and the program by which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub kind: Kind,
    pub program: String,
}

impl Engine {
    pub fn cmd(&self) -> Cmd {
        Cmd::new(self.program.as_str())
    }
}

/// Where containers run, seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this host's own kernel: its network and folders are the containers' too.
    Here,
    /// In a virtual machine on this host, which mounts the home folder.
    Vm,
    /// On another machine, at this endpoint.
    Remote(String),
}

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    pub engine: Engine,
    /// The server's version: the one that decides what works.
    pub version: String,
    pub platform: Platform,
    pub rootless: bool,
    pub place: Place,
}

impl EngineFacts {
    /// Major and minor of the version; zeros where it says none.
    pub fn release(&self) -> (u32, u32) {
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

/// Whether what an engine listed is the name of one thing, to be handed back to it: one word, and no
/// option.
fn is_name(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    !text.is_empty() && !text.contains(bad) && !text.starts_with('-')
}

/// Labels by which we know our own. Containers inherit their image's labels, so one key for
/// both would make everybody's containers from our image ours.
pub mod label {
    /// On images: the repository for which they were built.
    pub const IMAGE: &str = "ai.stigmer.xtask.image";
    /// On containers: what we started them for.
    pub const CONTAINER: &str = "ai.stigmer.xtask.container";
    /// On containers: the image version.
    pub const VERSION: &str = "ai.stigmer.xtask.version";

    /// On the containers that `up` started, the runner's among them: `down` removes those.
    pub const STACK: &str = "ai.stigmer.xtask.stack";

    /// The values of [`CONTAINER`] for what is around the runner.
    pub const TEMPORAL: &str = "temporal";
    pub const SERVER: &str = "server";

    /// The value of [`CONTAINER`] for `run-local`.
    pub const RUN: &str = "run";
    /// The value of [`CONTAINER`] for `test-image`.
    pub const TEST: &str = "test";
}
