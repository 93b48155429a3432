//! Reading a credential file: Docker's `config.json`, or Podman's `auth.json`, which has the same
//! format.
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use std::{fs, path::Path};

use serde_json::Value;

use super::login::Login;

/// The name of Docker Hub in credential files and for credential helpers.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A credential file.
#[derive(Clone, Debug)]
pub struct ConfigFile(Value);

impl ConfigFile {
    /// `None` if there is no such file, or it cannot be read.
    pub fn open(path: &Path) -> Option<Self> {
        Self::parse(&fs::read(path).ok()?)
    }

    /// `None` if the text is not JSON.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(Self)
    }

    /// The login that is in the file itself. Podman keeps logins for namespaces and repositories
    /// too: the longest name that matches is used. The path is the repository's name within the
    /// registry, and may be empty.
    pub fn login(&self, registry: &str, path: &str) -> Option<Login> {
        let mut names = vec![format!("{registry}/{path}")];
        while let Some((shorter, _)) = names.last()?.rsplit_once('/') {
            names.push(shorter.to_owned());
        }
        names.push(format!("https://{registry}"));
        if registry == "docker.io" {
            names.push(DOCKER_HUB.to_owned());
        }
        names.iter().find_map(|name| {
            let entry = &self.0["auths"][name];
            let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
            // With an identity token, `auth` has an empty password.
            text("identitytoken")
                .map(|token| Login::IdentityToken(token.to_owned()))
                .or_else(|| text("auth").map(|auth| Login::EncodedPassword(auth.to_owned())))
        })
    }

    /// The program of the credential helper for a registry, if one is configured.
    /// <https://docs.docker.com/reference/cli/docker/login/#credential-helpers>
    pub fn helper(&self, registry: &str) -> Option<String> {
        self.0["credHelpers"][registry]
            .as_str()
            .or_else(|| self.0["credsStore"].as_str())
            .filter(|name| !name.is_empty())
            .map(|name| format!("docker-credential-{name}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_name_that_matches_is_used() {
        let file = ConfigFile(json!({ "auths": {
            "ghcr.io": { "auth": "all" }, "ghcr.io/a": { "auth": "a" }
        }}));
        let is = |path: &str, auth: &str| {
            let login = Login::EncodedPassword(auth.to_owned());
            assert_eq!(file.login("ghcr.io", path), Some(login), "{path}");
        };
        is("a/b", "a");
        is("b/c", "all");
        is("", "all");
        assert_eq!(file.login("quay.io", "a/b"), None);
    }

    #[test]
    fn docker_hub_has_a_name_of_its_own() {
        let file = ConfigFile(json!({ "auths": { DOCKER_HUB: { "auth": "hub" } } }));
        let login = Login::EncodedPassword("hub".into());
        assert_eq!(file.login("docker.io", "a/b"), Some(login));
        assert_eq!(file.login("index.docker.io", "a/b"), None);
    }

    #[test]
    fn an_identity_token_is_used_before_the_password() {
        let entry = json!({ "auth": "bWU6", "identitytoken": "marked" });
        let file = ConfigFile(json!({ "auths": { "r.io": entry } }));
        let login = Login::IdentityToken("marked".into());
        assert_eq!(file.login("r.io", "a/b"), Some(login));
    }

    #[test]
    fn a_registrys_own_helper_is_used_before_the_common_one() {
        let config = json!({ "credHelpers": { "ghcr.io": "pass" }, "credsStore": "desktop" });
        let helper = |config, registry| ConfigFile(config).helper(registry);
        assert_eq!(
            helper(config.clone(), "ghcr.io").unwrap(),
            "docker-credential-pass"
        );
        assert_eq!(
            helper(config, "quay.io").unwrap(),
            "docker-credential-desktop"
        );
        assert_eq!(helper(json!({}), "quay.io"), None);
    }
}
