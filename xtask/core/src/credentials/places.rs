//! Where Docker and Podman keep logins.

use std::path::{Path, PathBuf};

use super::{
    config_file::helper_program,
    registries_conf::{self, Helpers},
};
use crate::base::{
    engine_kind::EngineKind,
    env::{Env, Os},
};

/// The variable that holds the text of a credential file. Docker's client reads it since 28.3, and
/// GitLab CI sets it. <https://docs.docker.com/reference/cli/docker/#environment-variables>
pub const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// A place where a login may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A credential file.
    File(PathBuf),
    /// A variable with the text of a credential file.
    Variable(&'static str),
    /// A credential helper for all registries.
    Helper { program: String, named_in: PathBuf },
}

/// The places of engines, in the order in which they are searched. Each engine's client has its own
/// order. If there are several engines, the files that a variable names come first, because they were
/// named for this run.
pub fn of_engines(kinds: &[EngineKind], env: &Env, podman_helpers: &Helpers) -> Vec<Place> {
    let each = kinds.iter().flat_map(|kind| match kind {
        EngineKind::Docker => as_places(of_engine(*kind, env)),
        EngineKind::Podman => with_helpers(as_places(of_engine(*kind, env)), podman_helpers),
    });
    let mut places = vec![Place::Variable(AUTH_VARIABLE)];
    for place in each {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if kinds.len() > 1 {
        let named: Vec<_> = named_files(env).into_iter().flatten().collect();
        places.sort_by_key(|place| match place {
            Place::Variable(_) => 0,
            Place::File(file) if named.contains(file) => 1,
            Place::File(_) | Place::Helper { .. } => 2,
        });
    }
    places
}

fn as_places(files: Vec<PathBuf>) -> Vec<Place> {
    files.into_iter().map(Place::File).collect()
}

/// Adds the helpers of `registries.conf`. Its list says where among them the files are. If it leaves
/// them out, they come last.
fn with_helpers(files: Vec<Place>, helpers: &Helpers) -> Vec<Place> {
    let mut places = Vec::new();
    let mut files = Some(files);
    for name in &helpers.names {
        if name == registries_conf::FILES {
            places.extend(files.take().into_iter().flatten());
        } else {
            places.push(Place::Helper {
                program: helper_program(name),
                named_in: helpers.file.clone(),
            });
        }
    }
    places.extend(files.into_iter().flatten());
    places
}

/// The files that `REGISTRY_AUTH_FILE` and `DOCKER_CONFIG` name.
fn named_files(env: &Env) -> [Option<PathBuf>; 2] {
    let docker = env.get("DOCKER_CONFIG").map(Path::new);
    [
        env.get("REGISTRY_AUTH_FILE").map(PathBuf::from),
        docker.map(|folder| folder.join("config.json")),
    ]
}

/// The credential files of an engine's client, in the order in which it reads them. It writes to
/// the first.
pub fn of_engine(kind: EngineKind, env: &Env) -> Vec<PathBuf> {
    let [named, docker] = named_files(env);
    let in_home = |file: &str| env.home().map(|home| home.join(file));
    let dockers = docker.clone().or_else(|| in_home(".docker/config.json"));
    match kind {
        // https://docs.docker.com/reference/cli/docker/#environment-variables
        EngineKind::Docker => dockers.into_iter().collect(),
        // https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
        EngineKind::Podman => {
            if let Some(file) = named {
                return vec![file];
            }
            let mut files = Vec::from_iter(docker);
            files.extend(match env.os {
                Os::Linux => in_runtime_folder(env),
                Os::Mac => Vec::from_iter(in_home(".config/containers/auth.json")),
            });
            files.extend(match env.get("XDG_CONFIG_HOME") {
                Some(folder) => Some(Path::new(folder).join("containers/auth.json")),
                None => in_home(".config/containers/auth.json"),
            });
            files.extend(dockers);
            files
        }
    }
}

/// Podman's usual files on Linux. If there is no `XDG_RUNTIME_DIR`, it chooses a folder itself.
fn in_runtime_folder(env: &Env) -> Vec<PathBuf> {
    let folders = match (env.get("XDG_RUNTIME_DIR"), env.user.euid) {
        (Some(folder), _) => vec![folder.to_owned()],
        (None, 0) => vec!["/run/containers/0".to_owned()],
        (None, id) => vec![format!("/run/user/{id}"), format!("/tmp/podman-run-{id}")],
    };
    let file = |folder: &String| match folder.as_str() {
        "/run/containers/0" => Path::new(folder).join("auth.json"),
        _ => Path::new(folder).join("containers/auth.json"),
    };
    folders.iter().map(file).collect()
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

    const HOME: (&str, &str) = ("HOME", "/home/me");
    const RUNTIME: (&str, &str) = ("XDG_RUNTIME_DIR", "/run/user/1");

    fn files(kind: EngineKind, env: &Env) -> Vec<String> {
        let files = of_engine(kind, env).into_iter();
        files.map(|file| file.display().to_string()).collect()
    }

    fn podman(vars: &[(&str, &str)]) -> Vec<String> {
        files(EngineKind::Podman, &Env::fake(vars))
    }

    #[test]
    fn docker_reads_one_file() {
        let docker = |vars: &[(&str, &str)]| files(EngineKind::Docker, &Env::fake(vars));
        assert_eq!(docker(&[HOME]), ["/home/me/.docker/config.json"]);
        assert_eq!(docker(&[HOME, ("DOCKER_CONFIG", "/c")]), ["/c/config.json"]);
        let file = ("REGISTRY_AUTH_FILE", "/a.json");
        assert_eq!(docker(&[HOME, file]), ["/home/me/.docker/config.json"]);
    }

    #[test]
    fn podman_reads_its_own_files_first() {
        assert_eq!(
            podman(&[HOME, RUNTIME]),
            [
                "/run/user/1/containers/auth.json",
                "/home/me/.config/containers/auth.json",
                "/home/me/.docker/config.json"
            ]
        );
        let more = [
            HOME,
            RUNTIME,
            ("DOCKER_CONFIG", "/c"),
            ("XDG_CONFIG_HOME", "/x"),
        ];
        assert_eq!(
            podman(&more),
            [
                "/c/config.json",
                "/run/user/1/containers/auth.json",
                "/x/containers/auth.json",
                "/c/config.json"
            ]
        );
        let named = [&more[..], &[("REGISTRY_AUTH_FILE", "/a.json")]].concat();
        assert_eq!(podman(&named), ["/a.json"]);
    }

    #[test]
    fn podmans_usual_file_depends_on_the_system_and_the_user() {
        let mut env = Env::fake(&[HOME]);
        let first = |env: &Env| files(EngineKind::Podman, env)[..2].to_vec();
        let own = ["/run/user/1001", "/tmp/podman-run-1001"];
        assert_eq!(
            first(&env),
            own.map(|it| format!("{it}/containers/auth.json"))
        );
        env.user.euid = 0;
        assert_eq!(first(&env)[0], "/run/containers/0/auth.json");
        env.os = Os::Mac;
        assert_eq!(first(&env)[0], "/home/me/.config/containers/auth.json");
    }

    #[test]
    fn files_for_this_run_come_first_if_the_engine_is_not_known() {
        let env = Env::fake(&[HOME, RUNTIME, ("REGISTRY_AUTH_FILE", "/a.json")]);
        let places = |kinds: &[EngineKind]| of_engines(kinds, &env, &Helpers::default());
        let file = |path: &str| Place::File(path.into());
        let docker = file("/home/me/.docker/config.json");
        let variable = Place::Variable(AUTH_VARIABLE);
        let all = [variable.clone(), file("/a.json"), docker.clone()];
        assert_eq!(places(EngineKind::ALL), all);
        assert_eq!(places(&[EngineKind::Docker]), [variable, docker]);
    }

    #[test]
    fn the_order_of_the_engines_is_that_of_their_files() {
        let env = Env::fake(&[HOME, RUNTIME]);
        let first = |kinds: &[EngineKind]| {
            let places = of_engines(kinds, &env, &Helpers::default());
            assert_eq!(places.len(), 4, "no file twice: {places:?}");
            places[1].clone()
        };
        let docker = first(&[EngineKind::Docker, EngineKind::Podman]);
        assert_eq!(docker, Place::File("/home/me/.docker/config.json".into()));
        let podman = first(&[EngineKind::Podman, EngineKind::Docker]);
        assert_eq!(
            podman,
            Place::File("/run/user/1/containers/auth.json".into())
        );
    }

    #[test]
    fn helpers_of_registries_conf_are_asked_in_their_order() {
        let env = Env::fake(&[("REGISTRY_AUTH_FILE", "/a.json")]);
        let places = |names: &[&str]| {
            let helpers = Helpers {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                file: "/conf".into(),
            };
            of_engines(&[EngineKind::Podman], &env, &helpers).split_off(1)
        };
        let helper = |name: &str| Place::Helper {
            program: format!("docker-credential-{name}"),
            named_in: "/conf".into(),
        };
        let file = Place::File("/a.json".into());
        let listed = places(&["a", "containers-auth.json", "b"]);
        assert_eq!(listed, [helper("a"), file.clone(), helper("b")]);
        assert_eq!(places(&["a"]), [helper("a"), file.clone()]);
        assert_eq!(places(&[]), [file]);
    }

    #[test]
    fn podmans_usual_file_is_lost_at_reboot() {
        let lost = |kind, file: &str| is_lost_at_reboot(kind, Path::new(file));
        assert!(lost(EngineKind::Podman, "/run/user/1/containers/auth.json"));
        assert!(!lost(
            EngineKind::Podman,
            "/home/me/.config/containers/auth.json"
        ));
        assert!(!lost(EngineKind::Docker, "/run/user/1/config.json"));
    }
}
