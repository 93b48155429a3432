//! Where release artifacts are written.

use std::path::{Path, PathBuf};

use crate::{
    base::image::Platform,
    plan::{Cmd, Output, Step},
    settings::Settings,
};

/// The folder of archives and receipts, relative to the checkout. `target/release` is Cargo's own.
pub const FOLDER: &str = "target/dist";

/// The archive of a version, such as `target/dist/agent-runner-1.2.3.oci.tar`. The archive of a
/// single platform has the platform in its name.
pub fn archive(settings: &Settings, platform: Option<&Platform>) -> PathBuf {
    let path = settings.image.repository.path();
    let name = path.rsplit('/').next().unwrap_or(path);
    let version = settings.own_tag();
    let platform = platform.map_or(String::new(), |platform| format!("-{}", dashed(platform)));
    settings
        .root
        .join(FOLDER)
        .join(format!("{name}-{version}{platform}.oci.tar"))
}

/// The file that says how a version was built.
pub fn provenance(settings: &Settings) -> PathBuf {
    let version = settings.own_tag();
    let name = format!("{version}.provenance.json");
    settings.root.join(FOLDER).join(name)
}

/// The file with the packages of a version, for one platform.
pub fn sbom(settings: &Settings, platform: &str) -> PathBuf {
    let version = settings.own_tag();
    let platform = platform.replace('/', "-");
    let name = format!("{version}.{platform}.spdx.json");
    settings.root.join(FOLDER).join(name)
}

/// A platform as a part of a file's or a tag's name: `linux-arm64`.
pub fn dashed(platform: &Platform) -> String {
    platform.to_string().replace('/', "-")
}

/// The step that makes the folder of an archive.
pub fn folder_step(archive: &Path) -> Step {
    let folder = archive.parent().unwrap_or(Path::new("."));
    Step::new(
        Cmd::new("mkdir").args(["-p", &folder.to_string_lossy()]),
        Output::Quiet,
    )
}

/// A path for people: relative to the checkout if it is below it.
pub fn display(settings: &Settings, path: &Path) -> String {
    path.strip_prefix(&settings.root)
        .unwrap_or(path)
        .display()
        .to_string()
}
