//! The mounts of the container, and the check that no two of them are at the same folder.

use std::{fmt, path::Path};

use crate::{
    base::error::Failure,
    config::{
        layer::{Layer, Origin, Sourced},
        schema::{Identity, Value, is_folder, volume_target},
    },
    settings::Settings,
};

/// Where the container has the workspace.
const WORKSPACE: &str = "/workspace";

const WORKSPACE_KEY: &str = "run.workspace";
const VOLUMES_KEY: &str = "run.volumes";
const TMPFS_KEY: &str = "run.hardening.tmpfs";

impl Settings {
    /// The container's mounts as `HOST:CONTAINER[:OPTIONS]`, the workspace first, each with its origin.
    pub fn mounts(&self) -> Vec<Sourced<String>> {
        let origin = |key: &str, number| {
            let found = self.layer.get(key);
            found.map_or(Origin::Default, |found| {
                found.origin.of_item(number).clone()
            })
        };
        let workspace = (!self.run.workspace.is_empty()).then(|| Sourced {
            value: format!("{}:{WORKSPACE}", self.run.workspace),
            origin: origin(WORKSPACE_KEY, 0),
        });
        let volumes = self.run.volumes.iter().enumerate();
        let volumes = volumes.map(|(number, volume)| Sourced {
            value: volume.clone(),
            origin: origin(VOLUMES_KEY, number),
        });
        workspace.into_iter().chain(volumes).collect()
    }

    /// Whether the container's part of a mount, `CONTAINER[:OPTIONS]`, is that of `run.workspace`. No volume can
    /// have the same folder beside it.
    pub fn is_workspace(&self, rest: &str) -> bool {
        !self.run.workspace.is_empty() && rest == WORKSPACE
    }
}

/// A setting that mounts something at a folder of the container.
struct Claim<'a> {
    key: &'static str,
    item: &'a str,
    folder: &'a str,
    origin: &'a Origin,
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, item, .. } = self;
        match *key {
            WORKSPACE_KEY => write!(f, "`{key}` (from {})", self.origin),
            _ => write!(f, "`{item}` in `{key}` (from {})", self.origin),
        }
    }
}

/// Refuses two mounts at the same folder of the container. An engine would refuse them, or hide one of them.
///
/// # Errors
/// Names both settings.
pub(super) fn refuse_repeated_mounts(layer: &Layer) -> Result<(), Failure> {
    let is_set = |workspace: &&Sourced<Value>| workspace.value != Value::Text(String::new());
    let workspace = layer.get(WORKSPACE_KEY).filter(is_set);
    let workspace = workspace.map(|Sourced { origin, .. }| Claim {
        key: WORKSPACE_KEY,
        item: "",
        folder: WORKSPACE,
        origin,
    });
    let tmpfs_target: Identity = |tmpfs| tmpfs.split(':').next().unwrap_or(tmpfs);
    let lists = [
        (VOLUMES_KEY, volume_target as Identity),
        (TMPFS_KEY, tmpfs_target),
    ];
    let listed = lists.into_iter().flat_map(|(key, target)| {
        let items = layer.get(key).into_iter().flat_map(Sourced::items);
        items.map(move |(item, origin)| Claim {
            key,
            item,
            folder: target(item),
            origin,
        })
    });
    let claims: Vec<_> = workspace.into_iter().chain(listed).collect();
    for (number, later) in claims.iter().enumerate() {
        let at_same_folder =
            |earlier: &&Claim| Path::new(earlier.folder) == Path::new(later.folder);
        if let Some(earlier) = claims[..number].iter().find(at_same_folder) {
            return Err(Failure::usage(format!(
                "the container's folder `{}` has two mounts: {earlier} and {later}",
                later.folder
            ))
            .hint(remedy(earlier, later)));
        }
    }
    Ok(())
}

fn remedy(earlier: &Claim, later: &Claim) -> String {
    let host = later.item.split(':').next().unwrap_or_default();
    match (earlier.key, later.key) {
        (WORKSPACE_KEY, VOLUMES_KEY) if is_folder(host) => format!(
            "for another workspace write `run.workspace = \"{host}\"` or set `XTASK_RUN_WORKSPACE`, and remove the volume"
        ),
        (WORKSPACE_KEY, VOLUMES_KEY) => {
            "remove it, or write `run.workspace = \"\"` to mount no folder of the host there"
                .to_owned()
        }
        _ => "remove one of the two".to_owned(),
    }
}
