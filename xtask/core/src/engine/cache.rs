//! The cache mounts of our Dockerfile, which `clean --all` removes. Their ids identify them. Nothing
//! identifies the rest of a builder's cache, so it is never removed.

use crate::{
    base::engine_kind::EngineKind,
    engine::{Engine, build::DEFAULT_BUILDER, is_safe_argument},
    plan::Cmd,
};

/// The Dockerfile's build argument with the prefix of its cache mounts' ids.
pub const PREFIX_ARG: &str = "CACHE_ID";

/// A cache mount of the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// BuildKit's own id, or Buildah's folder.
    pub location: String,
    /// The id in the Dockerfile.
    pub id: String,
}

impl Engine {
    /// Lists the builder's cache mounts, if the engine has a command for it.
    pub fn list_cache_mounts(&self) -> Option<Cmd> {
        match self.kind {
            EngineKind::Docker => Some(self.cmd().args([
                "buildx",
                "du",
                "--builder",
                DEFAULT_BUILDER,
                "--verbose",
                "--filter",
                "type=exec.cachemount",
            ])),
            // Buildah has no such command. Its cache mounts are folders.
            EngineKind::Podman => None,
        }
    }

    /// Removes one cache mount.
    pub fn remove_cache_mount(&self, mount: &CacheMount) -> Cmd {
        match self.kind {
            EngineKind::Docker => self.cmd().args([
                "buildx",
                "prune",
                "--builder",
                DEFAULT_BUILDER,
                "--force",
                "--filter",
                &format!("id={}", mount.location),
            ]),
            EngineKind::Podman => Cmd::new("rm").args(["-rf", &mount.location]),
        }
    }
}

/// Reads the answer to [`Engine::list_cache_mounts`]: blocks of `Name: value` lines. A description ends
/// with the mount's id, such as `with id "/agent-runner-uv"`.
pub fn read_cache_mounts(text: &str, prefix: &str) -> Vec<CacheMount> {
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
            is_our_cache_id(id, prefix).then_some(())?;
            Some(CacheMount {
                // An empty filter would remove all cache mounts of the builder.
                location: field(block, "ID").filter(|id| is_safe_argument(id))?,
                id: id.to_owned(),
            })
        })
        .collect()
}

/// The default of [`PREFIX_ARG`] in a Dockerfile, if it has one.
pub fn prefix_in_dockerfile(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let mut words = line.trim().strip_prefix("ARG ")?.split_whitespace();
        words.find_map(|word| word.strip_prefix(PREFIX_ARG)?.strip_prefix('='))
    })?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether a cache mount with this id belongs to the Dockerfile with this prefix.
pub fn is_our_cache_id(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_cache_mounts_are_listed() {
        let listed = "ID:           abc\nMutable:      true\nDescription:  cached mount /root/.cache/uv from exec /bin/sh -c uv with id \"/agent-runner-uv\"\nType:         exec.cachemount\n\n\
                    ID:           def\nDescription:  cached mount /root/.cache from exec /bin/sh -c x with id \"/root/.cache\"\n\n\
                    ID:           ghi\nDescription:  cached mount /c from exec /bin/sh -c x with id \"/agent-runnerx\"\n";
        let ours = CacheMount {
            location: "abc".to_owned(),
            id: "agent-runner-uv".to_owned(),
        };
        assert_eq!(read_cache_mounts(listed, "agent-runner"), [ours]);
        assert!(read_cache_mounts(listed, "other").is_empty());
        assert!(read_cache_mounts("", "agent-runner").is_empty());
    }

    #[test]
    fn the_prefix_is_the_dockerfiles() {
        let ours = include_str!("../../../../Dockerfile");
        assert_eq!(prefix_in_dockerfile(ours).unwrap(), "agent-runner");
        assert_eq!(prefix_in_dockerfile("FROM x\nARG CACHE_IDS=y\n"), None);
        let several = "ARG A=b CACHE_ID=\"mine\" C\n";
        assert_eq!(prefix_in_dockerfile(several).unwrap(), "mine");
    }
}
