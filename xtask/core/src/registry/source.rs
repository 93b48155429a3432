//! A repository as a source of images.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::client::RegistryClient;
use crate::{
    base::error::Failure,
    oci::source::{Source, StoredBlob},
};

/// How long a registry may take until what was pushed a moment ago can be read.
const MAX_LAG: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

/// What is looked for must be there, so this waits for a registry that lags behind.
impl Source for RegistryClient<'_> {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        let manifest = self.wait_for(|| RegistryClient::manifest(self, digest))?;
        let manifest =
            manifest.with_context(|| format!("{} has no manifest {digest}", self.host()))?;
        Ok(manifest.content)
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        RegistryClient::blob(self, digest)
    }

    fn find_blob(&self, digest: &str) -> Result<Option<StoredBlob>> {
        self.wait_for(|| RegistryClient::find_blob(self, digest))
    }
}

impl RegistryClient<'_> {
    /// Looks for something until it is there, as long as a registry may take to show what was pushed.
    ///
    /// # Errors
    /// Those of `look`, and when a signal interrupts.
    pub fn wait_for<T>(&self, look: impl Fn() -> Result<Option<T>>) -> Result<Option<T>> {
        let begin = Instant::now();
        loop {
            let found = look()?;
            if found.is_some() || begin.elapsed() >= MAX_LAG {
                return Ok(found);
            }
            self.exec.pause(PAUSE).map_err(Failure::signal)?;
        }
    }
}
