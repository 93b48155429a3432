//! How cosign reaches an image's registry: with the login and the certificates that xtask uses. By itself cosign
//! would look in fewer places for them.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    credentials::{logins_of_user, places::AUTH_VARIABLE},
    facts::context::Context,
    plan::{Cmd, EnvValue},
    registry::{
        certificates,
        client::{Connection, RegistryClient, Security},
    },
    release::sign::private_files::PrivateFiles,
};

/// The variable for the folder of `config.json`.
const CONFIG_VARIABLE: &str = "DOCKER_CONFIG";

/// What cosign needs to reach a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAccess {
    pub tls: Tls,
    env: Vec<(&'static str, String)>,
    pub files: PrivateFiles,
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    PlainHttp,
    /// The certificate is not checked.
    Unchecked,
    Checked {
        /// A file with all authorities to trust; none for those of the system.
        authorities: Option<PathBuf>,
        /// A client certificate and its key.
        client: Option<(PathBuf, PathBuf)>,
    },
}

impl Tls {
    pub const SYSTEM: Self = Self::Checked {
        authorities: None,
        client: None,
    };

    /// What everybody needs who reaches the registry from another machine. Files of this machine are left out.
    pub fn elsewhere(&self) -> Self {
        match self {
            Self::PlainHttp | Self::Unchecked => self.clone(),
            Self::Checked { .. } => Self::SYSTEM,
        }
    }
}

impl RegistryAccess {
    /// Reads what the registry's client uses.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn gather(cx: &Context, registry: &RegistryClient) -> Result<Self> {
        let connection = registry.connection();
        cx.exec.fail_if_interrupted()?;
        let mut files = PrivateFiles::new(cx.env, std::process::id());
        let tls = tls(&connection, &mut files)?;
        let mut env = Vec::new();
        if let Some(found) = connection.login {
            let (host, path) = (registry.host(), registry.path());
            let logins = logins_of_user(cx.env).with_login(host, path, &found.login);
            let what = format!("the login from {}", found.source);
            files.add("config.json", what, logins);
            env.push((CONFIG_VARIABLE, files.folder.display().to_string()));
            // cosign 3 would take the login in it before that of the file, which has it too.
            if cx.env.has(AUTH_VARIABLE) {
                env.push((AUTH_VARIABLE, String::new()));
            }
        }
        Ok(Self { tls, env, files })
    }

    /// The command with the variables that it needs.
    pub fn apply(&self, cmd: Cmd) -> Cmd {
        self.env.iter().fold(cmd, |cmd, (name, value)| {
            cmd.env(*name, EnvValue::Plain(value.clone()))
        })
    }
}

fn tls(connection: &Connection, files: &mut PrivateFiles) -> Result<Tls> {
    match connection.security {
        Security::PlainHttp => return Ok(Tls::PlainHttp),
        Security::Unchecked => return Ok(Tls::Unchecked),
        Security::Checked => {}
    }
    let found = &connection.certificates;
    let mut authorities = None;
    if !found.authorities.is_empty() {
        // cosign trusts only the authorities of the file.
        let all = certificates::bundle(&found.authorities).map_err(anyhow::Error::msg)?;
        let names = found.authorities.iter().map(|it| it.display().to_string());
        let names: Vec<_> = names.collect();
        let what = format!("the system's authorities and {}", names.join(", "));
        authorities = Some(files.add("authorities.pem", what, all));
    }
    let client = found.client.clone();
    let client = client.map(|certificate| (certificate.clone(), certificate.with_extension("key")));
    Ok(Tls::Checked {
        authorities,
        client,
    })
}
