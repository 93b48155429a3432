//! Where Docker and Podman keep logins.

use std::path::{Path, PathBuf};

use crate::base::{engine_kind::EngineKind, env::Env};

/// The credential files of an engine's client, in the order in which it reads them. It writes to
/// the first.
pub fn of_engine(kind: EngineKind, env: &Env) -> Vec<PathBuf> {
    let below = |name: &str, file: &str| env.get(name).map(|folder| Path::new(folder).join(file));
    let home = env.home().map(|home| home.join(".docker/config.json"));
    let docker = below("DOCKER_CONFIG", "config.json");
    let files = match kind {
        // https://docs.docker.com/reference/cli/docker/#environment-variables
        EngineKind::Docker => vec![docker.or(home)],
        // https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
        EngineKind::Podman => vec![
            env.get("REGISTRY_AUTH_FILE").map(PathBuf::from),
            docker,
            below("XDG_RUNTIME_DIR", "containers/auth.json"),
            (env.user.euid == 0).then(|| PathBuf::from("/run/containers/0/auth.json")),
            Some(PathBuf::from(format!(
                "/tmp/podman-run-{}/containers/auth.json",
                env.user.euid
            ))),
            home,
        ],
    };
    files.into_iter().flatten().collect()
}

/// The credential files of all engines, Docker's first.
pub fn of_all_engines(env: &Env) -> Vec<PathBuf> {
    EngineKind::ALL
        .iter()
        .flat_map(|kind| of_engine(*kind, env))
        .collect()
}

/// Whether a file is lost when the machine restarts. Podman's default is such a place.
pub fn is_lost_at_reboot(kind: EngineKind, file: &Path) -> bool {
    match kind {
        EngineKind::Docker => false,
        EngineKind::Podman => file.starts_with("/run") || file.starts_with("/tmp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_reads_its_own_files_first() {
        let env = Env::fake(&[("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
        let docker = [PathBuf::from("/home/me/.docker/config.json")];
        assert_eq!(of_engine(EngineKind::Docker, &env), docker);
        let podman = of_engine(EngineKind::Podman, &env);
        assert_eq!(podman[0], Path::new("/run/user/1/containers/auth.json"));
        assert_eq!(podman.last(), docker.first());
        assert!(is_lost_at_reboot(EngineKind::Podman, &podman[0]));
        assert!(!is_lost_at_reboot(EngineKind::Docker, &docker[0]));
    }
}
