//! What only some engines can do, and since which version. Code that depends on it asks
//! [`EngineFacts::can`]. The table in docs/engines.md is generated from this one, and the end-to-end
//! tests try each cell of it on a real engine.

#[cfg(test)]
mod page;

use crate::{base::engine_kind::EngineKind, engine::EngineFacts};

/// Major and minor version.
pub type MajorMinor = (u32, u32);

/// Whether the engine's image store holds an image for several platforms under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    SeveralPlatforms,
    OnePlatform,
}

/// Which engines have a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Yes,
    No,
    /// From this version on.
    Since(MajorMinor),
    /// In the versions before this one.
    Before(MajorMinor),
    /// If the image store is containerd's.
    ContainerdStore,
}

impl Support {
    fn holds(self, version: MajorMinor, store: Store) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Since(first) => version >= first,
            Self::Before(end) => version < end,
            Self::ContainerdStore => store == Store::SeveralPlatforms,
        }
    }
}

/// What only some engines can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `--output=type=cacheonly`: a build that is run for its steps leaves no image. Podman needs the image
    /// as its cache.
    BuildWithoutImage,
    /// Each user has a folder of their own for cache mounts. Up to Buildah 1.28, which is in Podman 4.3, all
    /// users of a machine share one, and it belongs to the user who built first: nobody else can build. <https://github.com/containers/buildah/pull/4402>
    OwnCacheFolder,
    /// `--userns=keep-id` takes `uid=` and `gid=`.
    /// <https://docs.podman.io/en/v4.3/markdown/options/userns.container.html>
    KeepIdTakesIds,
    /// A rootless container on a bridge can reach servers on the host's loopback, such as a Temporal dev
    /// server: with slirp4netns, the network of rootless Podman before version 5. <https://docs.podman.io/en/v4.3/markdown/options/network.html>
    LoopbackFromBridge,
    /// The image store holds an image for several platforms under one name, and the engine's own
    /// builder builds it. <https://docs.docker.com/engine/storage/containerd/>
    SeveralPlatforms,
    /// Builders other than the engine's own, which buildx creates.
    Builders,
    /// Provenance and SBOM attestations.
    Attestations,
}

impl Capability {
    /// Which versions of an engine have the capability.
    pub fn support(self, kind: EngineKind) -> Support {
        use Support::{Before, ContainerdStore, No, Since, Yes};
        match (self, kind) {
            (
                Self::BuildWithoutImage
                | Self::OwnCacheFolder
                | Self::Builders
                | Self::Attestations,
                EngineKind::Docker,
            ) => Yes,
            (Self::BuildWithoutImage | Self::Builders | Self::Attestations, EngineKind::Podman) => {
                No
            }
            (Self::OwnCacheFolder, EngineKind::Podman) => Since((4, 4)),
            (Self::KeepIdTakesIds | Self::LoopbackFromBridge, EngineKind::Docker) => No,
            (Self::KeepIdTakesIds, EngineKind::Podman) => Since((4, 3)),
            (Self::LoopbackFromBridge, EngineKind::Podman) => Before((5, 0)),
            (Self::SeveralPlatforms, EngineKind::Docker) => ContainerdStore,
            (Self::SeveralPlatforms, EngineKind::Podman) => Yes,
        }
    }
}

impl EngineFacts {
    /// Whether the engine can do it with any image store.
    pub fn can(&self, capability: Capability) -> bool {
        self.can_with(capability, Store::OnePlatform)
    }

    /// Whether the engine can do it with its image store.
    pub(super) fn can_with(&self, capability: Capability, store: Store) -> bool {
        capability
            .support(self.engine.kind)
            .holds(self.major_minor(), store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::image::Platform,
        engine::{Engine, Place},
    };

    fn facts(kind: EngineKind, version: &str) -> EngineFacts {
        EngineFacts {
            engine: Engine {
                kind,
                program: kind.program().to_owned(),
            },
            version: version.to_owned(),
            platform: Platform::linux("amd64"),
            rootless: true,
            place: Place::Here,
        }
    }

    #[test]
    fn versions_decide() {
        let podman = |version| facts(EngineKind::Podman, version);
        let keep_id = Capability::KeepIdTakesIds;
        assert!(podman("4.3.1").can(keep_id));
        assert!(podman("5.0.0-dev").can(keep_id));
        assert!(!podman("4.2.0").can(keep_id));
        assert!(!podman("").can(keep_id), "an unknown version counts as old");
        assert!(podman("4.9.4").can(Capability::LoopbackFromBridge));
        assert!(!podman("5.0.0").can(Capability::LoopbackFromBridge));
        assert!(!podman("4.3.1").can(Capability::OwnCacheFolder));
        assert!(podman("4.4.0").can(Capability::OwnCacheFolder));
    }

    #[test]
    fn the_store_decides_for_docker() {
        let several = Capability::SeveralPlatforms;
        let docker = facts(EngineKind::Docker, "26.1.5+dfsg1");
        assert!(docker.can_with(several, Store::SeveralPlatforms));
        assert!(!docker.can_with(several, Store::OnePlatform));
        assert!(facts(EngineKind::Podman, "4.3.1").can_with(several, Store::OnePlatform));
    }
}
