//! Reading a credential file: Docker's `config.json`, or Podman's `auth.json`, which has the same
//! format.
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{login::Login, registry_name};

/// The text of a credential file.
#[derive(Clone, Default)]
pub struct ConfigFile(Value);

/// A credential helper that a credential file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHelper {
    pub program: String,
    /// The key that names it: `credHelpers` or `credsStore`.
    pub key: &'static str,
}

impl ConfigFile {
    /// An empty text is a file without logins.
    ///
    /// # Errors
    /// The reason why the text is not a credential file, with line and column if it is not JSON.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.trim_ascii().is_empty() {
            return Ok(Self(Value::Null));
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !value.is_object() {
            return Err("it is not a JSON object".to_owned());
        }
        for key in ["auths", "credHelpers"] {
            if !value[key].is_null() && !value[key].is_object() {
                return Err(format!("`{key}` is not a JSON object"));
            }
        }
        Ok(Self(value))
    }

    /// The login that is in the file itself. Podman keeps logins for namespaces and repositories
    /// too: the longest name that matches is used. The path is the repository's name within the
    /// registry, and may be empty.
    ///
    /// # Errors
    /// Why an entry that matches is not a login.
    pub fn login(&self, registry: &str, path: &str) -> Result<Option<Login>, String> {
        let Some(auths) = self.0["auths"].as_object() else {
            return Ok(None);
        };
        for entry in matching(auths, registry, path) {
            let login =
                entry_login(entry).map_err(|why| format!("the `auth` of {registry} {why}"))?;
            if login.is_some() {
                return Ok(login);
            }
        }
        Ok(None)
    }

    /// Adds the logins of another file. They replace those for the same names.
    pub fn add_logins(&mut self, other: &Self) {
        for (name, entry) in other.0["auths"].as_object().into_iter().flatten() {
            self.0["auths"][name] = entry.clone();
        }
    }

    /// The text of the file with a login for a repository, which comes before all other logins and helpers for it.
    /// Other registries keep theirs.
    pub fn with_login(&self, registry: &str, path: &str, login: &Login) -> String {
        let entry = match login {
            Login::Password { user, password } => {
                json!({ "auth": BASE64_STANDARD.encode(format!("{user}:{password}")) })
            }
            Login::EncodedPassword(auth) => json!({ "auth": auth }),
            Login::IdentityToken(token) => json!({ "identitytoken": token }),
        };
        let mut file = self.0.clone();
        // Clients ask for the repository first. An empty helper keeps the common one from being asked.
        for name in registry_name::for_login(registry, path) {
            file["auths"][&name] = entry.clone();
            file["credHelpers"][&name] = "".into();
        }
        file.to_string()
    }

    /// The credential helper for a registry, if one is configured.
    /// <https://docs.docker.com/reference/cli/docker/login/#credential-helpers>
    pub fn helper(&self, registry: &str) -> Option<NamedHelper> {
        let own = self.0["credHelpers"].as_object();
        let own = own.and_then(|helpers| matching(helpers, registry, "").into_iter().next());
        // An empty name keeps the registry's login out of the common store.
        let (key, name) = match own {
            Some(name) => ("credHelpers", name),
            None => ("credsStore", &self.0["credsStore"]),
        };
        let name = name.as_str().filter(|name| !name.is_empty())?;
        Some(NamedHelper {
            program: helper_program(name),
            key,
        })
    }
}

/// The program of a credential helper.
pub fn helper_program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// The entries for a repository, the best first: those with the longest path, and of these the one
/// whose name a client would write today.
fn matching<'a>(entries: &'a Map<String, Value>, registry: &str, path: &str) -> Vec<&'a Value> {
    let mut found: Vec<_> = entries
        .iter()
        .filter_map(|(name, entry)| {
            let (host, below) = registry_name::parse(name);
            let matches = registry_name::is_same(host, registry) && contains(below, path);
            let is_usual = name == registry_name::for_helper(registry) || name == registry;
            matches.then_some(((below.len(), is_usual, name), entry))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, entry)| entry).collect()
}

/// Whether a namespace, or the whole registry if it is empty, contains a repository.
fn contains(namespace: &str, path: &str) -> bool {
    namespace.is_empty()
        || path
            .strip_prefix(namespace)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The login of one entry. Clients leave an empty entry if a credential helper keeps the login.
///
/// # Errors
/// Why `auth` is not a login, as a predicate whose subject is `auth`.
fn entry_login(entry: &Value) -> Result<Option<Login>, &'static str> {
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    // With an identity token, `auth` has an empty password.
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Login::IdentityToken(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        // Go's decoder ignores line breaks, so Docker and Podman do.
        let auth = auth.replace(['\r', '\n'], "");
        let decoded = BASE64_STANDARD.decode(&auth).map_err(|_| "is not base64")?;
        if !decoded.contains(&b':') {
            return Err("has no `:` between user and password");
        }
        return Ok(Some(Login::EncodedPassword(auth)));
    }
    let password = text("username").zip(text("password"));
    Ok(password.map(|(user, password)| Login::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login as credential files hold it, with the text as the password.
    fn encoded(text: &str) -> String {
        BASE64_STANDARD.encode(format!("me:{text}"))
    }

    fn auth(text: &str) -> Login {
        Login::EncodedPassword(encoded(text))
    }

    /// The login for `ghcr.io/a/b` of a file with one entry.
    fn with_name(name: &str) -> Option<Login> {
        let file = json!({ "auths": { name: { "auth": encoded("x") } } });
        ConfigFile(file).login("ghcr.io", "a/b").unwrap()
    }

    #[test]
    fn the_longest_name_that_matches_is_used() {
        let file = ConfigFile(json!({ "auths": {
            "https://ghcr.io/v2/": { "auth": encoded("url") }, "ghcr.io": { "auth": encoded("all") },
            "ghcr.io/a": { "auth": encoded("a") }, "ghcr.io/a/b/": { "auth": encoded("b") },
            "ghcr.io/a/bc": {},
        }}));
        let is = |path: &str, login: &str| {
            let found = file.login("ghcr.io", path).unwrap();
            assert_eq!(found, Some(auth(login)), "{path}");
        };
        is("a/b", "b");
        is("a/bc", "a");
        is("b/c", "all");
        is("", "all");
        assert_eq!(file.login("quay.io", "a/b"), Ok(None));
    }

    #[test]
    fn names_are_recognised_as_clients_wrote_them() {
        for name in [
            "ghcr.io",
            "ghcr.io/",
            "http://ghcr.io",
            "https://ghcr.io",
            "https://ghcr.io/v1/",
            "http://ghcr.io/v2/",
            "ghcr.io/v2/",
            "ghcr.io/a",
            "ghcr.io/a/b/",
        ] {
            assert_eq!(with_name(name), Some(auth("x")), "{name}");
        }
        for name in ["ghcr.io:443", "ghcr.io/b", "ghcr.io.x", "ghcr.io/a/bc", ""] {
            assert_eq!(with_name(name), None, "{name}");
        }
    }

    #[test]
    fn docker_hub_has_several_names() {
        for name in [
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
        ] {
            let file = ConfigFile(json!({
                "auths": { name: { "auth": encoded("hub") } }, "credHelpers": { name: "pass" },
            }));
            for registry in ["docker.io", "index.docker.io"] {
                let login = file.login(registry, "a/b");
                assert_eq!(login, Ok(Some(auth("hub"))), "{name}");
                let helper = file.helper(registry).unwrap().program;
                assert_eq!(helper, "docker-credential-pass", "{name}");
            }
            assert_eq!(file.login("ghcr.io", "a/b"), Ok(None), "{name}");
        }
    }

    #[test]
    fn each_form_of_a_login_is_read() {
        let login = |entry| ConfigFile(json!({ "auths": { "r.io": entry } })).login("r.io", "");
        let token = Login::IdentityToken("marked".into());
        let entry = json!({ "auth": "bWU6", "identitytoken": "marked" });
        assert_eq!(login(entry), Ok(Some(token)));
        let password = Login::Password {
            user: "me".into(),
            password: "pw".into(),
        };
        let entry = json!({ "username": "me", "password": "pw" });
        assert_eq!(login(entry), Ok(Some(password)));
        let entry = json!({ "username": "me", "password": "pw", "auth": encoded("x") });
        assert_eq!(login(entry), Ok(Some(auth("x"))));
        assert_eq!(login(json!({})), Ok(None));
    }

    #[test]
    fn line_breaks_in_base64_are_ignored_and_other_texts_are_no_login() {
        let login = |auth: &str| {
            let file = json!({ "auths": { "r.io": { "auth": auth } } });
            ConfigFile(file).login("r.io", "")
        };
        assert_eq!(login("bWU6\r\neA==\n"), Ok(Some(auth("x"))));
        let why = |text: &str| login(text).unwrap_err();
        assert_eq!(why("me:x"), "the `auth` of r.io is not base64");
        let without_colon = "the `auth` of r.io has no `:` between user and password";
        assert_eq!(why("bWU="), without_colon);
        assert_eq!(why("\n"), without_colon);
    }

    #[test]
    fn a_registrys_own_helper_is_used_before_the_common_one() {
        let file = ConfigFile(json!({
            "credHelpers": { "ghcr.io": "pass", "quay.io": "" }, "credsStore": "desktop",
        }));
        let helper = |registry| file.helper(registry).map(|it| (it.program, it.key));
        let is = |program: &str, key| Some((program.to_owned(), key));
        assert_eq!(
            helper("ghcr.io"),
            is("docker-credential-pass", "credHelpers")
        );
        assert_eq!(
            helper("r.io"),
            is("docker-credential-desktop", "credsStore")
        );
        assert_eq!(helper("quay.io"), None);
        assert_eq!(ConfigFile(json!({})).helper("quay.io"), None);
    }

    #[test]
    fn a_login_is_added_before_all_others_for_its_registry() {
        let file = json!({
            "auths": { "r.io": { "auth": encoded("old") }, "q.io": { "auth": encoded("q") } },
            "credHelpers": { "r.io": "h", "q.io": "" }, "credsStore": "s", "detachKeys": "x",
        });
        let mut file = ConfigFile(file);
        let other = json!({ "auths": { "p.io": { "auth": encoded("p") } } });
        file.add_logins(&ConfigFile(other));
        let added = |file: &ConfigFile, registry, login: &Login| {
            let text = file.with_login(registry, "a/b", login);
            ConfigFile::parse(text.as_bytes()).unwrap()
        };
        let new = added(&file, "r.io", &auth("new"));
        assert_eq!(new.login("r.io", "a/b"), Ok(Some(auth("new"))));
        assert_eq!(new.login("q.io", ""), Ok(Some(auth("q"))));
        assert_eq!(new.login("p.io", ""), Ok(Some(auth("p"))));
        assert_eq!(
            new.0["credHelpers"],
            json!({ "r.io": "", "r.io/a/b": "", "q.io": "" })
        );
        assert_eq!(
            (&new.0["credsStore"], &new.0["detachKeys"]),
            (&json!("s"), &json!("x"))
        );
        // A file that does not exist, and the names of Docker Hub.
        let token = Login::IdentityToken("t".into());
        let new = added(&ConfigFile::default(), "docker.io", &token);
        let names: Vec<_> = new.0["auths"].as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            ["https://index.docker.io/v1/", "index.docker.io/a/b"]
        );
        assert_eq!(new.login("docker.io", "a/b"), Ok(Some(token)));
    }

    #[test]
    fn a_file_that_is_not_one_is_refused_with_the_reason() {
        let why = |text: &str| ConfigFile::parse(text.as_bytes()).err();
        assert_eq!(why(" \n"), None);
        assert_eq!(why("{}"), None);
        let comma = "{\n  \"auths\": {},\n}\n";
        assert_eq!(why(comma).unwrap(), "trailing comma at line 3 column 1");
        assert_eq!(why("[]").unwrap(), "it is not a JSON object");
        let list = r#"{"auths":[]}"#;
        assert_eq!(why(list).unwrap(), "`auths` is not a JSON object");
    }
}
