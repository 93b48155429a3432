//! Who we are to a registry: what the engine's client stored, what the environment has, and
//! what registries want for it.

use std::path::PathBuf;

use serde_json::Value;

use super::http::{Auth, Body, Request};
use crate::{
    env::Env,
    exec::Exec,
    plan::{Cmd, Stdin},
};

/// GitHub's container registry: what GitHub's own tokens are for.
pub const GITHUB: &str = "ghcr.io";

/// How Docker Hub is called in credential files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The variables that may hold a registry's token, the first that is set counts.
pub fn token_names(registry: &str) -> &'static [&'static str] {
    if registry == GITHUB {
        &["REGISTRY_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"]
    } else {
        &["REGISTRY_TOKEN"]
    }
}

/// A user's name and secret, and where they are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub auth: Auth,
    /// For people: a file, or a variable's name.
    pub from: String,
}

impl Credentials {
    /// What the engine's client has stored, else what the environment has.
    pub fn find(
        exec: &Exec,
        env: &Env,
        files: &[PathBuf],
        repository: (&str, &str),
        user: &str,
    ) -> Option<Self> {
        stored(exec, files, repository).or_else(|| from_env(env, repository.0, user))
    }
}

/// A token of the environment's, with a user: the configured one, or in CI the actor.
fn from_env(env: &Env, registry: &str, user: &str) -> Option<Credentials> {
    let name = token_names(registry)
        .iter()
        .find(|name| env.get(name).is_some())?;
    let actor = env.get("GITHUB_ACTOR").filter(|_| registry == GITHUB);
    let user = Some(user).filter(|user| !user.is_empty()).or(actor)?;
    Some(Credentials {
        auth: Auth::User(user.to_owned(), env.get(name)?.to_owned()),
        from: (*name).to_owned(),
    })
}

/// The first of the files that knows the registry.
fn stored(exec: &Exec, files: &[PathBuf], (registry, path): (&str, &str)) -> Option<Credentials> {
    files.iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        let config: Value = serde_json::from_str(&text).ok()?;
        let auth = in_file(&config, registry, path)
            .or_else(|| ask_helper(exec, &helper(&config, registry)?, registry))?;
        Some(Credentials {
            auth,
            from: file.display().to_string(),
        })
    })
}

/// The entry for a repository, from the most to the least particular: Podman keeps them by
/// repository too. <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>
pub fn in_file(config: &Value, registry: &str, path: &str) -> Option<Auth> {
    let mut names = vec![format!("{registry}/{path}")];
    while let Some((shorter, _)) = names.last()?.rsplit_once('/') {
        names.push(shorter.to_owned());
    }
    names.push(format!("https://{registry}"));
    if registry == "docker.io" {
        names.push(DOCKER_HUB.to_owned());
    }
    names.iter().find_map(|name| {
        let entry = &config["auths"][name];
        let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
        // Beside an identity token, `auth` has the user's name and an empty password.
        text("identitytoken")
            .map(|token| Auth::Identity(token.to_owned()))
            .or_else(|| text("auth").map(|auth| Auth::Header(format!("Basic {auth}"))))
    })
}

/// The program that keeps the registry's credentials, if one does.
fn helper(config: &Value, registry: &str) -> Option<String> {
    config["credHelpers"][registry]
        .as_str()
        .or_else(|| config["credsStore"].as_str())
        .filter(|name| !name.is_empty())
        .map(|name| format!("docker-credential-{name}"))
}

/// What a helper calls the user of an identity token.
/// <https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>
const IDENTITY: &str = "<token>";

/// <https://github.com/docker/docker-credential-helpers#usage>
fn ask_helper(exec: &Exec, program: &str, registry: &str) -> Option<Auth> {
    let mut cmd = Cmd::new(program).arg("get");
    let server = if registry == "docker.io" {
        DOCKER_HUB
    } else {
        registry
    };
    cmd.stdin = Some(Stdin {
        secret: server.to_owned(),
        from: format!("echo {server}"),
    });
    let answer = exec.ask(&cmd, std::time::Duration::from_secs(10)).ok()?;
    let said: Value = serde_json::from_str(&answer.stdout).ok()?;
    let text = |name: &str| said[name].as_str().map(str::to_owned);
    let (user, secret) = (text("Username")?, text("Secret")?);
    Some(if user == IDENTITY {
        Auth::Identity(secret)
    } else {
        Auth::User(user, secret)
    })
}

/// What a registry wants to see, from the `WWW-Authenticate` header of its refusal.
/// <https://distribution.github.io/distribution/spec/auth/token/>
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token that another address gives out.
    Token {
        realm: String,
        service: String,
    },
}

impl Challenge {
    pub fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| {
            let (_, rest) = rest.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        scheme.eq_ignore_ascii_case("bearer").then_some(())?;
        Some(Self::Token {
            realm: value("realm").filter(|realm| is_address(realm))?,
            service: value("service").unwrap_or_default(),
        })
    }
}

/// Whether a registry's word is an address of the web: curl would also take it for an option, or for
/// a file of this machine.
pub fn is_address(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
        && !text.contains(bad)
}

/// Asks for a token that may pull and push.
pub fn token_request(realm: &str, service: &str, path: &str, auth: Auth) -> Request {
    let scope = format!("repository:{path}:pull,push");
    if let Auth::Identity(token) = auth {
        let mut request = Request::new("POST", realm);
        request.body = Body::Form(vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", "agent-runner-xtask".to_owned()),
            ("service", service.to_owned()),
            ("scope", scope),
            ("refresh_token", token),
        ]);
        return request;
    }
    let mark = if realm.contains('?') { '&' } else { '?' };
    let (service, scope) = (percent_encoded(service), percent_encoded(&scope));
    let mut request = Request::new(
        "GET",
        format!("{realm}{mark}service={service}&scope={scope}"),
    );
    request.auth = auth;
    request
}

/// A value as a part of an address. <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
fn percent_encoded(text: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    text.bytes().fold(String::new(), |out, c| {
        if plain(c) {
            out + &char::from(c).to_string()
        } else {
            out + &format!("%{c:02X}")
        }
    })
}

/// The token in the answer.
pub fn read_token(body: &str) -> Option<Auth> {
    let said: Value = serde_json::from_str(body).ok()?;
    let token = said["token"].as_str().or(said["access_token"].as_str())?;
    // It becomes a header's value.
    (!token.contains(char::is_control)).then_some(())?;
    Some(Auth::Header(format!("Bearer {token}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(
            Challenge::read(
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull""#
            ),
            Some(Challenge::Token {
                realm: "https://ghcr.io/token".into(),
                service: "ghcr.io".into()
            })
        );
        assert_eq!(
            Challenge::read(r#"Basic realm="x""#),
            Some(Challenge::Basic)
        );
        assert_eq!(Challenge::read("Negotiate"), None);
        let request = token_request("https://ghcr.io/token", "ghcr.io", "a/b", Auth::Nobody);
        assert_eq!(
            request.url,
            "https://ghcr.io/token?service=ghcr.io&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }

    #[test]
    fn the_most_particular_entry_counts() {
        let config =
            json!({ "auths": { "ghcr.io": { "auth": "all" }, "ghcr.io/a": { "auth": "a" } } });
        let is = |path: &str, auth: &str| {
            let wanted = Auth::Header(format!("Basic {auth}"));
            assert_eq!(in_file(&config, "ghcr.io", path), Some(wanted), "{path}");
        };
        is("a/b", "a");
        is("b/c", "all");
        assert_eq!(in_file(&config, "quay.io", "a/b"), None);
    }

    #[test]
    fn an_identity_token_is_exchanged_in_secret() {
        let config =
            json!({ "auths": { "r.io": { "auth": "bWU6", "identitytoken": "marked&token" } } });
        let found = in_file(&config, "r.io", "a/b").unwrap();
        assert_eq!(found, Auth::Identity("marked&token".into()));
        let request = token_request("https://r.io/token", "r.io", "a/b", found);
        let cmd = request.cmd();
        assert!(!format!("{:?}", cmd.args).contains("marked"), "{cmd:?}");
        assert!(!format!("{:?}", request.auth).contains("marked"));
        let asked = cmd.stdin.unwrap().secret;
        assert!(asked.contains("data-urlencode = \"grant_type=refresh_token\"\n"));
        assert!(asked.contains("data-urlencode = \"scope=repository:a/b:pull,push\"\n"));
        assert!(asked.contains("data-urlencode = \"refresh_token=marked&token\"\n"));
        assert!(!asked.contains("user ="), "{asked}");
    }

    #[test]
    fn helpers_are_known_by_registry_first() {
        let config = json!({ "credHelpers": { "ghcr.io": "pass" }, "credsStore": "desktop" });
        assert_eq!(
            helper(&config, "ghcr.io").unwrap(),
            "docker-credential-pass"
        );
        assert_eq!(
            helper(&config, "quay.io").unwrap(),
            "docker-credential-desktop"
        );
        assert_eq!(helper(&json!({}), "quay.io"), None);
    }

    #[test]
    fn githubs_tokens_are_for_github_alone() {
        let env = Env::fake(&[("GITHUB_TOKEN", "t"), ("GITHUB_ACTOR", "me")]);
        let found = from_env(&env, GITHUB, "").unwrap();
        assert_eq!(found.auth, Auth::User("me".into(), "t".into()));
        assert_eq!(from_env(&env, "quay.io", "me"), None);
        let env = Env::fake(&[("REGISTRY_TOKEN", "t")]);
        assert_eq!(from_env(&env, "quay.io", ""), None, "whose is it?");
        assert!(from_env(&env, "quay.io", "me").is_some());
    }
}
