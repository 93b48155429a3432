//! A repository as a source of images.

use std::io::Read;

use anyhow::{Context as _, Result};

use super::client::RegistryClient;
use crate::oci::source::Source;

impl Source for RegistryClient<'_> {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        let manifest = RegistryClient::manifest(self, digest)?
            .with_context(|| format!("{} has no manifest {digest}", self.host()))?;
        Ok(manifest.content.into_bytes())
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(RegistryClient::blob(self, digest)?))
    }
}
