//! Whose certificates are trusted: the system's authorities (or those that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name), and for a registry also those in the folders that Docker and Podman read.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::base::env::Env;

/// The certificates for the connections to one registry.
#[derive(Debug, Default)]
pub struct RegistryCertificates {
    /// Trusted beside the system's authorities.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What we show to the registry, if it asks for it.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain and its private key.
pub struct ClientCertificate {
    /// Our own certificate, and those of the authorities between it and a trusted one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of our own certificate.
    pub key: PrivateKeyDer<'static>,
}

/// Without the key.
impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// The `certs.d` folders of Docker and Podman. Each holds a folder per registry.
/// <https://docs.docker.com/engine/security/certificates/>
/// <https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md>
pub fn folders(env: &Env) -> Vec<PathBuf> {
    let home = env.home();
    let config = env
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let of_user = config.iter().flat_map(|config| {
        [
            config.join("containers/certs.d"),
            config.join("docker/certs.d"),
        ]
    });
    // Docker Desktop copies this one into its virtual machine.
    let of_desktop = home.map(|home| home.join(".docker/certs.d"));
    let of_system = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
    of_user
        .chain(of_desktop)
        .chain(of_system.map(PathBuf::from))
        .collect()
}

/// The files with the certificates for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    pub authorities: Vec<PathBuf>,
    /// A client certificate, `NAME.cert`. Its key is `NAME.key`.
    pub client: Option<PathBuf>,
}

/// The files for a registry such as `registry.example.com:5000`: `*.crt` are authorities, `NAME.cert` and
/// `NAME.key` are a client certificate.
pub fn files_of_registry(folders: &[PathBuf], registry: &str) -> CertificateFiles {
    let mut found = CertificateFiles::default();
    for folder in folders {
        let mut files: Vec<_> = std::fs::read_dir(folder.join(registry))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|ending| ending.to_str()) {
                Some("crt") => found.authorities.push(file),
                Some("cert") if found.client.is_none() => found.client = Some(file),
                _ => {}
            }
        }
    }
    found
}

/// Reads the certificates for a registry.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn of_registry(folders: &[PathBuf], registry: &str) -> Result<RegistryCertificates, String> {
    let files = files_of_registry(folders, registry);
    let mut found = RegistryCertificates::default();
    for file in &files.authorities {
        found.authorities.extend(read_certificates(file)?);
    }
    if let Some(file) = &files.client {
        let key = file.with_extension("key");
        found.client = Some(ClientCertificate {
            chain: read_certificates(file)?,
            key: PrivateKeyDer::from_pem_file(&key).map_err(|why| unreadable(&key, &why))?,
        });
    }
    Ok(found)
}

/// The authorities in the files, and those of the system, as one text in PEM.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn bundle(authorities: &[PathBuf]) -> Result<String, String> {
    let mut all = Vec::new();
    for file in authorities {
        all.extend(read_certificates(file)?);
    }
    all.extend(of_system().unwrap_or_default());
    Ok(all.iter().map(pem).collect())
}

fn pem(certificate: &CertificateDer) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (place, character) in text.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|why| unreadable(file, &why))?;
    if read.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM", file.display()));
    }
    Ok(read)
}

fn unreadable(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot read `{}`: {why}", file.display())
}

/// The system's authorities.
///
/// # Errors
/// When there are none, with what was wrong.
pub fn of_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(if why.is_empty() {
            "this machine has no certificate authorities".to_owned()
        } else {
            format!(
                "the certificate authorities cannot be read: {}",
                why.join("; ")
            )
        });
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_users_folders_come_first() {
        let folders = folders(&Env::fake(&[("HOME", "/home/me")]));
        assert_eq!(
            folders.first().unwrap(),
            Path::new("/home/me/.config/containers/certs.d")
        );
        assert_eq!(folders.last().unwrap(), Path::new("/etc/docker/certs.d"));
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("r.lan:5000");
        fs::create_dir(&registry).unwrap();
        let folders = [folder.path().to_owned()];
        assert!(
            of_registry(&folders, "r.lan:5000")
                .unwrap()
                .authorities
                .is_empty()
        );
        fs::write(registry.join("notes.txt"), "x").unwrap();
        let file = registry.join("ca.crt");
        fs::write(&file, "x").unwrap();
        let why = of_registry(&folders, "r.lan:5000").unwrap_err();
        assert_eq!(
            why,
            format!("`{}` holds no certificate in PEM", file.display())
        );
        assert!(of_registry(&folders, "other.lan").is_ok());
        fs::remove_file(&file).unwrap();
        let key = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(registry.join("client.cert"), key).unwrap();
        let why = of_registry(&folders, "r.lan:5000").unwrap_err();
        assert!(why.contains("client.key"), "{why}");
    }
}
