//! Tokens in environment variables.

use super::{
    found::Problem,
    login::{Credentials, Login},
    registry_name,
};
use crate::base::env::Env;

/// GitHub's container registry. GitHub's own tokens and variables are used for it alone.
pub const GITHUB_REGISTRY: &str = "ghcr.io";

/// The variable for a token of the configured registry.
const REGISTRY_TOKEN: &str = "REGISTRY_TOKEN";

/// The tokens of the environment, and for whom they are.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    pub env: &'a Env,
    /// The host of the configured repository. `REGISTRY_TOKEN` goes to no other host, also if an option
    /// names another repository.
    pub registry: &'a str,
    /// The configured user, who may be empty.
    pub user: &'a str,
}

impl<'a> Tokens<'a> {
    /// The variables that may hold a token for a registry. The first that is set is used.
    pub fn variables(self, registry: &str) -> Vec<&'static str> {
        let mut names = Vec::new();
        if registry_name::is_same(registry, self.registry) {
            names.push(REGISTRY_TOKEN);
        }
        if registry == GITHUB_REGISTRY {
            names.extend(["GITHUB_TOKEN", "GH_TOKEN"]);
        }
        names
    }

    /// The first variable that is set and holds a token for a registry.
    pub fn variable(self, registry: &str) -> Option<&'static str> {
        let mut names = self.variables(registry).into_iter();
        names.find(|name| self.token(name).is_some())
    }

    /// The token in a variable. Line breaks at its end come from the file or the command that it was read from.
    pub fn token(self, name: &str) -> Option<&'a str> {
        let token = self.env.get(name)?.trim_end_matches(['\r', '\n']);
        Some(token).filter(|token| !token.is_empty())
    }

    /// The configured user; for ghcr.io otherwise `GITHUB_ACTOR`.
    pub fn user(self, registry: &str) -> Option<&'a str> {
        let actor = self.env.get("GITHUB_ACTOR");
        let actor = actor.filter(|_| registry == GITHUB_REGISTRY);
        Some(self.user).filter(|user| !user.is_empty()).or(actor)
    }

    /// The login with a token in the environment.
    pub fn login(self, registry: &str) -> Option<Credentials> {
        let name = self.variable(registry)?;
        Some(Credentials {
            login: Login::Password {
                user: self.user(registry)?.to_owned(),
                password: self.token(name)?.to_owned(),
            },
            source: name.to_owned(),
        })
    }

    /// Why there is no login in the environment, one line for each variable that matters.
    pub fn describe(self, registry: &str) -> Vec<String> {
        let mut lines = Vec::new();
        match self.variable(registry) {
            Some(name) => lines.push(format!("{name}: set, but its user name is not")),
            None if self.variables(registry).is_empty() => {}
            None => lines.push(format!("{}: not set", self.variables(registry).join(", "))),
        }
        let is_for_another = !registry_name::is_same(registry, self.registry);
        if is_for_another && self.token(REGISTRY_TOKEN).is_some() {
            lines.push(format!("{REGISTRY_TOKEN}: only for {}", self.registry));
        }
        lines
    }

    /// A token that cannot be used. GitHub's variables are often set for other programs, so they are no
    /// problem.
    pub fn problem(self, registry: &str) -> Option<Problem> {
        let name = self.variable(registry)?;
        (name == REGISTRY_TOKEN && self.user(registry).is_none()).then(|| Problem {
            what: format!("{name} is set, but its user name is not"),
            fix: "set the user name: `registry.user` in xtask.toml, or XTASK_REGISTRY_USER"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens<'a>(env: &'a Env, registry: &'a str, user: &'a str) -> Tokens<'a> {
        Tokens {
            env,
            registry,
            user,
        }
    }

    #[test]
    fn githubs_variables_are_for_its_registry_alone() {
        let env = Env::fake(&[("GITHUB_TOKEN", "t"), ("GITHUB_ACTOR", "me")]);
        let found = tokens(&env, GITHUB_REGISTRY, "")
            .login(GITHUB_REGISTRY)
            .unwrap();
        let password = Login::Password {
            user: "me".into(),
            password: "t".into(),
        };
        assert_eq!(found.login, password);
        assert_eq!(found.source, "GITHUB_TOKEN");
        assert_eq!(tokens(&env, "quay.io", "me").login("quay.io"), None);
    }

    #[test]
    fn a_token_needs_a_user() {
        let env = Env::fake(&[("REGISTRY_TOKEN", "t")]);
        let without = tokens(&env, "quay.io", "");
        assert_eq!(without.login("quay.io"), None);
        let line = "REGISTRY_TOKEN: set, but its user name is not";
        assert_eq!(without.describe("quay.io"), [line]);
        assert!(without.problem("quay.io").is_some());
        let with = tokens(&env, "quay.io", "me");
        assert!(with.login("quay.io").is_some());
        assert_eq!(with.problem("quay.io"), None);
    }

    #[test]
    fn the_token_of_the_configured_registry_goes_to_no_other_host() {
        let vars = [
            ("REGISTRY_TOKEN", "t"),
            ("GITHUB_TOKEN", "g"),
            ("GITHUB_ACTOR", "a"),
        ];
        let env = Env::fake(&vars);
        let it = tokens(&env, "quay.io", "me");
        assert_eq!(it.login("quay.io").unwrap().source, "REGISTRY_TOKEN");
        assert_eq!(it.login("r.io"), None);
        assert_eq!(it.describe("r.io"), ["REGISTRY_TOKEN: only for quay.io"]);
        assert_eq!(it.problem("r.io"), None);
        assert_eq!(it.login(GITHUB_REGISTRY).unwrap().source, "GITHUB_TOKEN");
        let hub = tokens(&env, "docker.io", "me");
        assert_eq!(
            hub.login("index.docker.io").unwrap().source,
            "REGISTRY_TOKEN"
        );
    }
}
