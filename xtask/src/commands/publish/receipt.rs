//! What was released, for machines: `target/release/<version>.json`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::{Context, FOLDER};
use crate::{
    oci::verify::{Verified, VerifiedPlatform},
    probe::Git,
    release::TagPlan,
};

/// The facts of a release.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// The form of this file; a change that readers would stumble over raises it.
    pub schema: u32,
    /// The repository.
    pub image: String,
    pub version: String,
    pub channel: String,
    /// Of the index, or of the manifest of a single platform.
    pub digest: String,
    /// `repository@digest`: what never changes.
    pub reference: String,
    pub media_type: String,
    /// Those that name it now.
    pub tags: Vec<String>,
    /// Those that stayed with a newer version.
    pub kept: Vec<Kept>,
    pub platforms: Vec<VerifiedPlatform>,
    pub attestations: usize,
    /// Whether cosign signed it.
    pub signed: bool,
    /// The commit; none outside a work tree.
    pub revision: Option<String>,
    pub source: String,
    /// Seconds by phase.
    pub seconds: Vec<(String, f64)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    pub tag: String,
    pub with: String,
}

impl Receipt {
    pub fn new(
        cx: &Context,
        git: &Git,
        verified: &Verified,
        tags: &TagPlan,
        signed: bool,
        seconds: Vec<(String, f64)>,
    ) -> Self {
        let settings = cx.settings;
        let image = settings.image.repository.as_str().to_owned();
        let kept = |one: &crate::release::Staying| Kept {
            tag: one.tag.clone(),
            with: one.with.clone(),
        };
        Self {
            schema: 1,
            version: settings.version.value.to_string(),
            channel: settings.channel.name.clone(),
            digest: verified.digest.clone(),
            reference: format!("{image}@{}", verified.digest),
            media_type: verified.media_type.clone(),
            tags: tags.moves.clone(),
            kept: tags.stays.iter().map(kept).collect(),
            platforms: verified.platforms.clone(),
            attestations: verified.attestations,
            signed,
            revision: git.values.sha.clone(),
            source: settings.image.source.clone(),
            seconds,
            image,
        }
    }

    /// Writes it; where to. A mirror's does not take the place of the release's own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, cx: &Context, is_mirror: bool) -> Result<PathBuf> {
        let name = if is_mirror {
            let place = self.image.replace(['/', ':'], "-");
            format!("{}.{place}.json", self.version)
        } else {
            format!("{}.json", self.version)
        };
        let path = cx.settings.root.join(FOLDER).join(name);
        std::fs::create_dir_all(cx.settings.root.join(FOLDER))?;
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}
