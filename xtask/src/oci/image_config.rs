//! Image configurations: the platform of an image, and the defaults of its containers.
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>

use std::collections::BTreeMap;

use serde::Deserialize;

use super::manifest::DescriptorPlatform;

/// An image configuration, as far as xtask reads it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ImageConfig {
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
    pub created: Option<String>,
    #[serde(rename = "config")]
    pub run: RunDefaults,
    pub rootfs: RootFs,
    pub history: Vec<Step>,
}

/// A step of the build.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Step {
    /// Of RFC 3339.
    pub created: Option<String>,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct RootFs {
    /// The digests of the layers' tar files, uncompressed.
    pub diff_ids: Vec<String>,
}

/// What containers of the image get unless their call says otherwise.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunDefaults {
    pub user: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub healthcheck: Option<serde_json::Value>,
}

impl ImageConfig {
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
