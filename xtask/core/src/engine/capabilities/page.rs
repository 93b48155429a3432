//! Checks that the table in docs/engines.md agrees with the code. After a change, write it again:
//!
//! ```sh
//! cargo test -p xtask-core --lib -- --ignored write_the_capabilities
//! ```

use std::fs;

use super::*;
use crate::base::pages::{assert_page, read, repository_file, with_table};

const PAGE: &str = "docs/engines.md";

/// An engine of the end-to-end tests, which has a column in the table.
struct TestedEngine {
    /// The column's heading.
    name: &'static str,
    kind: EngineKind,
    version: MajorMinor,
    store: ImageStore,
}

const fn docker(name: &'static str, version: MajorMinor, store: ImageStore) -> TestedEngine {
    TestedEngine {
        name,
        kind: EngineKind::Docker,
        version,
        store,
    }
}

const fn podman(name: &'static str, version: MajorMinor) -> TestedEngine {
    TestedEngine {
        name,
        kind: EngineKind::Podman,
        version,
        store: ImageStore::MultiPlatform,
    }
}

const TESTED_ENGINES: &[TestedEngine] = &[
    docker("Docker 20.10", (20, 10), ImageStore::SinglePlatform),
    docker("Docker 26.1", (26, 1), ImageStore::SinglePlatform),
    docker("26.1, containerd", (26, 1), ImageStore::MultiPlatform),
    docker("Docker 28.5", (28, 5), ImageStore::SinglePlatform),
    docker("28.5, containerd", (28, 5), ImageStore::MultiPlatform),
    docker("Docker 29", (29, 0), ImageStore::MultiPlatform),
    podman("Podman 4.3", (4, 3)),
    podman("Podman 5.4", (5, 4)),
    podman("Podman 6.1", (6, 1)),
];

/// Each capability with its description on the page. The end-to-end tests look for words in it.
const ROWS: &[(Capability, &str)] = &[
    (
        Capability::BuildWithoutImage,
        "A build that leaves no image (`--output=type=cacheonly`)",
    ),
    (
        Capability::StageFromImage,
        "A stage taken from an image of the store (`--build-context NAME=container-image://IMAGE`)",
    ),
    (
        Capability::PerUserCacheFolder,
        "Cache mounts in a folder of each user",
    ),
    (
        Capability::KeepIdWithIds,
        "Rootless: your user is mapped to any user of the container (`--userns=keep-id:uid=,gid=`)",
    ),
    (
        Capability::LoopbackFromBridge,
        "Rootless: a container on a bridge reaches the host's loopback (slirp4netns)",
    ),
    (
        Capability::MultiPlatformStore,
        "Several platforms under one name, built by the engine's default builder",
    ),
    (Capability::Builders, "Further builders (`buildx create`)"),
];

/// The engines and versions that have a capability, as text.
fn supported_by(capability: Capability) -> String {
    let engines = EngineKind::ALL.iter().filter_map(|kind| {
        Some(match capability.support(*kind) {
            Support::Yes => format!("{kind}"),
            Support::No => return None,
            Support::Since((major, minor)) => format!("{kind} since {major}.{minor}"),
            Support::Before((major, minor)) => format!("{kind} before {major}.{minor}"),
            Support::ContainerdStore => format!("{kind} with the containerd image store"),
        })
    });
    engines.collect::<Vec<_>>().join("; ")
}

fn render() -> String {
    let names: Vec<_> = TESTED_ENGINES.iter().map(|engine| engine.name).collect();
    let mut out = format!("| Capability | Supported by | {} |\n", names.join(" | "));
    out += &format!("|---|---|{}\n", "---|".repeat(names.len()));
    for (capability, description) in ROWS {
        let cells: Vec<_> = TESTED_ENGINES
            .iter()
            .map(|engine| {
                let support = capability.support(engine.kind);
                if support.includes(engine.version, engine.store) {
                    "yes"
                } else {
                    "no"
                }
            })
            .collect();
        out += &format!(
            "| {description} | {} | {} |\n",
            supported_by(*capability),
            cells.join(" | ")
        );
    }
    out
}

fn expected() -> String {
    with_table(&read(PAGE), "capabilities", &render())
}

#[test]
fn the_table_agrees_with_the_code() {
    assert_page(PAGE, &expected(), file!());
}

#[test]
#[ignore = "writes docs/engines.md"]
fn write_the_capabilities() {
    fs::write(repository_file(PAGE), expected()).unwrap();
}
