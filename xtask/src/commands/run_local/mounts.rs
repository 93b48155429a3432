//! The container's mounts, and the steps that prepare their folders on the host.

use std::path::PathBuf;

use crate::{
    base::{env::Env, error::Failure},
    config::schema::is_folder,
    engine::{EngineFacts, Location},
    facts::host::{self, Folder},
    plan::{Cmd, Output, Step, quote_for_shell},
    settings::Settings,
};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// An absolute path on the host, or the name of a volume.
    pub host: String,
    /// `CONTAINER` or `CONTAINER:OPTIONS`.
    pub rest: String,
    /// What is at the path; none for a volume.
    pub folder: Option<Folder>,
}

impl Mount {
    /// The options of the mount, such as `ro`.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        let options = self.rest.split_once(':').map_or("", |(_, options)| options);
        options.split(',')
    }
}

/// Reads `HOST:CONTAINER[:OPTIONS]`. A host part that begins with a slash, dot or tilde is a path, any
/// other names a volume.
///
/// # Errors
/// When the path needs HOME and it is not set, and when engines cannot mount the path.
pub fn mount(volume: &str, settings: &Settings, env: &Env) -> Result<Mount, Failure> {
    let (host, rest) = volume.split_once(':').unwrap_or((volume, ""));
    if !is_folder(host) {
        return Ok(Mount {
            host: host.to_owned(),
            rest: rest.to_owned(),
            folder: None,
        });
    }
    let path: PathBuf = env.expand(host, &settings.root).ok_or_else(|| {
        Failure::usage(format!(
            "the volume `{volume}` needs HOME, which is not set"
        ))
        .hint("set HOME, or give an absolute path in `run.volumes`")
    })?;
    let text = path
        .to_str()
        .filter(|text| !text.contains(':'))
        .ok_or_else(|| {
            Failure::usage(format!(
                "the folder `{}` cannot be mounted: engines take no `:` and only UTF-8 in its path",
                path.display()
            ))
            .hint("mount another folder: `run.volumes` in `xtask.local.toml`")
        })?;
    Ok(Mount {
        host: text.to_owned(),
        rest: rest.to_owned(),
        folder: Some(host::folder(&path)),
    })
}

/// The steps after which the folder of a mount exists and the container's user can write to it.
///
/// # Errors
/// When the folder belongs to somebody else.
pub fn folder_steps(
    mount: &Mount,
    settings: &Settings,
    env: &Env,
    engine: &EngineFacts,
) -> Result<Vec<Step>, Failure> {
    let Some(folder) = &mount.folder else {
        return Ok(Vec::new());
    };
    if matches!(engine.location, Location::Remote(_)) {
        return Ok(Vec::new());
    }
    let read_only = mount.options().any(|option| option == "ro");
    let (uid, gid) = engine.identity(&settings.run.user, env.user).host_owner;
    // In a virtual machine, file sharing maps the owners.
    let owner_matters = engine.location == Location::Host && !read_only;
    let chown = || {
        Step::new(
            Cmd::new("chown").args([&format!("{uid}:{gid}"), &mount.host]),
            Output::Quiet,
        )
        .status(
            "Changing",
            format!("the owner of {} to uid {uid}", mount.host),
        )
    };
    let mut steps = Vec::new();
    match folder {
        Folder::Missing => {
            steps.push(
                Step::new(Cmd::new("mkdir").args(["-p", &mount.host]), Output::Quiet)
                    .status("Creating", mount.host.as_str()),
            );
            if owner_matters && env.user.euid == 0 && uid != 0 {
                steps.push(chown());
            }
        }
        Folder::Other => {}
        Folder::Exists {
            uid: owner,
            gid: group,
            mode,
        } => {
            let writable =
                *owner == uid || mode & 0o002 != 0 || (*group == gid && mode & 0o020 != 0);
            if owner_matters && !writable {
                if env.user.euid != 0 {
                    return Err(Failure::new(format!(
                        "the container's user could not write to `{}`: it belongs to uid {owner}, not to you (uid {uid})",
                        mount.host
                    ))
                    .hint(format!("change its owner: `sudo chown -R {uid}:{gid} {}`", quote_for_shell(&mount.host))));
                }
                steps.push(chown());
            }
        }
    }
    Ok(steps)
}
