//! A repository as a source of images.

use std::io::Read;

use anyhow::{Context as _, Result};

use super::client::Registry;
use crate::oci::source::Source;

impl Source for Registry<'_> {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        let manifest = Registry::manifest(self, digest)?
            .with_context(|| format!("{} has no manifest {digest}", self.host()))?;
        Ok(manifest.content.into_bytes())
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Registry::blob(self, digest)?))
    }
}
