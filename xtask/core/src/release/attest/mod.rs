//! The attestations of an image: how it was built (provenance), and what is in it (SBOM). They are written to
//! files. If the channel signs, cosign stores them beside the image, so the image's digest does not depend on
//! them.

mod provenance;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    facts::context::Context,
    oci::{
        image_config::ImageConfig,
        manifest::Manifest,
        packages,
        source::Source,
        verify::{self, Verified, VerifiedPlatform},
    },
    release::{
        dist::{self, FolderLock},
        paths,
    },
    settings::{Provenance, Sbom, Settings},
};

/// An attestation of an image, in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    pub kind: Kind,
    pub file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Provenance,
    Sbom,
}

impl Kind {
    /// cosign's name for it.
    pub fn cosign_type(self) -> &'static str {
        match self {
            Self::Provenance => "slsaprovenance1",
            Self::Sbom => "spdxjson",
        }
    }
}

/// The kinds that a channel wants.
pub fn kinds(settings: &Settings) -> Vec<Kind> {
    let mut kinds = Vec::new();
    match settings.channel.provenance {
        Provenance::Yes => kinds.push(Kind::Provenance),
        Provenance::No => {}
    }
    match settings.channel.sbom {
        Sbom::Yes => kinds.push(Kind::Sbom),
        Sbom::No => {}
    }
    kinds
}

/// The attestations of an image. Their files are in a folder of this run until [`Self::finish`], so that two runs in
/// one checkout do not attest each other's images.
pub struct Attestations {
    pub list: Vec<Attestation>,
    folder: PathBuf,
    _lock: FolderLock,
}

impl Attestations {
    /// Moves the files to the folder of release artifacts.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub fn finish(self, cx: &Context) -> Result<()> {
        for one in &self.list {
            let name = one.file.file_name().unwrap_or_default();
            let path = cx.settings.root.join(paths::FOLDER).join(name);
            fs::rename(&one.file, &path)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
            cx.ui.status("Wrote", &paths::display(cx.settings, &path));
        }
        Ok(())
    }
}

impl Drop for Attestations {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The folder of a run for the attestations of the settings' image.
fn run_folder(settings: &Settings, process: u32) -> PathBuf {
    let name = format!("{}.attestations", settings.own_tag());
    dist::parts(&settings.root.join(paths::FOLDER).join(name), process)
}

/// The attestations that the channel wants of an image for these platforms, with the names of their files at the end.
pub fn wanted(settings: &Settings, platforms: &[String]) -> Vec<Attestation> {
    let of = |kind| {
        let files = match kind {
            Kind::Provenance => vec![paths::provenance(settings)],
            Kind::Sbom => {
                let files = platforms.iter().map(|one| paths::sbom(settings, one));
                files.collect()
            }
        };
        files
            .into_iter()
            .map(move |file| Attestation { kind, file })
    };
    kinds(settings).into_iter().flat_map(of).collect()
}

/// As [`wanted`], with the files that the process with this id writes.
pub fn planned(settings: &Settings, platforms: &[String], process: u32) -> Vec<Attestation> {
    let folder = run_folder(settings, process);
    let mut all = wanted(settings, platforms);
    for one in &mut all {
        one.file = folder.join(one.file.file_name().unwrap_or_default());
    }
    all
}

/// Whether a file of the attestations that the channel wants is missing in the folder of release artifacts.
pub fn lacks_files(settings: &Settings, platforms: &[String]) -> bool {
    let wanted = wanted(settings, platforms);
    wanted.iter().any(|one| !one.file.exists())
}

/// Writes the attestations that the channel wants of a verified image, to a folder of this run.
///
/// # Errors
/// When the image cannot be read, or a file cannot be written.
pub fn write(cx: &Context, source: &dyn Source, image: &Verified) -> Result<Attestations> {
    let process = std::process::id();
    let folder = run_folder(cx.settings, process);
    let attestations = Attestations {
        list: planned(cx.settings, &image.platform_names(), process),
        _lock: dist::lock_for_writing(&cx.settings.root, &folder),
        folder,
    };
    let folder = &attestations.folder;
    sboms(cx, source, image, folder)?;
    match cx.settings.channel.provenance {
        Provenance::Yes => {
            let first = image.platforms.first();
            let first = first.context("the image has no platform")?;
            let config = read_image(source, first)?.1;
            let text = provenance::render(cx.settings, cx.env, image, &config);
            write_file(folder, &paths::provenance(cx.settings), &text)?;
        }
        Provenance::No => {}
    }
    Ok(attestations)
}

/// Writes an SBOM for each platform to the folder of release artifacts, if the channel wants it.
///
/// # Errors
/// When the image cannot be read, or a file cannot be written.
pub fn write_sboms(cx: &Context, source: &dyn Source, image: &Verified) -> Result<()> {
    let folder = cx.settings.root.join(paths::FOLDER);
    for path in sboms(cx, source, image, &folder)? {
        cx.ui.status("Wrote", &paths::display(cx.settings, &path));
    }
    Ok(())
}

/// Writes an SBOM for each platform to a folder, if the channel wants it. Returns their paths.
fn sboms(
    cx: &Context,
    source: &dyn Source,
    image: &Verified,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    match cx.settings.channel.sbom {
        Sbom::Yes => {}
        Sbom::No => return Ok(written),
    }
    for platform in &image.platforms {
        let (manifest, config) = read_image(source, platform)?;
        let packages = cx
            .exec
            .interruptible(|stop| packages::read(source, &manifest.layers, stop))
            .with_context(|| format!("cannot write the SBOM for {}", platform.platform))?;
        let text = sbom::render(platform, &config, &packages);
        let path = paths::sbom(cx.settings, &platform.platform);
        written.push(write_file(folder, &path, &text)?);
    }
    Ok(written)
}

/// The platforms without an attestation of this kind. `printed` is what `cosign verify-attestation` prints: a
/// signed envelope in each line. The subject of each statement is the whole image, and an SBOM names the digest of its
/// platform's image.
pub fn platforms_without<'a>(kind: Kind, printed: &str, image: &'a Verified) -> Vec<&'a str> {
    match kind {
        // One is for all platforms, and cosign fails if there is none.
        Kind::Provenance => Vec::new(),
        Kind::Sbom => {
            let statements: Vec<_> = printed.lines().filter_map(statement).collect();
            let has_sbom =
                |one: &&VerifiedPlatform| statements.iter().any(|text| text.contains(&one.digest));
            let missing = image.platforms.iter().filter(|one| !has_sbom(one));
            missing.map(|one| one.platform.as_str()).collect()
        }
    }
}

/// The statement in an envelope. <https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>
fn statement(line: &str) -> Option<String> {
    let envelope: Value = serde_json::from_str(line).ok()?;
    let payload = BASE64_STANDARD.decode(envelope["payload"].as_str()?).ok()?;
    String::from_utf8(payload).ok()
}

fn read_image(source: &dyn Source, platform: &VerifiedPlatform) -> Result<(Manifest, ImageConfig)> {
    let content = verify::read_manifest(source, &platform.digest)?;
    let manifest: Manifest =
        serde_json::from_slice(&content).context("cannot read a platform's manifest")?;
    let config = manifest.config.as_ref();
    let config = config.context("a platform's manifest has no configuration")?;
    let config = verify::read_config(source, config)?;
    Ok((manifest, config))
}

/// Writes a document to a folder, under the name of its path. Returns where it is.
fn write_file(folder: &Path, path: &Path, document: &Value) -> Result<PathBuf> {
    let text = serde_json::to_string_pretty(document)?;
    let path = folder.join(path.file_name().unwrap_or_default());
    dist::write(&path, &(text + "\n"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_platform_needs_an_sbom() {
        let platform = |name: &str, digest: &str| VerifiedPlatform {
            platform: name.to_owned(),
            digest: digest.to_owned(),
            base: None,
            compressed: 1,
            layers: None,
        };
        let image = Verified {
            digest: "sha256:1".to_owned(),
            media_type: String::new(),
            platforms: vec![
                platform("linux/amd64", "sha256:a2"),
                platform("linux/arm64", "sha256:a3"),
            ],
        };
        let line = |digest: &str| {
            let statement = serde_json::json!({
                "subject": [{ "digest": { "sha256": "1" } }],
                "predicate": { "packages": [{ "versionInfo": digest }] },
            });
            let payload = BASE64_STANDARD.encode(statement.to_string());
            serde_json::json!({ "payload": payload }).to_string() + "\n"
        };
        let without = |printed: &str| platforms_without(Kind::Sbom, printed, &image);
        let (amd64, arm64) = (line("sha256:a2"), line("sha256:a3"));
        assert!(without(&(amd64.clone() + &arm64)).is_empty());
        assert_eq!(without(&amd64), ["linux/arm64"]);
        assert_eq!(without(&(amd64.clone() + &amd64)), ["linux/arm64"]);
        assert_eq!(without("no JSON\n{}\n"), ["linux/amd64", "linux/arm64"]);
        assert!(platforms_without(Kind::Provenance, "", &image).is_empty());
    }
}
