//! The questions of `doctor` to an engine.

use crate::{
    base::{engine_kind::EngineKind, env::Env},
    engine::{Engine, EngineFacts},
    plan::Cmd,
};

/// How the environment sets the engine's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointEnv {
    Unset,
    /// By this variable and value.
    Used(String),
    /// A variable has no effect. The texts say which one and how to correct it.
    Ineffective(String, &'static str),
}

impl EngineFacts {
    /// How the environment sets the engine's endpoint. Docker ignores its context if `DOCKER_HOST` is set.
    /// Podman ignores `DOCKER_HOST`.
    pub fn endpoint_env(&self, env: &Env) -> EndpointEnv {
        let Some(host) = env.get("DOCKER_HOST") else {
            return EndpointEnv::Unset;
        };
        match self.engine.kind {
            EngineKind::Docker => match env.get("DOCKER_CONTEXT") {
                Some(context) => EndpointEnv::Ineffective(
                    format!("DOCKER_HOST={host} overrides DOCKER_CONTEXT={context}"),
                    "unset one of them",
                ),
                None => EndpointEnv::Used(format!("DOCKER_HOST={host}")),
            },
            EngineKind::Podman => EndpointEnv::Ineffective(
                format!("Podman does not read DOCKER_HOST={host}"),
                "set CONTAINER_HOST for Podman, or unset DOCKER_HOST",
            ),
        }
    }
}

impl Engine {
    /// Asks for the builder's version; none if the builder is a part of the engine and cannot be missing.
    pub fn builder_version(&self) -> Option<Cmd> {
        match self.kind {
            EngineKind::Docker => Some(self.cmd().args(["buildx", "version"])),
            EngineKind::Podman => None,
        }
    }

    /// Where the driver of the containers' logs is set, and to what.
    pub fn log_driver_setting(&self) -> &'static str {
        match self.kind {
            EngineKind::Docker => {
                "`\"log-driver\": \"local\"` in the daemon's `daemon.json`, then restart Docker and the container"
            }
            EngineKind::Podman => {
                "`log_driver = \"k8s-file\"` under `[containers]` in `~/.config/containers/containers.conf`, then start the container again"
            }
        }
    }

    /// Asks for the folder in which the engine stores images.
    pub fn storage_root(&self) -> Cmd {
        let field = match self.kind {
            EngineKind::Docker => "{{.DockerRootDir}}",
            EngineKind::Podman => "{{.Store.GraphRoot}}",
        };
        self.cmd().args(["info", "--format", field])
    }
}
