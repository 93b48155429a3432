//! How to reach a server: through which proxy, and with whose certificates.

use std::path::PathBuf;

use super::{
    address::Origin,
    certificates::{self, CertificateFiles, RegistryCertificates},
    proxy::Proxies,
};
use crate::base::env::Env;

/// What the environment, the configuration and the `certs.d` folders say about servers.
#[derive(Default)]
pub struct Servers {
    proxies: Proxies,
    /// Where certificates are looked for.
    certificate_folders: Vec<PathBuf>,
    /// The registries whose certificates are not checked.
    insecure: Vec<Origin>,
}

impl Servers {
    /// `insecure`: the hosts, each with its port, whose certificates are not checked.
    pub(crate) fn new(env: &Env, insecure: &[String]) -> Self {
        Self {
            proxies: Proxies::from_env(env),
            certificate_folders: certificates::folders(env),
            insecure: insecure
                .iter()
                .filter_map(|registry| Origin::of_registry(registry))
                .collect(),
        }
    }

    /// The URL of the proxy for requests to a server, with its user and password; `None` for a direct connection.
    pub fn proxy(&self, origin: &Origin) -> Option<&str> {
        self.proxies.for_origin(origin)
    }

    /// Whether a server's certificate is not checked, and TLS is not required.
    pub fn is_insecure(&self, origin: &Origin) -> bool {
        let is_same = |other: &Origin| {
            other.host == origin.host
                && [other.port, other.without_tls().port].contains(&origin.port)
        };
        origin.is_loopback() || self.insecure.iter().any(is_same)
    }

    /// The files with the certificates for a server.
    pub(crate) fn certificate_files(&self, origin: &Origin) -> CertificateFiles {
        certificates::files_of_registry(&self.certificate_folders, &origin.authority())
    }

    /// The certificates for the connections to a server.
    ///
    /// # Errors
    /// The file that cannot be read, and why.
    pub fn certificates(&self, origin: &Origin) -> Result<RegistryCertificates, String> {
        certificates::of_registry(&self.certificate_folders, &origin.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_insecure_by_configuration() {
        let insecure = ["10.0.0.1:5000".to_owned(), "k3d.localhost".to_owned()];
        let servers = Servers::new(&Env::fake(&[]), &insecure);
        for (url, expected) in [
            ("https://10.0.0.1:5000/", true),
            ("http://10.0.0.1:5000/", true),
            ("https://10.0.0.1/", false),
            ("http://k3d.localhost/", true),
            ("https://k3d.localhost/", true),
            ("http://127.0.0.1:1/", true),
            ("https://ghcr.io/", false),
        ] {
            assert_eq!(
                servers.is_insecure(&Origin::of(url).unwrap()),
                expected,
                "{url}"
            );
        }
    }
}
