//! The attestations of an image: how it was built (provenance), and what is in it (SBOM). They are written to
//! files. If the channel signs, cosign stores them beside the image, so the image's digest does not depend on
//! them.

mod provenance;
mod sbom;

use std::path::PathBuf;

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
    release::{dist, paths},
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

/// The attestations that the channel wants of an image for these platforms. They may not be written yet.
pub fn planned(settings: &Settings, platforms: &[String]) -> Vec<Attestation> {
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
            .collect::<Vec<_>>()
    };
    kinds(settings).into_iter().flat_map(of).collect()
}

/// Writes the attestations that the channel wants of a verified image.
///
/// # Errors
/// When the image cannot be read, or a file cannot be written.
pub fn write(cx: &Context, source: &dyn Source, image: &Verified) -> Result<Vec<Attestation>> {
    write_sboms(cx, source, image)?;
    match cx.settings.channel.provenance {
        Provenance::Yes => {
            let first = image.platforms.first();
            let first = first.context("the image has no platform")?;
            let config = read_image(source, first)?.1;
            let text = provenance::render(cx.settings, cx.env, image, &config);
            write_file(cx, &paths::provenance(cx.settings), &text)?;
        }
        Provenance::No => {}
    }
    Ok(planned(cx.settings, &image.platform_names()))
}

/// Writes an SBOM for each platform, if the channel wants it.
///
/// # Errors
/// When the image cannot be read, or a file cannot be written.
pub fn write_sboms(cx: &Context, source: &dyn Source, image: &Verified) -> Result<()> {
    match cx.settings.channel.sbom {
        Sbom::Yes => {}
        Sbom::No => return Ok(()),
    }
    for platform in &image.platforms {
        let (manifest, config) = read_image(source, platform)?;
        let packages = cx
            .exec
            .interruptible(|stop| packages::read(source, &manifest.layers, stop))
            .with_context(|| format!("cannot write the SBOM for {}", platform.platform))?;
        let text = sbom::render(platform, &config, &packages);
        write_file(cx, &paths::sbom(cx.settings, &platform.platform), &text)?;
    }
    Ok(())
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

fn write_file(cx: &Context, path: &std::path::Path, document: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    dist::write(path, &(text + "\n"))?;
    cx.ui.status("Wrote", &paths::display(cx.settings, path));
    Ok(())
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
