//! The container's mounts, and the steps that prepare their folders on the host.

use std::path::{Path, PathBuf};

use crate::{
    base::{env::Env, error::Failure},
    config::{
        layer::{Origin, Sourced},
        schema::is_folder,
    },
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
    /// The folders above a missing one that are missing too, the outermost first.
    pub missing_parents: Vec<PathBuf>,
}

impl Mount {
    /// The folder in the container, as it was written.
    pub fn target(&self) -> &str {
        self.rest.split(':').next().unwrap_or_default()
    }

    /// The options of the mount, such as `ro`.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        let options = self.rest.split_once(':').map_or("", |(_, options)| options);
        options.split(',')
    }

    pub fn is_read_only(&self) -> bool {
        self.options().any(|option| option == "ro")
    }

    /// The mount as the engines' option `--volume` has it. With `relabel`, a folder of the host gets a label of
    /// SELinux that all containers can use, unless the mount has one.
    pub fn volume(&self, relabel: bool) -> String {
        let plain = format!("{}:{}", self.host, self.rest);
        let is_labelled = self.options().any(|option| matches!(option, "z" | "Z"));
        match (
            relabel && self.folder.is_some() && !is_labelled,
            self.rest.contains(':'),
        ) {
            (false, _) => plain,
            (true, false) => format!("{plain}:z"),
            (true, true) => format!("{plain},z"),
        }
    }

    /// The mount as a volume that the container can only read.
    fn read_only(&self) -> String {
        let target = self.target();
        let others = self.options().filter(|it| !["", "rw"].contains(it));
        let options: Vec<_> = others.chain(["ro"]).collect();
        format!("{}:{target}:{}", self.host, options.join(","))
    }

    /// Whether the mount is probably that of a file: both paths have the same extension, such as
    /// `json`. If xtask created a folder at such a path, the file could not be put there later.
    fn means_a_file(&self) -> bool {
        let extension = |path: &str| Some(Path::new(path).extension()?.to_ascii_lowercase());
        let target = self.target();
        // `/etc/profile.d` is a folder.
        let is_of_file = |extension: &std::ffi::OsString| extension != "d";
        let host = extension(&self.host).filter(is_of_file);
        host.is_some() && host == extension(target)
    }
}

/// Reads `HOST:CONTAINER[:OPTIONS]`. The host's part is a folder or the name of a volume. A
/// relative path of a flag is relative to the current folder, and any other one to the checkout.
///
/// # Errors
/// When the path needs the home folder and it is not known, and when engines cannot mount the path.
pub fn mount(
    Sourced {
        value: volume,
        origin,
    }: &Sourced<String>,
    settings: &Settings,
    env: &Env,
) -> Result<Mount, Failure> {
    let (host, rest) = volume.split_once(':').unwrap_or((volume.as_str(), ""));
    if !is_folder(host) {
        return Ok(Mount {
            host: host.to_owned(),
            rest: rest.to_owned(),
            folder: None,
            missing_parents: Vec::new(),
        });
    }
    let base = match origin {
        Origin::Flag(_) => &env.cwd,
        Origin::Default | Origin::File { .. } | Origin::Env(_) | Origin::Items(_) => &settings.root,
    };
    let path: PathBuf = env.expand(host, base).ok_or_else(|| {
        Failure::usage(format!(
            "the volume `{volume}` needs your home folder, which is not known"
        ))
        .hint("set HOME, or give an absolute path in `run.workspace` or `run.volumes`")
    })?;
    let text = path
        .to_str()
        .filter(|text| !text.contains(':'))
        .ok_or_else(|| {
            Failure::usage(format!(
                "the folder `{}` cannot be mounted: engines take no `:` and only UTF-8 in its path",
                path.display()
            ))
            .hint("mount another folder: `run.workspace` or `run.volumes` in `xtask.local.toml`")
        })?;
    let folder = host::folder(&path);
    Ok(Mount {
        host: text.to_owned(),
        rest: rest.to_owned(),
        missing_parents: match folder {
            Folder::Missing => host::missing_parents(&path),
            Folder::DanglingLink { .. } | Folder::Other | Folder::Exists { .. } => Vec::new(),
        },
        folder: Some(folder),
    })
}

/// The steps after which the folder of a mount exists and the container's user can write to it.
///
/// # Errors
/// When the folder belongs to somebody else, or is a link that leads nowhere, and when a missing file is meant.
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
    let me = env.user;
    // In a virtual machine, file sharing maps the owners. A subordinate id is not known here.
    let owner = engine
        .identity(&settings.run.user, me)
        .host_owner
        .filter(|_| engine.location == Location::Host && !mount.is_read_only());
    let chown = |(uid, gid): (u32, u32), folders: &[String]| {
        let cmd = Cmd::new("chown").arg(format!("{uid}:{gid}"));
        let step = Step::new(cmd.args(folders.iter().cloned()), Output::Quiet);
        let last = folders.last().map_or("", String::as_str);
        step.status("Changing", format!("the owner of {last} to uid {uid}"))
    };
    let mut steps = Vec::new();
    match folder {
        Folder::DanglingLink { link, target } => {
            return Err(Failure::new(format!(
                "the folder `{}` cannot be mounted: the link `{}` leads to `{}`, which is not there",
                mount.host,
                link.display(),
                target.display()
            ))
            .hint("connect or create what the link leads to, or remove the link"));
        }
        Folder::Missing if mount.means_a_file() => {
            let target = mount.target();
            let folder = quote_for_shell(&mount.host);
            return Err(Failure::new(format!(
                "there is no file `{}` to mount at `{target}`",
                mount.host
            ))
            .hint(format!(
                "create the file; if a folder is meant, create it: `mkdir -p {folder}`"
            )));
        }
        Folder::Missing => {
            steps.push(
                Step::new(Cmd::new("mkdir").args(["-p", &mount.host]), Output::Quiet)
                    .status("Creating", format!("the folder {}", mount.host)),
            );
            // With sudo, new folders would belong to root.
            let with_sudo = me.euid == 0 && !me.is_root_without_sudo();
            let mine = with_sudo.then_some((me.uid, me.gid));
            let parents = mount.missing_parents.iter();
            let parents: Vec<_> = parents
                .map(|folder| folder.to_string_lossy().into_owned())
                .collect();
            if let (Some(mine), false) = (mine, parents.is_empty()) {
                steps.push(chown(mine, &parents));
            }
            let owner = owner.filter(|(uid, _)| me.euid == 0 && *uid != 0);
            if let Some(owner) = owner.or(mine) {
                steps.push(chown(owner, std::slice::from_ref(&mount.host)));
            }
        }
        Folder::Other => {}
        Folder::Exists {
            uid: found,
            gid: group,
            mode,
            is_of_system,
        } => {
            if let Some((uid, gid)) = owner
                && *found != uid
                && mode & 0o002 == 0
                && !(*group == gid && mode & 0o020 != 0)
            {
                // The owner of every other folder that xtask did not create stays.
                let is_roots_workspace = settings.is_workspace(&mount.rest) && *found == 0;
                let is_root = me.euid == 0 && me.is_root_without_sudo();
                if !(is_root && is_roots_workspace && !is_of_system) {
                    let whom = if me.uid == uid {
                        "you ("
                    } else {
                        "that user ("
                    };
                    return Err(Failure::new(format!(
                        "the container's user could not write to `{}`: it belongs to uid {found}, not to {whom}uid {uid})",
                        mount.host
                    ))
                    .hint(how_to_mount(mount, settings, (uid, gid), *is_of_system)));
                }
                steps.push(chown((uid, gid), std::slice::from_ref(&mount.host)));
            }
        }
    }
    Ok(steps)
}

/// The hint for a folder to which the container's user cannot write.
fn how_to_mount(
    mount: &Mount,
    settings: &Settings,
    (uid, gid): (u32, u32),
    is_of_system: bool,
) -> String {
    let instead = if settings.is_workspace(&mount.rest) {
        "set `run.workspace` to another folder in `xtask.local.toml`".to_owned()
    } else {
        format!("mount it read-only: `{}`", mount.read_only())
    };
    if is_of_system {
        return instead;
    }
    let folder = quote_for_shell(&mount.host);
    format!("change its owner: `sudo chown -R {uid}:{gid} {folder}`; or {instead}")
}
