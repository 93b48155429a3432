//! What `doctor` asks of each engine.

use super::{Engine, EngineFacts, Kind};
use crate::{env::Env, plan::Cmd};

/// What the environment says of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointEnv {
    Silent,
    /// It is taken from there.
    Taken(String),
    /// It misleads: how, and what to do.
    Misleading(String, &'static str),
}

impl EngineFacts {
    /// Contexts are ignored where `DOCKER_HOST` is set, and Podman does not read that at all.
    pub fn endpoint_env(&self, env: &Env) -> EndpointEnv {
        match (
            self.engine.kind,
            env.get("DOCKER_HOST"),
            env.get("DOCKER_CONTEXT"),
        ) {
            (Kind::Docker, Some(host), Some(context)) => EndpointEnv::Misleading(
                format!("DOCKER_HOST={host} hides DOCKER_CONTEXT={context}"),
                "unset one of them",
            ),
            (Kind::Docker, Some(host), None) => EndpointEnv::Taken(format!("DOCKER_HOST={host}")),
            (Kind::Podman, Some(host), _) => EndpointEnv::Misleading(
                format!("Podman does not read DOCKER_HOST={host}"),
                "set CONTAINER_HOST for Podman, or unset DOCKER_HOST",
            ),
            (Kind::Docker | Kind::Podman, None, _) => EndpointEnv::Silent,
        }
    }
}

impl Engine {
    /// Asks for the builder's version, where the builder is a part that can be missing.
    pub fn builder_version(&self) -> Option<Cmd> {
        match self.kind {
            Kind::Docker => Some(self.cmd().args(["buildx", "version"])),
            Kind::Podman => None,
        }
    }

    /// Asks where images are stored.
    pub fn storage_root(&self) -> Cmd {
        let field = match self.kind {
            Kind::Docker => "{{.DockerRootDir}}",
            Kind::Podman => "{{.Store.GraphRoot}}",
        };
        self.cmd().args(["info", "--format", field])
    }
}
