//! The attestations of an image: how it was built (provenance), and what is in it (SBOM). They are written to
//! files. If the channel signs, cosign stores them beside the image, so the image's digest does not depend on
//! them.

mod provenance;
mod sbom;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

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

fn read_image(source: &dyn Source, platform: &VerifiedPlatform) -> Result<(Manifest, ImageConfig)> {
    let content = verify::read_manifest(source, &platform.digest)?;
    let manifest: Manifest =
        serde_json::from_slice(&content).context("cannot read a platform's manifest")?;
    let config = manifest.config.as_ref();
    let config = config.context("a platform's manifest has no configuration")?;
    let config = verify::read_config(source, config)?;
    Ok((manifest, config))
}

fn write_file(cx: &Context, path: &std::path::Path, document: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    dist::write(path, &(text + "\n"))?;
    cx.ui.status("Wrote", &paths::display(cx.settings, path));
    Ok(())
}
