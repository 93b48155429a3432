//! Where an engine has just stored a login.

use std::{fmt, path::PathBuf};

use super::{
    config_file::{ConfigFile, helper_program},
    places::{is_lost_at_reboot, of_engine},
    read, registries_conf,
};
use crate::base::{engine_kind::EngineKind, env::Env};

/// Where an engine stored a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The program of a credential helper.
    Helper(String),
    File {
        path: PathBuf,
        until_reboot: bool,
    },
}

impl Stored {
    /// Whether a login that a search found is from here.
    pub fn is_source(&self, source: &str) -> bool {
        match self {
            Self::Helper(program) => source.split(' ').next() == Some(program),
            Self::File { path, .. } => source == path.display().to_string(),
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helper(program) => write!(f, "kept by the credential helper `{program}`"),
            Self::File { path, until_reboot } => {
                let end = if *until_reboot {
                    " until the next reboot"
                } else {
                    ""
                };
                write!(f, "kept in {}{end}", path.display())
            }
        }
    }
}

/// Where an engine has just stored the login for a registry: in the helper that is configured for it,
/// or in its first file. `None` if the login is in none of the places that are known. The path is a namespace of the
/// registry, and is empty for all of it.
pub fn find(kind: EngineKind, env: &Env, registry: &str, path: &str) -> Option<Stored> {
    let knows_store = match kind {
        EngineKind::Docker => true,
        EngineKind::Podman => {
            let helpers = registries_conf::helpers(env, &mut Vec::new());
            let first = helpers.names.first();
            if let Some(name) = first.filter(|name| *name != registries_conf::FILES) {
                return Some(Stored::Helper(helper_program(name)));
            }
            false
        }
    };
    of_engine(kind, env).into_iter().find_map(|config| {
        let text = read::text(&config, env).ok().flatten()?;
        let file = ConfigFile::parse(&text).ok()?;
        let helper = file.helper(registry);
        if let Some(helper) = helper.filter(|it| knows_store || it.key == "credHelpers") {
            return Some(Stored::Helper(helper.program));
        }
        let until_reboot = is_lost_at_reboot(kind, &config);
        let login = file.login(registry, path).ok().flatten();
        login.map(|_| Stored::File {
            path: config,
            until_reboot,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_or_the_helper_that_keeps_it_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let conf = folder.path().join("registries.conf");
        fs::write(&conf, "credential-helpers = ['containers-auth.json']\n").unwrap();
        let at = folder.path().to_str().unwrap();
        let vars = [
            ("DOCKER_CONFIG", at),
            ("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap()),
        ];
        let env = Env::fake(&vars);
        let is = |kind, text: &str, stored: Option<Stored>| {
            fs::write(&file, text).unwrap();
            assert_eq!(find(kind, &env, "docker.io", ""), stored, "{text}");
        };
        let helper = |name: &str| Some(Stored::Helper(helper_program(name)));
        let in_file = |until_reboot| {
            let path = file.clone();
            Some(Stored::File { path, until_reboot })
        };
        let hub = r#""auths":{"https://index.docker.io/v1/":{"auth":"bWU6eA=="}}"#;
        is(EngineKind::Docker, &format!("{{{hub}}}"), in_file(false));
        let store = format!(r#"{{"credsStore":"s",{hub}}}"#);
        is(EngineKind::Docker, &store, helper("s"));
        // Podman does not know `credsStore`.
        is(
            EngineKind::Podman,
            &store,
            in_file(is_lost_at_reboot(EngineKind::Podman, &file)),
        );
        let own = r#"{"credHelpers":{"docker.io":"h"}}"#;
        is(EngineKind::Podman, own, helper("h"));
        is(EngineKind::Docker, "{}", None);
        fs::write(&conf, "credential-helpers = ['r']\n").unwrap();
        is(EngineKind::Podman, own, helper("r"));
    }

    #[test]
    fn the_place_is_recognised_as_a_source() {
        let helper = Stored::Helper("docker-credential-h".to_owned());
        assert!(helper.is_source("docker-credential-h (credsStore in /c/config.json)"));
        assert!(!helper.is_source("docker-credential-h2 (credsStore in /c/config.json)"));
        let file = Stored::File {
            path: "/run/auth.json".into(),
            until_reboot: true,
        };
        assert!(file.is_source("/run/auth.json") && !file.is_source("REGISTRY_TOKEN"));
        assert_eq!(
            file.to_string(),
            "kept in /run/auth.json until the next reboot"
        );
    }
}
