//! Images as files: the manifests, configurations and layers of the OCI's image format and of
//! Docker's older one, which differ in names only.
//! <https://github.com/opencontainers/image-spec>

pub mod archive;
pub mod filesystem;
pub mod pack;
pub mod timestamps;
pub mod verify;

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::image::Platform;

/// What a manifest, an index or a layer is: the words for it.
pub mod media {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// All that a manifest can be, to ask a registry for.
    pub const MANIFESTS: &[&str] = &[OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];
}

/// By this annotation BuildKit marks the manifests that describe other manifests.
/// <https://docs.docker.com/build/metadata/attestations/attestation-storage/>
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Points to content by its digest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    pub media_type: String,
    #[serde(deserialize_with = "read_digest")]
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Takes what is a digest by its form. It becomes a part of paths and addresses, and whoever wrote
/// the manifest chose it.
fn read_digest<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    let text = String::deserialize(source)?;
    if text.is_empty() || is_digest(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!("{text:?} is no digest")))
    }
}

/// `algorithm:encoded`.
/// <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>
fn is_digest(text: &str) -> bool {
    let of_algorithm = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split_once(':').is_some_and(|(algorithm, encoded)| {
        algorithm
            .split(['+', '.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(of_algorithm))
            && !encoded.is_empty()
            && encoded
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"=_-".contains(&c))
    })
}

/// The platform as an index tells it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct DescriptorPlatform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl DescriptorPlatform {
    /// `linux/arm64` and `linux/arm64/v8` are the same: the variant is left out where it is
    /// the only one. <https://github.com/containerd/platforms/blob/main/database.go>
    pub fn normal(&self) -> Platform {
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
    /// For content at hand.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(content),
            size: content.len() as u64,
            ..Self::default()
        }
    }

    /// Whether this is a statement about another manifest, and no image.
    pub fn is_attestation(&self) -> bool {
        let marked = |annotations: &BTreeMap<_, _>| annotations.contains_key(REFERENCE_TYPE);
        self.annotations.as_ref().is_some_and(marked)
            || self
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown")
    }
}

/// A manifest or an index: an index has `manifests`, a manifest has `config` and `layers`.
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
}

impl Manifest {
    pub fn is_index(&self) -> bool {
        self.config.is_none()
    }

    /// All that it points to.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.config
            .iter()
            .chain(&self.layers)
            .chain(&self.manifests)
    }

    /// An index of these manifests, in the words that their own media types are from.
    pub fn index(manifests: Vec<Descriptor>) -> Self {
        let oci = |one: &Descriptor| one.media_type == media::OCI_MANIFEST;
        let media_type = if manifests.iter().any(oci) {
            media::OCI_INDEX
        } else {
            media::DOCKER_INDEX
        };
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            manifests,
            ..Self::default()
        }
    }
}

/// What an image says of itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
    #[serde(rename = "config")]
    pub run: RunConfig,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub user: String,
    pub env: Vec<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub healthcheck: Option<serde_json::Value>,
}

impl Config {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.run.labels.as_ref()?.get(name).map(String::as_str)
    }

    pub fn platform(&self) -> DescriptorPlatform {
        DescriptorPlatform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }
}

/// `sha256:…` of some content.
pub fn digest(content: &[u8]) -> String {
    named(&Sha256::digest(content))
}

fn named(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a stream and tells its digest and its length at the end.
pub struct Hashing<R> {
    source: R,
    hash: Sha256,
    pub count: u64,
}

impl<R> Hashing<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            hash: Sha256::new(),
            count: 0,
        }
    }

    pub fn digest(self) -> String {
        named(&self.hash.finalize())
    }
}

impl<R: std::io::Read> std::io::Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        // The empty text's, from FIPS 180-4's test vectors.
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
        let mut hashing = Hashing::new(&b"abc"[..]);
        std::io::copy(&mut hashing, &mut std::io::sink()).unwrap();
        assert_eq!(hashing.count, 3);
        assert_eq!(hashing.digest(), digest(b"abc"));
    }

    #[test]
    fn an_index_takes_its_childrens_words() {
        let child = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            ..Descriptor::default()
        };
        let docker = Manifest::index(vec![child(media::DOCKER_MANIFEST)]);
        assert_eq!(docker.media_type, media::DOCKER_INDEX);
        let oci = Manifest::index(vec![child(media::OCI_MANIFEST)]);
        assert_eq!(oci.media_type, media::OCI_INDEX);
        assert!(oci.is_index());
    }

    #[test]
    fn attestations_are_no_images() {
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
        assert_eq!(image.platform.unwrap().normal().to_string(), "linux/arm64");
    }
}
