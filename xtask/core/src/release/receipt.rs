//! The receipt of a publication, for machines: `target/dist/<version>.json`, or `<version>-<flavour>.json`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::{
    facts::{context::Context, git::WorkTree},
    oci::verify::{Verified, VerifiedPlatform},
    release::{
        dist, paths,
        tags::{KeptTag, TagPlan},
    },
};

/// What was published.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// The version of this file's format. A change that breaks readers raises it.
    pub schema: u32,
    /// The repository, without a tag.
    pub image: String,
    pub version: String,
    /// Null for the plain image.
    pub flavour: Option<String>,
    pub channel: String,
    /// The digest of the index, or of the manifest of a single platform.
    pub digest: String,
    /// `repository@digest`, which always names this image.
    pub reference: String,
    pub media_type: String,
    /// The tags that name the image now.
    pub tags: Vec<String>,
    /// The tags that a newer version keeps.
    pub kept: Vec<KeptTag>,
    pub platforms: Vec<VerifiedPlatform>,
    /// The number of attestations that cosign stored beside the image.
    pub attestations: usize,
    /// Whether cosign signed the image.
    pub signed: bool,
    /// The command with which anybody verifies the signature.
    pub verify: Option<String>,
    /// The commit; none outside a git work tree.
    pub revision: Option<String>,
    pub source: String,
    /// The duration of each phase, in seconds.
    pub seconds: Vec<(String, f64)>,
}

/// What cosign stored beside the image.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    /// The command with which anybody verifies the signature; none if the image is not signed.
    pub verify: Option<String>,
    pub attestations: usize,
}

impl Receipt {
    pub fn new(
        cx: &Context,
        git: &WorkTree,
        verified: Verified,
        tags: TagPlan,
        signatures: Signatures,
        seconds: Vec<(String, f64)>,
    ) -> Self {
        let settings = cx.settings;
        let image = settings.image.repository.as_str().to_owned();
        Self {
            schema: 1,
            version: settings.version.value.to_string(),
            flavour: settings.flavour.as_ref().map(|one| one.name.clone()),
            channel: settings.channel.name.clone(),
            reference: format!("{image}@{}", verified.digest),
            digest: verified.digest,
            media_type: verified.media_type,
            tags: tags.moves,
            kept: tags.kept,
            platforms: verified.platforms,
            attestations: signatures.attestations,
            signed: signatures.verify.is_some(),
            verify: signatures.verify,
            revision: git.values.sha.clone(),
            source: settings.image.source.clone(),
            seconds,
            image,
        }
    }

    /// Writes the receipt, and returns its path. The receipt of a mirror has a name of its own.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, cx: &Context, is_mirror: bool) -> Result<PathBuf> {
        let version = cx.settings.own_tag();
        let name = if is_mirror {
            let mirror = self.image.replace(['/', ':'], "-");
            format!("{version}.{mirror}.json")
        } else {
            format!("{version}.json")
        };
        let path = cx.settings.root.join(paths::FOLDER).join(name);
        dist::write(&path, &(serde_json::to_string_pretty(self)? + "\n"))?;
        Ok(path)
    }
}
