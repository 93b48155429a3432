//! Holds the table of docs/engines.md to the code. After a change:
//!
//! ```sh
//! cargo test -p xtask --bin xtask -- --ignored write_the_capabilities
//! ```

use std::fs;

use super::*;
use crate::base::pages::{file, must_be, read};

const PAGE: &str = "docs/engines.md";
const BEGIN: &str = "<!-- table: capabilities -->\n";
const END: &str = "<!-- /table -->";

/// An engine that the end-to-end tests try, as its column is headed.
struct Tried {
    name: &'static str,
    kind: EngineKind,
    version: MajorMinor,
    store: Store,
}

const fn docker(name: &'static str, version: MajorMinor, store: Store) -> Tried {
    Tried {
        name,
        kind: EngineKind::Docker,
        version,
        store,
    }
}

const fn podman(name: &'static str, version: MajorMinor) -> Tried {
    Tried {
        name,
        kind: EngineKind::Podman,
        version,
        store: Store::SeveralPlatforms,
    }
}

const TRIED: &[Tried] = &[
    docker("Docker 20.10", (20, 10), Store::OnePlatform),
    docker("Docker 26.1", (26, 1), Store::OnePlatform),
    docker("26.1, containerd", (26, 1), Store::SeveralPlatforms),
    docker("Docker 28.5", (28, 5), Store::OnePlatform),
    docker("28.5, containerd", (28, 5), Store::SeveralPlatforms),
    podman("Podman 4.3", (4, 3)),
    podman("Podman 5.4", (5, 4)),
];

/// What each is called on the page.
const ROWS: &[(Capability, &str)] = &[
    (
        Capability::BuildWithoutImage,
        "A build that leaves no image (`--output=type=cacheonly`)",
    ),
    (
        Capability::OwnCacheFolder,
        "Cache mounts that are no other user's",
    ),
    (
        Capability::KeepIdTakesIds,
        "Rootless: you are any user of the container (`--userns=keep-id:uid=,gid=`)",
    ),
    (
        Capability::LoopbackFromBridge,
        "Rootless: the host's loopback from a bridge (slirp4netns)",
    ),
    (
        Capability::SeveralPlatforms,
        "Several platforms under one name, by the engine's own builder",
    ),
    (Capability::Builders, "Builders beside it (`buildx create`)"),
    (Capability::Attestations, "Attestations (`--provenance`)"),
];

/// What decides, in words.
fn rule(capability: Capability) -> String {
    let words = EngineKind::ALL.iter().filter_map(|kind| {
        Some(match capability.support(*kind) {
            Support::Yes => format!("{kind}"),
            Support::No => return None,
            Support::Since((major, minor)) => format!("{kind} since {major}.{minor}"),
            Support::Before((major, minor)) => format!("{kind} before {major}.{minor}"),
            Support::ContainerdStore => format!("{kind} with the containerd image store"),
        })
    });
    words.collect::<Vec<_>>().join("; ")
}

fn render() -> String {
    let names: Vec<_> = TRIED.iter().map(|tried| tried.name).collect();
    let mut out = format!("| What | Who | {} |\n", names.join(" | "));
    out += &format!("|---|---|{}\n", "---|".repeat(names.len()));
    for (capability, what) in ROWS {
        let cells: Vec<_> = TRIED
            .iter()
            .map(|tried| {
                let support = capability.support(tried.kind);
                if support.holds(tried.version, tried.store) {
                    "yes"
                } else {
                    "no"
                }
            })
            .collect();
        out += &format!(
            "| {what} | {} | {} |\n",
            rule(*capability),
            cells.join(" | ")
        );
    }
    out
}

/// The page with the table that it should have.
fn with_table(page: &str) -> String {
    let (head, rest) = page.split_once(BEGIN).expect("the table's begin");
    let (_, tail) = rest.split_once(END).expect("the table's end");
    format!("{head}{BEGIN}{}{END}{tail}", render())
}

#[test]
fn the_table_is_the_codes() {
    must_be(PAGE, &with_table(&read(PAGE)), file!());
}

#[test]
#[ignore = "writes docs/engines.md"]
fn write_the_capabilities() {
    fs::write(file(PAGE), with_table(&read(PAGE))).unwrap();
}
