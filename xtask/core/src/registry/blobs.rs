//! Blobs: whether they are there, uploading and downloading them.

use std::{
    io::{self, Read},
    time::Duration,
};

use anyhow::Result;

use super::{
    address::{mount, resolve, with_parameter},
    client::{RegistryClient, redirect},
    refusal::Action,
    request::{Body, Request, Upload},
    response::{NoResponse, Response, ResponseHead},
    transfers::Transfer,
};
use crate::{
    base::image::human_bytes,
    oci::{digest::short, source::StoredBlob},
};

/// The slowest rate at which a registry moves an uploaded blob to its place, in bytes per second.
const MIN_SPEED: u64 = 100_000;
/// How often a download is continued after the connection was lost.
const MAX_CONTINUATIONS: u32 = 4;
/// The download of a blob of this size is reported, in bytes.
const LARGE: u64 = 1_000_000;

impl RegistryClient<'_> {
    /// Looks for a blob in the repository.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn find_blob(&self, digest: &str) -> Result<Option<StoredBlob>> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let question = Request::new("HEAD", url);
        let response = self.send_to_server(&question, &mut ResponseHead::read)?;
        let size_in = |response: &Response| response.header("content-length")?.parse().ok();
        if let Some(storage) = redirect(&question, &response) {
            // The registry has it, in a storage that may not answer a HEAD.
            let response = self.send(&Request::new("HEAD", storage))?;
            if matches!(response.status, 404 | 410) {
                return Ok(None); // only the registry's note of it is left
            }
            let size = response.is_success().then(|| size_in(&response)).flatten();
            return Ok(Some(StoredBlob { size }));
        }
        match response.status {
            200 => Ok(Some(StoredBlob {
                size: size_in(&response),
            })),
            404 => Ok(None),
            _ => Err(self.refused(Action::Read, &response).into()),
        }
    }

    /// Downloads a blob. Its content is not compared with its digest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let (content, size) = self.open_blob(&url, 0)?;
        Ok(Box::new(Download {
            content,
            transfer: self.transfers.begin("Reading", short(digest), size),
            registry: self,
            url,
            received: 0,
            continuations: 0,
        }))
    }

    /// The content of a blob from the byte `offset` on, and the response's length in bytes; 0 if it is unknown.
    fn open_blob(&self, url: &str, offset: u64) -> Result<(Box<dyn Read + Send>, u64)> {
        let mut request = Request::new("GET", url);
        request.offset = offset;
        let mut content = None;
        let response = self.send_and(&request, |head| {
            if !(200..300).contains(&head.status) {
                return head.read();
            }
            content = Some(head.body);
            Ok(Response {
                status: head.status,
                headers: head.headers,
                ..Response::default()
            })
        })?;
        let Some(mut content) = content else {
            return Err(self.refused(Action::Read, &response).into());
        };
        if offset > 0 && response.status != 206 {
            // The server sends it from the beginning again.
            io::copy(&mut content.by_ref().take(offset), &mut io::sink())?;
        }
        let size = response.header("content-length");
        Ok((
            content,
            size.and_then(|size| size.parse().ok()).unwrap_or(0),
        ))
    }

    /// Uploads a blob, or lets the registry take it over from another of its repositories. Asks first
    /// whether it is there already. True if it was uploaded.
    ///
    /// # Errors
    /// When the content cannot be read, or the registry cannot be reached or refuses.
    pub fn push_blob(&self, digest: &str, upload: Upload) -> Result<bool> {
        if self.find_blob(digest)?.is_some() {
            return Ok(false);
        }
        let transfer = self.transfers.begin("Pushing", short(digest), upload.size);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(transfer.counting((upload.open)()?)))
        };
        let upload = Upload {
            open: &open,
            size: upload.size,
        };
        let started = self.start_upload(digest)?;
        if started.status == 201 {
            return Ok(false);
        }
        let (mut response, url) = self.upload(digest, upload, started)?;
        // A token may expire while a large blob is uploaded. Beginning the upload again renews it.
        if response.status == 401 && self.authorization_for_upload(&url).is_some() {
            let started = self.start_upload(digest)?;
            (response, _) = self.upload(digest, upload, started)?;
        }
        if response.status == 201 {
            Ok(true)
        } else {
            let action = Action::PushBlob(upload.size);
            Err(self.refused(action, &response).into())
        }
    }

    /// Begins an upload. The response is 201 instead of 202 if the registry has taken the blob over from
    /// the related repository.
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#mounting-a-blob-from-another-repository>
    fn start_upload(&self, digest: &str) -> Result<Response> {
        let url = self.url("blobs/uploads/")?;
        if let Some(related) = self
            .related
            .as_ref()
            .filter(|_| self.refuses_mount.get().is_none())
        {
            let mount = mount(&url, digest, related);
            let response = self.send(&Request::new("POST", mount))?;
            if matches!(response.status, 201 | 202) {
                return Ok(response);
            }
            // Harbor and Docker Hub refuse instead of beginning an upload.
            let _ = self.refuses_mount.set(());
        }
        self.send(&Request::new("POST", url))
    }

    /// The last response, and the URL that it is from. Each further attempt starts a new upload.
    fn upload(
        &self,
        digest: &str,
        upload: Upload,
        started: Response,
    ) -> Result<(Response, String)> {
        let start = Request::new("POST", self.url("blobs/uploads/")?);
        let mut started = Some(started);
        let mut last = start.url.clone();
        let attempt = || {
            let mut next_location = || {
                let started = match started.take() {
                    Some(started) => started,
                    None => self.attempt_authorized(&start)?,
                };
                let location = started.header("location").filter(|_| started.status == 202);
                Ok(match location.and_then(|to| resolve(&start.url, to)) {
                    Some(location) => {
                        last.clone_from(&location);
                        Ok(location)
                    }
                    None => Err(started),
                })
            };
            if self.needs_patch.get().is_none() {
                let location = match next_location()? {
                    Ok(location) => location,
                    Err(refusal) => return Ok(refusal),
                };
                let response = self.put(&location, digest, upload)?;
                if !matches!(response.status, 404 | 405 | 415 | 501) {
                    return Ok(response);
                }
            }
            match next_location()? {
                Ok(location) => self.patch(&location, digest, upload),
                Err(refusal) => Ok(refusal),
            }
        };
        let response = self.retry(&start, attempt)?;
        Ok((response, last))
    }

    /// Sends a blob in a single request.
    fn put(&self, location: &str, digest: &str, upload: Upload) -> Result<Response, NoResponse> {
        let mut request = Request::new("PUT", with_parameter(location, "digest", digest));
        request.body = Body::Upload(upload);
        request.time_limit = time_limit(upload);
        self.attempt_authorized(&request)
    }

    /// Sends a blob in two requests, as some registries demand: one with the content, one with the
    /// digest.
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks>
    fn patch(&self, location: &str, digest: &str, upload: Upload) -> Result<Response, NoResponse> {
        let mut request = Request::new("PATCH", location);
        request.body = Body::Upload(upload);
        request.time_limit = time_limit(upload);
        let sent = self.attempt_authorized(&request)?;
        if !sent.is_success() {
            return Ok(sent);
        }
        let next = sent.header("location").and_then(|to| resolve(location, to));
        let next = next.unwrap_or_else(|| location.to_owned());
        let mut request = Request::new("PUT", with_parameter(&next, "digest", digest));
        request.time_limit = time_limit(upload);
        let response = self.attempt_authorized(&request)?;
        if response.is_success() {
            let _ = self.needs_patch.set(());
        }
        Ok(response)
    }

    fn attempt_authorized(&self, request: &Request) -> Result<Response, NoResponse> {
        let authorization = self.authorization_for_upload(&request.url);
        self.attempt(request, authorization, &mut ResponseHead::read)
    }
}

fn time_limit(upload: Upload) -> Duration {
    Duration::from_secs(60 + upload.size / MIN_SPEED)
}

/// A download that goes on after the connection was lost.
struct Download<'a> {
    registry: &'a RegistryClient<'a>,
    url: String,
    content: Box<dyn Read + Send>,
    transfer: Transfer,
    /// In bytes.
    received: u64,
    continuations: u32,
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let why = match self.content.read(buffer) {
                Ok(count) => {
                    self.received += count as u64;
                    self.transfer.add(count as u64);
                    let total = self.transfer.total();
                    if count > 0 && self.received == total && total >= LARGE {
                        let text = format!("{} ({})", self.transfer.name(), human_bytes(total));
                        self.registry.ui.status("Read", &text);
                    }
                    return Ok(count);
                }
                Err(why) => why,
            };
            if self.continuations == MAX_CONTINUATIONS || self.registry.exec.stop_signal().is_some()
            {
                return Err(why);
            }
            self.continuations += 1;
            let host = self.registry.host();
            self.registry
                .ui
                .warn(&format!("{host}: {why}; the download goes on"));
            let content = self.registry.open_blob(&self.url, self.received);
            (self.content, _) = content.map_err(io::Error::other)?;
        }
    }
}
