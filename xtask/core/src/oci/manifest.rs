//! Manifests, indexes, and the descriptors that they consist of.
//! <https://github.com/opencontainers/image-spec/blob/main/manifest.md>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{digest, media_type};
use crate::base::image::Platform;

/// `BuildKit` marks attestation manifests by this annotation.
/// <https://docs.docker.com/build/metadata/attestations/attestation-storage/>
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A reference to content by its digest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    pub media_type: String,
    #[serde(deserialize_with = "digest::deserialize")]
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A platform as indexes and image configurations hold it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct DescriptorPlatform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl DescriptorPlatform {
    /// The platform in its shortest form: `linux/arm64/v8` becomes `linux/arm64`, because arm64
    /// has no other variant. <https://github.com/containerd/platforms/blob/main/database.go>
    pub fn normalized(&self) -> Platform {
        let variant = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) => None,
            (_, variant) => variant.filter(|variant| !variant.is_empty()),
        };
        Platform {
            os: self.os.clone(),
            arch: self.architecture.clone(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl Descriptor {
    /// A descriptor of content in memory.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest::sha256(content),
            size: content.len() as u64,
            ..Self::default()
        }
    }

    /// Whether the manifest is an attestation (provenance, SBOM) of another one, not an image.
    pub fn is_attestation(&self) -> bool {
        let has_mark = |annotations: &BTreeMap<_, _>| annotations.contains_key(REFERENCE_TYPE);
        self.annotations.as_ref().is_some_and(has_mark)
            || self
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown")
    }
}

/// A manifest or an index: a manifest has `config` and `layers`, an index has `manifests`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one describes; for an attestation, its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    pub fn is_index(&self) -> bool {
        self.config.is_none()
    }

    /// An index of manifests. Without annotations it has the format of its manifests. With annotations it is an OCI
    /// index, even if the manifests are Docker's: Docker's manifest list has no annotations, and GCR refuses a list
    /// that has them. <https://github.com/ko-build/ko/pull/385>
    pub fn index(manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        let is_oci = |one: &Descriptor| one.media_type == media_type::OCI_MANIFEST;
        let media_type = if !annotations.is_empty() || manifests.iter().any(is_oci) {
            media_type::OCI_INDEX
        } else {
            media_type::DOCKER_INDEX
        };
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            manifests,
            annotations,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_the_format_of_its_manifests() {
        let child = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            ..Descriptor::default()
        };
        let none = BTreeMap::new;
        let docker = Manifest::index(vec![child(media_type::DOCKER_MANIFEST)], none());
        assert_eq!(docker.media_type, media_type::DOCKER_INDEX);
        let oci = Manifest::index(vec![child(media_type::OCI_MANIFEST)], none());
        assert_eq!(oci.media_type, media_type::OCI_INDEX);
        assert!(oci.is_index());
        // Docker's list has no annotations.
        let some = [("a".to_owned(), "b".to_owned())].into();
        let mixed = Manifest::index(vec![child(media_type::DOCKER_MANIFEST)], some);
        assert_eq!(mixed.media_type, media_type::OCI_INDEX);
    }

    #[test]
    fn attestations_are_not_images() {
        let attestation: Descriptor = serde_json::from_str(
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1","size":1,
                "annotations":{"vnd.docker.reference.digest":"sha256:2","vnd.docker.reference.type":"attestation-manifest"},
                "platform":{"architecture":"unknown","os":"unknown"}}"#,
        )
        .unwrap();
        assert!(attestation.is_attestation());
        let image: Descriptor = serde_json::from_str(
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1","size":1,
                "platform":{"architecture":"arm64","os":"linux","variant":"v8"}}"#,
        )
        .unwrap();
        assert!(!image.is_attestation());
        assert_eq!(
            image.platform.unwrap().normalized().to_string(),
            "linux/arm64"
        );
    }
}
