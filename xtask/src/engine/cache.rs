//! The build cache that is ours: the cache mounts of our Dockerfile, known by their ids.
//! The rest of a builder's cache has no owner, so it is left alone.

use crate::{
    base::engine_kind::EngineKind,
    engine::{Engine, is_name},
    plan::Cmd,
};

/// How the Dockerfile's cache mounts begin: its `CACHE_ID`.
const OURS: &str = "agent-runner";

/// A part of the builder's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// The builder's own id of it, or its folder.
    pub place: String,
    /// As the Dockerfile has it.
    pub id: String,
}

impl Engine {
    /// Lists the builder's cache mounts, where it can.
    pub fn list_cache_mounts(&self) -> Option<Cmd> {
        match self.kind {
            EngineKind::Docker => Some(self.cmd().args([
                "buildx",
                "du",
                "--builder=default",
                "--verbose",
                "--filter",
                "type=exec.cachemount",
            ])),
            // Buildah has no command for them: they are folders.
            EngineKind::Podman => None,
        }
    }

    /// Removes one cache mount.
    pub fn remove_cache_mount(&self, mount: &CacheMount) -> Cmd {
        match self.kind {
            EngineKind::Docker => self.cmd().args([
                "builder",
                "prune",
                "--force",
                "--filter",
                &format!("id={}", mount.place),
            ]),
            EngineKind::Podman => Cmd::new("rm").args(["-rf", &mount.place]),
        }
    }
}

/// Reads [`Engine::list_cache_mounts`]: blocks of `Name: value` lines, whose description ends
/// with the mount's id, as in `with id "/agent-runner-uv"`.
pub fn read_cache_mounts(text: &str) -> Vec<CacheMount> {
    let field = |block: &str, name: &str| {
        let line = block
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    text.split("\n\n")
        .filter_map(|block| {
            let id = field(block, "Description")?;
            let id = id
                .rsplit_once("with id \"")?
                .1
                .strip_suffix('"')?
                .trim_start_matches('/');
            ours(id).then_some(())?;
            Some(CacheMount {
                // Nothing would be a filter that takes everybody's.
                place: field(block, "ID").filter(|id| is_name(id))?,
                id: id.to_owned(),
            })
        })
        .collect()
}

/// Whether a cache mount's id is one of our Dockerfile's.
pub fn ours(id: &str) -> bool {
    id.strip_prefix(OURS)
        .is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_told_from_others() {
        let said = "ID:           abc\nMutable:      true\nDescription:  cached mount /root/.cache/uv from exec /bin/sh -c uv with id \"/agent-runner-uv\"\nType:         exec.cachemount\n\n\
                    ID:           def\nDescription:  cached mount /root/.cache from exec /bin/sh -c x with id \"/root/.cache\"\n\n\
                    ID:           ghi\nDescription:  cached mount /c from exec /bin/sh -c x with id \"/agent-runnerx\"\n";
        let ours = CacheMount {
            place: "abc".to_owned(),
            id: "agent-runner-uv".to_owned(),
        };
        assert_eq!(read_cache_mounts(said), [ours]);
        assert!(read_cache_mounts("").is_empty());
    }
}
