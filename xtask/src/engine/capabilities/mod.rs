//! What an engine can do where not all can: the one place that knows since which version. Code that
//! decides asks [`EngineFacts::can`]; the table in docs/engines.md is made of the same, and the
//! end-to-end tests try each cell of it on a real engine.

#[cfg(test)]
mod page;

use super::{EngineFacts, Kind, multiarch::Store};

/// Major and minor.
pub type Release = (u32, u32);

/// Which engines have a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Yes,
    No,
    /// From this release on.
    Since(Release),
    /// In the releases before this one.
    Before(Release),
    /// Where the image store is containerd's: the engine is asked for that.
    ContainerdStore,
}

impl Support {
    fn holds(self, release: Release, store: Store) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Since(first) => release >= first,
            Self::Before(end) => release < end,
            Self::ContainerdStore => store == Store::SeveralPlatforms,
        }
    }
}

/// What is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `--output=type=cacheonly`: a build for its steps leaves no image. Podman needs the image as
    /// its cache.
    BuildWithoutImage,
    /// The folder of cache mounts is each user's own. Before, it was for all users of a machine:
    /// whoever built first owned it, and nobody else could build. Buildah had it so up to 1.28,
    /// which is in Podman 4.3. <https://github.com/containers/buildah/pull/4402>
    OwnCacheFolder,
    /// `--userns=keep-id` takes `uid=` and `gid=`.
    /// <https://docs.podman.io/en/v4.3/markdown/options/userns.container.html>
    KeepIdTakesIds,
    /// A rootless container on a bridge can be let through to what listens on the host's loopback
    /// alone, as a Temporal dev server does: with slirp4netns, the network of rootless Podman before
    /// version 5. <https://docs.podman.io/en/v4.3/markdown/options/network.html>
    LoopbackFromBridge,
    /// The image store holds an image for several platforms under one name, and the engine's own
    /// builder builds it. <https://docs.docker.com/engine/storage/containerd/>
    SeveralPlatforms,
    /// Builders beside the engine's own, as buildx makes them.
    Builders,
    /// Provenance and SBOM.
    Attestations,
}

impl Capability {
    /// What that takes of an engine.
    pub fn support(self, kind: Kind) -> Support {
        use Support::{Before, ContainerdStore, No, Since, Yes};
        match (self, kind) {
            (
                Self::BuildWithoutImage
                | Self::OwnCacheFolder
                | Self::Builders
                | Self::Attestations,
                Kind::Docker,
            ) => Yes,
            (Self::BuildWithoutImage | Self::Builders | Self::Attestations, Kind::Podman) => No,
            (Self::OwnCacheFolder, Kind::Podman) => Since((4, 4)),
            (Self::KeepIdTakesIds | Self::LoopbackFromBridge, Kind::Docker) => No,
            (Self::KeepIdTakesIds, Kind::Podman) => Since((4, 3)),
            (Self::LoopbackFromBridge, Kind::Podman) => Before((5, 0)),
            (Self::SeveralPlatforms, Kind::Docker) => ContainerdStore,
            (Self::SeveralPlatforms, Kind::Podman) => Yes,
        }
    }
}

impl EngineFacts {
    /// Whether the engine can do it, whatever its image store is: of that, [`Self::read_store`]
    /// knows.
    pub fn can(&self, capability: Capability) -> bool {
        self.can_with(capability, Store::OnePlatform)
    }

    /// The same, with what is known of its image store.
    pub(super) fn can_with(&self, capability: Capability, store: Store) -> bool {
        capability
            .support(self.engine.kind)
            .holds(self.release(), store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Engine, Place},
        image::Platform,
    };

    fn facts(kind: Kind, version: &str) -> EngineFacts {
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
        let podman = |version| facts(Kind::Podman, version);
        let keep_id = Capability::KeepIdTakesIds;
        assert!(podman("4.3.1").can(keep_id));
        assert!(podman("5.0.0-dev").can(keep_id));
        assert!(!podman("4.2.0").can(keep_id));
        assert!(!podman("").can(keep_id), "nothing is known of it");
        assert!(podman("4.9.4").can(Capability::LoopbackFromBridge));
        assert!(!podman("5.0.0").can(Capability::LoopbackFromBridge));
        assert!(!podman("4.3.1").can(Capability::OwnCacheFolder));
        assert!(podman("4.4.0").can(Capability::OwnCacheFolder));
    }

    #[test]
    fn the_store_decides_for_docker() {
        let several = Capability::SeveralPlatforms;
        let docker = facts(Kind::Docker, "26.1.5+dfsg1");
        assert!(docker.can_with(several, Store::SeveralPlatforms));
        assert!(!docker.can_with(several, Store::OnePlatform));
        assert!(facts(Kind::Podman, "4.3.1").can_with(several, Store::OnePlatform));
    }
}
