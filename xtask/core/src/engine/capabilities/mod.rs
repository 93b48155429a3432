//! Features that only some engines or versions have. Code that depends on a feature calls
//! [`EngineFacts::can`]. The table in docs/engines.md is generated from this module, and the end-to-end
//! tests check each of its cells with a real engine.

#[cfg(test)]
mod page;

use crate::{base::engine_kind::EngineKind, engine::EngineFacts};

/// Major and minor version.
pub type MajorMinor = (u32, u32);

/// Whether an image in the engine's store can have several platforms under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    MultiPlatform,
    SinglePlatform,
}

/// Which versions of an engine have a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Yes,
    No,
    /// This version and later ones.
    Since(MajorMinor),
    /// The versions before this one.
    Before(MajorMinor),
    /// Any version that uses the containerd image store.
    ContainerdStore,
}

impl Support {
    fn includes(self, version: MajorMinor, store: ImageStore) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Since(first) => version >= first,
            Self::Before(end) => version < end,
            Self::ContainerdStore => store == ImageStore::MultiPlatform,
        }
    }
}

/// A feature that only some engines or versions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `--output=type=cacheonly`: a build leaves no image. Podman has no such output: its image is also its
    /// cache.
    BuildWithoutImage,
    /// An image of the store replaces a stage of the Dockerfile (`--build-context NAME=container-image://IMAGE`).
    /// Only for Podman: Docker's builds do not need it.
    StageFromImage,
    /// Each user has a separate folder for cache mounts. Buildah 1.28 and earlier (Podman 4.3) uses one folder
    /// for all users of a machine. It belongs to the user who builds first, and builds of all other users
    /// fail. <https://github.com/containers/buildah/pull/4402>
    PerUserCacheFolder,
    /// `--userns=keep-id` accepts `uid=` and `gid=`.
    /// <https://docs.podman.io/en/v4.3/markdown/options/userns.container.html>
    KeepIdWithIds,
    /// A rootless container on a bridge network can reach the host's loopback, for example a Temporal dev
    /// server. This needs slirp4netns, the default network of rootless Podman before version 5.
    /// <https://docs.podman.io/en/v4.3/markdown/options/network.html>
    LoopbackFromBridge,
    /// An image in the store can have several platforms under one name, and the engine's default builder
    /// builds it. <https://docs.docker.com/engine/storage/containerd/>
    MultiPlatformStore,
    /// `buildx create` adds builders to the engine's default one.
    Builders,
}

impl Capability {
    /// Which versions of an engine have the capability.
    pub fn support(self, kind: EngineKind) -> Support {
        use Support::{Before, ContainerdStore, No, Since, Yes};
        match (self, kind) {
            (
                Self::BuildWithoutImage | Self::PerUserCacheFolder | Self::Builders,
                EngineKind::Docker,
            ) => Yes,
            (Self::BuildWithoutImage | Self::Builders, EngineKind::Podman)
            | (Self::StageFromImage, EngineKind::Docker) => No,
            (Self::StageFromImage, EngineKind::Podman) => Since((4, 2)),
            (Self::PerUserCacheFolder, EngineKind::Podman) => Since((4, 4)),
            (Self::KeepIdWithIds | Self::LoopbackFromBridge, EngineKind::Docker) => No,
            (Self::KeepIdWithIds, EngineKind::Podman) => Since((4, 3)),
            (Self::LoopbackFromBridge, EngineKind::Podman) => Before((5, 0)),
            (Self::MultiPlatformStore, EngineKind::Docker) => ContainerdStore,
            (Self::MultiPlatformStore, EngineKind::Podman) => Yes,
        }
    }
}

impl EngineFacts {
    /// Whether the engine has a capability, whatever its image store.
    pub fn can(&self, capability: Capability) -> bool {
        self.can_with(capability, ImageStore::SinglePlatform)
    }

    /// Whether the engine has a capability if it uses this image store.
    pub(super) fn can_with(&self, capability: Capability, store: ImageStore) -> bool {
        capability
            .support(self.engine.kind)
            .includes(self.major_minor(), store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::image::Platform,
        engine::{Engine, Location},
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
            location: Location::Host,
        }
    }

    #[test]
    fn capabilities_depend_on_the_version() {
        let podman = |version| facts(EngineKind::Podman, version);
        let keep_id = Capability::KeepIdWithIds;
        assert!(podman("4.3.1").can(keep_id));
        assert!(podman("5.0.0-dev").can(keep_id));
        assert!(!podman("4.2.0").can(keep_id));
        assert!(!podman("").can(keep_id), "an unknown version counts as old");
        assert!(podman("4.9.4").can(Capability::LoopbackFromBridge));
        assert!(!podman("5.0.0").can(Capability::LoopbackFromBridge));
        assert!(!podman("4.3.1").can(Capability::PerUserCacheFolder));
        assert!(podman("4.4.0").can(Capability::PerUserCacheFolder));
    }

    #[test]
    fn multi_platform_images_depend_on_dockers_store() {
        let several = Capability::MultiPlatformStore;
        let docker = facts(EngineKind::Docker, "26.1.5+dfsg1");
        assert!(docker.can_with(several, ImageStore::MultiPlatform));
        assert!(!docker.can_with(several, ImageStore::SinglePlatform));
        assert!(facts(EngineKind::Podman, "4.3.1").can_with(several, ImageStore::SinglePlatform));
    }
}
