//! What refers to an image: its signatures and attestations.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    address::resolve,
    client::{RawManifest, RegistryClient},
    refusal::Action,
    request::Request,
};
use crate::{base::error::Failure, oci::media_type::OCI_INDEX};

/// More pages than any list of referrers has.
const MAX_PAGES: usize = 100;

impl RegistryClient<'_> {
    /// The descriptors of the manifests that refer to a digest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn referrers(&self, digest: &str) -> Result<Vec<Value>> {
        let mut url = self.url(&format!("referrers/{digest}"))?;
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut request = Request::new("GET", &url);
            OCI_INDEX.clone_into(&mut request.accept);
            let response = self.send(&request)?;
            match response.status {
                200 => {}
                // It does not know this list. Then the list is an index under a tag.
                400 | 404 | 405 | 501 => return self.tagged_referrers(digest),
                _ => return Err(self.refused(Action::Read, &response).into()),
            }
            found.extend(manifests_of(&response.body)?);
            let links = response.headers("link");
            let next = self.next_page(&links, "referrers")?;
            let Some(link) = next else {
                return Ok(found);
            };
            url = resolve(&url, link).with_context(|| {
                let host = self.host();
                format!("the list of referrers that {host} sent goes on at `{link}`, which is no address")
            })?;
        }
        Err(Failure::new(format!(
            "the list of referrers that {} sent has no end",
            self.host()
        ))
        .into())
    }

    fn tagged_referrers(&self, digest: &str) -> Result<Vec<Value>> {
        match self.manifest(&tag_of(digest))? {
            Some(index) => manifests_of(&index.content),
            None => Ok(Vec::new()),
        }
    }

    /// Pushes a manifest that refers to the digest `subject`. Its blobs must have been pushed before. If the
    /// registry keeps no list of referrers, this adds `descriptor` to the list under the tag.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn put_referrer(
        &self,
        subject: &str,
        descriptor: &Value,
        manifest: &RawManifest,
    ) -> Result<()> {
        let digest = manifest.digest();
        let response = self.put_manifest_and_read(&digest, manifest)?;
        if response.header("oci-subject").is_some() {
            return Ok(());
        }
        // The registry keeps no list, so the client does.
        let mut manifests = self.tagged_referrers(subject)?;
        if manifests.iter().any(|known| known["digest"] == *digest) {
            return Ok(());
        }
        manifests.push(descriptor.clone());
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let index = RawManifest {
            media_type: OCI_INDEX.to_owned(),
            content: serde_json::to_vec(&index)?,
        };
        self.put_manifest(&tag_of(subject), &index)
    }
}

/// The tag of the list of referrers in registries that keep none.
fn tag_of(digest: &str) -> String {
    digest.replacen(':', "-", 1)
}

fn manifests_of(index: &[u8]) -> Result<Vec<Value>> {
    let index: Value =
        serde_json::from_slice(index).context("cannot read the list of referrers")?;
    Ok(index["manifests"].as_array().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_a_tag_of_its_own() {
        assert_eq!(tag_of("sha256:12"), "sha256-12");
    }

    #[test]
    fn a_list_may_be_empty() {
        assert_eq!(manifests_of(b"{}").unwrap(), Vec::<Value>::new());
        let one = manifests_of(br#"{"manifests":[{"digest":"sha256:1"}]}"#).unwrap();
        assert_eq!(one[0]["digest"], "sha256:1");
        assert!(manifests_of(b"<html>").is_err());
    }
}
