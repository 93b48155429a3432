//! What `doctor` asks each engine.

use crate::{
    base::{engine_kind::EngineKind, env::Env},
    engine::{Engine, EngineFacts},
    plan::Cmd,
};

/// What the environment says about the engine's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointEnv {
    Unset,
    /// The engine uses this variable.
    Used(String),
    /// A variable has no effect: which, and what to do.
    Misleading(String, &'static str),
}

impl EngineFacts {
    /// Docker ignores its context if `DOCKER_HOST` is set. Podman does not read that variable.
    pub fn endpoint_env(&self, env: &Env) -> EndpointEnv {
        match (
            self.engine.kind,
            env.get("DOCKER_HOST"),
            env.get("DOCKER_CONTEXT"),
        ) {
            (EngineKind::Docker, Some(host), Some(context)) => EndpointEnv::Misleading(
                format!("DOCKER_HOST={host} hides DOCKER_CONTEXT={context}"),
                "unset one of them",
            ),
            (EngineKind::Docker, Some(host), None) => {
                EndpointEnv::Used(format!("DOCKER_HOST={host}"))
            }
            (EngineKind::Podman, Some(host), _) => EndpointEnv::Misleading(
                format!("Podman does not read DOCKER_HOST={host}"),
                "set CONTAINER_HOST for Podman, or unset DOCKER_HOST",
            ),
            (EngineKind::Docker | EngineKind::Podman, None, _) => EndpointEnv::Unset,
        }
    }
}

impl Engine {
    /// Asks for the builder's version, if the builder is a part that can be missing.
    pub fn builder_version(&self) -> Option<Cmd> {
        match self.kind {
            EngineKind::Docker => Some(self.cmd().args(["buildx", "version"])),
            EngineKind::Podman => None,
        }
    }

    /// Asks for the folder of the images.
    pub fn storage_root(&self) -> Cmd {
        let field = match self.kind {
            EngineKind::Docker => "{{.DockerRootDir}}",
            EngineKind::Podman => "{{.Store.GraphRoot}}",
        };
        self.cmd().args(["info", "--format", field])
    }
}
