//! How credential files and credential helpers name a registry.

/// The name of Docker Hub that Docker writes to credential files and passes to credential helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The host and the path of an entry's name. An old entry has the URL of the registry's interface
/// for a name. Its path is not a namespace, so it is for the whole registry.
pub fn parse(name: &str) -> (&str, &str) {
    let without_scheme = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"));
    let (host, path) = match without_scheme.unwrap_or(name).split_once('/') {
        Some((host, path)) => (host, path),
        None => (without_scheme.unwrap_or(name), ""),
    };
    if without_scheme.is_some() || matches!(path, "v1/" | "v2/") {
        (host, "")
    } else {
        (host, path.trim_end_matches('/'))
    }
}

/// A registry, or a namespace of one, as a user typed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Docker Hub is `docker.io`.
    pub registry: String,
    /// The namespace; empty for the whole registry.
    pub path: String,
}

impl Typed {
    /// Accepts every form that credential files have.
    pub fn parse(text: &str) -> Self {
        let (host, path) = parse(text);
        let host = if is_docker_hub(host) {
            DOCKER_HUB_HOSTS[0]
        } else {
            host
        };
        Self {
            registry: host.to_owned(),
            path: path.to_owned(),
        }
    }

    /// The name for an engine's client.
    pub fn name(&self) -> String {
        if self.path.is_empty() {
            self.registry.clone()
        } else {
            format!("{}/{}", self.registry, self.path)
        }
    }
}

/// Whether two hosts are the same registry.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || (is_docker_hub(one) && is_docker_hub(other))
}

fn is_docker_hub(host: &str) -> bool {
    DOCKER_HUB_HOSTS.contains(&host)
}

/// The name by which Docker asks a credential helper for the login, and writes it to its file.
pub fn for_helper(registry: &str) -> &str {
    if is_docker_hub(registry) {
        DOCKER_HUB
    } else {
        registry
    }
}

/// The names by which go-containerregistry asks for the login of a repository: that of the repository, and that of the
/// registry.
pub fn for_login(registry: &str, path: &str) -> [String; 2] {
    let host = if is_docker_hub(registry) {
        "index.docker.io"
    } else {
        registry
    };
    [format!("{host}/{path}"), for_helper(registry).to_owned()]
}

/// All names by which clients may have given the login to a credential helper. Podman uses the host
/// for Docker Hub too.
pub fn all_for_helper(registry: &str) -> Vec<&str> {
    let mut names = vec![for_helper(registry)];
    if is_docker_hub(registry) {
        names.push(DOCKER_HUB_HOSTS[0]);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_urls_or_namespaces() {
        for (name, host, path) in [
            ("r.io", "r.io", ""),
            ("r.io:5000/", "r.io:5000", ""),
            ("https://r.io/v1/", "r.io", ""),
            ("http://r.io", "r.io", ""),
            ("https://r.io/team/x", "r.io", ""),
            ("r.io/team/x/", "r.io", "team/x"),
            (DOCKER_HUB, "index.docker.io", ""),
        ] {
            assert_eq!(parse(name), (host, path), "{name}");
        }
    }

    #[test]
    fn a_registry_may_be_typed_in_many_forms() {
        for (typed, name) in [
            ("r.io", "r.io"),
            ("r.io:5000/", "r.io:5000"),
            ("https://r.io/", "r.io"),
            ("https://r.io/v2/", "r.io"),
            ("r.io/team/", "r.io/team"),
            ("index.docker.io", "docker.io"),
            (DOCKER_HUB, "docker.io"),
        ] {
            assert_eq!(Typed::parse(typed).name(), name, "{typed}");
        }
    }

    #[test]
    fn helpers_know_docker_hub_by_two_names() {
        assert_eq!(all_for_helper("docker.io"), [DOCKER_HUB, "docker.io"]);
        assert_eq!(all_for_helper("index.docker.io"), [DOCKER_HUB, "docker.io"]);
        assert_eq!(all_for_helper("ghcr.io"), ["ghcr.io"]);
    }
}
