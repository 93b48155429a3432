//! Tokens in environment variables.

use super::login::{Credentials, Login};
use crate::base::env::Env;

/// GitHub's container registry. GitHub's own tokens and variables are used for it alone.
pub const GITHUB_REGISTRY: &str = "ghcr.io";

/// The variables that may hold a token for a registry. The first that is set is used.
pub fn token_variables(registry: &str) -> &'static [&'static str] {
    if registry == GITHUB_REGISTRY {
        &["REGISTRY_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"]
    } else {
        &["REGISTRY_TOKEN"]
    }
}

/// The first variable that is set and holds a token for a registry.
pub fn token_variable(env: &Env, registry: &str) -> Option<&'static str> {
    let names = token_variables(registry).iter();
    names.copied().find(|name| env.get(name).is_some())
}

/// The login with the token in the environment. `user` is the configured user; if it is empty,
/// `GITHUB_ACTOR` is used for ghcr.io.
pub fn login(env: &Env, registry: &str, user: &str) -> Option<Credentials> {
    let name = token_variable(env, registry)?;
    let actor = env
        .get("GITHUB_ACTOR")
        .filter(|_| registry == GITHUB_REGISTRY);
    let user = Some(user).filter(|user| !user.is_empty()).or(actor)?;
    Some(Credentials {
        login: Login::Password {
            user: user.to_owned(),
            password: env.get(name)?.to_owned(),
        },
        source: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn githubs_variables_are_for_its_registry_alone() {
        let env = Env::fake(&[("GITHUB_TOKEN", "t"), ("GITHUB_ACTOR", "me")]);
        let found = login(&env, GITHUB_REGISTRY, "").unwrap();
        let password = Login::Password {
            user: "me".into(),
            password: "t".into(),
        };
        assert_eq!(found.login, password);
        assert_eq!(found.source, "GITHUB_TOKEN");
        assert_eq!(login(&env, "quay.io", "me"), None);
    }

    #[test]
    fn a_token_needs_a_user() {
        let env = Env::fake(&[("REGISTRY_TOKEN", "t")]);
        assert_eq!(login(&env, "quay.io", ""), None);
        assert!(login(&env, "quay.io", "me").is_some());
    }
}
