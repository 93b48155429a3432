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
    /// Of any shape: whatever it is, the labels are read.
    rootfs: serde_json::Value,
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

    /// The digests of the layers' tar files, uncompressed; empty if there are none.
    pub fn diff_ids(&self) -> Vec<&str> {
        let listed = self.rootfs["diff_ids"].as_array().into_iter().flatten();
        listed.filter_map(serde_json::Value::as_str).collect()
    }

    pub fn platform(&self) -> DescriptorPlatform {
        DescriptorPlatform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }
}
