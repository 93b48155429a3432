//! The client of one repository: manifests, tags, and authentication.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{
    address::{base_url, is_http_url, next_page},
    authentication::{Challenge, basic, parse_token, token_request},
    refusal::{self, Action},
    request::{Authorization, Body, Request},
    response::{NoResponse, Response},
    retry,
};
use crate::{
    base::{error::Failure, image::Repository, ui::Ui},
    credentials::found::Found,
    exec::Exec,
    oci::{digest::sha256, media_type},
};

/// One repository of a registry.
pub struct RegistryClient<'a> {
    pub(super) exec: &'a Exec,
    ui: Ui,
    host: String,
    path: String,
    /// Such as `https://ghcr.io`.
    base: String,
    /// The login, or where it was looked for.
    login: Found,
    /// The one that the registry accepted last.
    authorization: Mutex<Authorization>,
    /// The folder for the temporary files of blob transfers.
    pub(super) transfers: PathBuf,
}

/// A manifest as the registry stores it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    pub media_type: String,
    pub content: String,
}

impl RawManifest {
    pub fn digest(&self) -> String {
        sha256(self.content.as_bytes())
    }
}

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

impl<'a> RegistryClient<'a> {
    /// The client writes blobs that it sends and receives to the folder `transfers`, and removes
    /// them.
    pub fn new(
        exec: &'a Exec,
        ui: Ui,
        repository: &Repository,
        login: Found,
        transfers: &Path,
    ) -> Self {
        let host = repository.registry().to_owned();
        Self {
            exec,
            ui,
            base: base_url(&host),
            path: repository.path().to_owned(),
            host,
            login,
            authorization: Mutex::new(Authorization::None),
            transfers: transfers.to_owned(),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the connection is not encrypted.
    pub fn is_plain_http(&self) -> bool {
        self.base.starts_with("http://")
    }

    /// The URL of something in the repository.
    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.path)
    }

    /// The URL that a `Location` or `Link` header names.
    pub(super) fn absolute(&self, location: &str) -> String {
        if is_http_url(location) {
            location.to_owned()
        } else {
            format!("{}/{}", self.base, location.trim_start_matches('/'))
        }
    }

    /// Sends a request. Authenticates, and sends it once more, if the registry demands it.
    pub(super) fn send(&self, request: &Request) -> Result<Response> {
        let response = self.send_authorized(request)?;
        if response.status != 401 || !self.authenticate(&request.url, &response)? {
            return Ok(response);
        }
        self.send_authorized(request)
    }

    fn send_authorized(&self, request: &Request) -> Result<Response> {
        let mut request = request.clone();
        request.authorization = self.authorization_for(&request.url);
        self.send_as_is(&request)
    }

    fn send_as_is(&self, request: &Request) -> Result<Response> {
        retry::send(self.exec, request, |why| self.warn_of_retry(why))
            .map_err(|why| self.no_response(why).into())
    }

    /// The authorization for a URL. Registries redirect to other hosts, which must not learn ours.
    pub(super) fn authorization_for(&self, url: &str) -> Authorization {
        if !self.is_same_host(url) {
            return Authorization::None;
        }
        self.authorization
            .lock()
            .map_or(Authorization::None, |current| current.clone())
    }

    fn is_same_host(&self, url: &str) -> bool {
        url.strip_prefix(&self.base)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Gets the authorization that the registry demands in its response to a request for the URL.
    /// False if there is no new authorization to try.
    pub(super) fn authenticate(&self, url: &str, response: &Response) -> Result<bool> {
        if !self.is_same_host(url) {
            return Ok(false);
        }
        let login = self.login.credentials.as_ref().map(|found| &found.login);
        let header = response.header("www-authenticate");
        let new = match header.and_then(Challenge::parse) {
            Some(Challenge::Basic) => login.map_or(Authorization::None, basic),
            Some(Challenge::Bearer { realm, service }) => {
                let request = token_request(&realm, &service, &self.path, login);
                let response = self.send_as_is(&request)?;
                if !response.is_success() {
                    return Err(self.refused(Action::SignIn, &response).into());
                }
                parse_token(&response.body).unwrap_or(Authorization::None)
            }
            None => Authorization::None,
        };
        if new == Authorization::None {
            return Ok(false);
        }
        let current = self.authorization.lock();
        Ok(current.is_ok_and(|mut current| {
            // Every token is new. A password that was refused would be refused again.
            let is_new = *current != new;
            *current = new;
            is_new
        }))
    }

    /// Checks that we may push: starts an upload, and cancels it.
    ///
    /// # Errors
    /// When we may not, with what to do.
    pub fn check_push(&self) -> Result<()> {
        let response = self.send(&Request::new("POST", self.url("blobs/uploads/")))?;
        if response.status != 202 {
            return Err(self.refused(Action::Push, &response).into());
        }
        if let Some(location) = response.header("location") {
            // Registries that cannot cancel it let it expire.
            let _ = self.send(&Request::new("DELETE", self.absolute(location)));
        }
        Ok(())
    }

    /// The manifest of a tag or digest. `None` if the repository has no such manifest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        let mut request = Request::new("GET", self.url(&format!("manifests/{reference}")));
        request.accept = media_type::MANIFESTS.join(", ");
        let response = self.send(&request)?;
        match response.status {
            404 => Ok(None),
            200 => Ok(Some(RawManifest {
                media_type: response
                    .header("content-type")
                    .unwrap_or_default()
                    .to_owned(),
                content: response.body,
            })),
            _ => Err(self.refused(Action::Read, &response).into()),
        }
    }

    /// Pushes a manifest to a tag, or to its digest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn put_manifest(&self, reference: &str, manifest: &RawManifest) -> Result<()> {
        let mut request = Request::new("PUT", self.url(&format!("manifests/{reference}")));
        request.body = Body::Manifest {
            media_type: manifest.media_type.clone(),
            content: manifest.content.clone(),
        };
        let response = self.send(&request)?;
        if response.is_success() {
            Ok(())
        } else {
            Err(self.refused(Action::Push, &response).into())
        }
    }

    /// All tags of the repository; empty if the repository does not exist yet.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn tags(&self) -> Result<Vec<String>> {
        let (mut tags, mut pages) = (Vec::new(), BTreeSet::new());
        let mut next = Some(self.url("tags/list?n=1000"));
        while let Some(url) = next.take() {
            let response = self.send(&Request::new("GET", url))?;
            if response.status == 404 {
                break;
            }
            if !response.is_success() {
                return Err(self.refused(Action::ListTags, &response).into());
            }
            let list: TagList = serde_json::from_str(&response.body)
                .with_context(|| format!("cannot read the list of tags that {} sent", self.host))?;
            tags.extend(list.tags.unwrap_or_default());
            next = response
                .header("link")
                .and_then(next_page)
                .map(|page| self.absolute(page))
                // A page that leads to an earlier one would make this endless.
                .filter(|page| pages.insert(page.clone()));
        }
        Ok(tags)
    }

    pub(super) fn warn_of_retry(&self, why: &str) {
        self.ui.warn(&format!("{}: {why}", self.host));
    }

    pub(super) fn no_response(&self, why: NoResponse) -> Failure {
        refusal::no_response(&self.host, why)
    }

    pub(super) fn refused(&self, action: Action, response: &Response) -> Failure {
        refusal::refused(&self.host, &self.path, &self.login, action, response)
    }
}
