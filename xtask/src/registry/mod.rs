//! A registry, spoken to in the protocol that all of them share: what it holds, and what is
//! written there. <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>
//!
//! Engines push an image under its tags at once; here it is pushed by digest, looked at, and
//! only then given its tags, on every engine alike.

pub mod auth;
pub mod http;

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use self::{
    auth::Challenge,
    http::{Answer, Auth, Body, Request, Unanswered},
};
use crate::{
    credentials::{environment::GITHUB_REGISTRY, login::Credentials},
    error::Failure,
    exec::Exec,
    image::Repository,
    oci::{digest::sha256, media_type, source::Source},
    ui::Ui,
};

/// The slowest line that an upload or download is given time for, in bytes a second.
const SLOWEST: u64 = 100_000;

/// One repository of a registry.
pub struct Registry<'a> {
    exec: &'a Exec,
    ui: Ui,
    host: String,
    path: String,
    base: String,
    credentials: Option<Credentials>,
    /// What the registry took last.
    auth: Mutex<Auth>,
    /// Downloads are kept here while they are read.
    scratch: PathBuf,
    /// How many there were.
    scratches: AtomicUsize,
}

/// A manifest as the registry has it, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub media_type: String,
    pub content: String,
}

impl Fetched {
    pub fn digest(&self) -> String {
        sha256(self.content.as_bytes())
    }
}

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

impl<'a> Registry<'a> {
    pub fn new(
        exec: &'a Exec,
        ui: Ui,
        repository: &Repository,
        credentials: Option<Credentials>,
        scratch: &Path,
    ) -> Self {
        let host = repository.registry().to_owned();
        // Docker Hub's registry has another address than its name.
        let address = match host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if is_loopback(&host) { "http" } else { "https" };
        Self {
            exec,
            ui,
            base: format!("{scheme}://{address}"),
            path: repository.path().to_owned(),
            host,
            credentials,
            auth: Mutex::new(Auth::Nobody),
            scratch: scratch.to_owned(),
            scratches: AtomicUsize::new(0),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is spoken to without TLS.
    pub fn is_plain_http(&self) -> bool {
        self.base.starts_with("http://")
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.path)
    }

    fn told(&self, what: &str) {
        self.ui.warn(&format!("{}: {what}", self.host));
    }

    /// Sends a request, as whoever we are; signs in where the registry asks for it.
    fn send(&self, request: &Request) -> Result<Answer> {
        let answer = self.send_as_known(request)?;
        if answer.status != 401 || !self.sign_in(&request.url, &answer)? {
            return Ok(answer);
        }
        self.send_as_known(request)
    }

    fn send_as_known(&self, request: &Request) -> Result<Answer> {
        let mut request = request.clone();
        request.auth = self.known(&request.url);
        http::send(self.exec, &request, |what| self.told(what)).map_err(|why| self.unanswered(why))
    }

    /// What an address is shown: nothing where a registry sends us to another host, which may be
    /// anybody's.
    fn known(&self, url: &str) -> Auth {
        if !self.is_its(url) {
            return Auth::Nobody;
        }
        self.auth.lock().map_or(Auth::Nobody, |auth| auth.clone())
    }

    fn is_its(&self, url: &str) -> bool {
        url.strip_prefix(&self.base)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Answers the registry's challenge. False where we have nothing new to show.
    fn sign_in(&self, url: &str, refusal: &Answer) -> Result<bool> {
        if !self.is_its(url) {
            return Ok(false);
        }
        let ours = self
            .credentials
            .as_ref()
            .map(|found| Auth::from(found.login.clone()));
        let challenge = refusal.header("www-authenticate").and_then(Challenge::read);
        let auth = match challenge {
            // Where nobody gives out tokens, an identity token is for nothing.
            Some(Challenge::Basic) => ours.filter(|auth| !matches!(auth, Auth::Identity(_))),
            Some(Challenge::Token { realm, service }) => {
                let request =
                    auth::token_request(&realm, &service, &self.path, ours.unwrap_or(Auth::Nobody));
                let answer = http::send(self.exec, &request, |what| self.told(what))
                    .map_err(|why| self.unanswered(why))?;
                if !answer.ok() {
                    return Err(self.refused("sign in", &answer).into());
                }
                auth::read_token(&answer.body)
            }
            None => None,
        };
        let Some(auth) = auth else { return Ok(false) };
        let known = self.auth.lock();
        Ok(known.is_ok_and(|mut known| {
            // A token is new each time; a password that was refused stays refused.
            let new = *known != auth;
            *known = auth;
            new
        }))
    }

    /// Whether we may push: begins an upload and takes it back.
    ///
    /// # Errors
    /// Why not, with what to do.
    pub fn check_push(&self) -> Result<()> {
        let answer = self.send(&Request::new("POST", self.url("blobs/uploads/")))?;
        if answer.status != 202 {
            return Err(self.refused("push", &answer).into());
        }
        if let Some(location) = answer.header("location") {
            // Those that don't know it forget the upload by themselves.
            let _ = self.send(&Request::new("DELETE", self.absolute(location)));
        }
        Ok(())
    }

    /// The manifest of a tag or digest, if there is one.
    ///
    /// # Errors
    /// When the registry doesn't say.
    pub fn manifest(&self, reference: &str) -> Result<Option<Fetched>> {
        let mut request = Request::new("GET", self.url(&format!("manifests/{reference}")));
        request.accept = media_type::MANIFESTS.join(", ");
        let answer = self.send(&request)?;
        match answer.status {
            404 => Ok(None),
            200 => Ok(Some(Fetched {
                media_type: answer.header("content-type").unwrap_or_default().to_owned(),
                content: answer.body,
            })),
            _ => Err(self.refused("read", &answer).into()),
        }
    }

    /// A blob, downloaded whole before it is read: an interrupted line is tried again.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn blob(&self, digest: &str) -> Result<File> {
        let file = self.scratch("download", digest)?;
        let mut request = Request::new("GET", self.url(&format!("blobs/{digest}")));
        request.body = Body::Download(file.text());
        request.limit = Duration::from_secs(1800);
        let answer = self.send(&request)?;
        if !answer.ok() {
            return Err(self.refused("read", &answer).into());
        }
        // What is open lives on without its name.
        File::open(&file.0).with_context(|| format!("the download of {digest} is gone"))
    }

    /// A file for a blob on its way, which goes when it is no longer needed.
    fn scratch(&self, what: &str, digest: &str) -> Result<Scratch> {
        let folder = &self.scratch;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let name = digest.trim_start_matches("sha256:");
        // Two platforms may want the same blob at the same time.
        let number = self.scratches.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        Ok(Scratch(
            folder.join(format!("{what}-{process}-{number}-{name}")),
        ))
    }

    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// When it doesn't say.
    pub fn has_blob(&self, digest: &str) -> Result<bool> {
        let request = Request::new("HEAD", self.url(&format!("blobs/{digest}")));
        let answer = self.send(&request)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("read", &answer).into()),
        }
    }

    /// Uploads a blob in one piece; from its beginning where the line breaks.
    ///
    /// # Errors
    /// When the registry doesn't take it.
    pub fn upload(&self, digest: &str, content: &mut impl Read, size: u64) -> Result<()> {
        let file = self.scratch("upload", digest)?;
        File::create(&file.0)
            .and_then(|mut copy| std::io::copy(content, &mut copy))
            .with_context(|| format!("cannot write `{}`", file.0.display()))?;
        let (mut answer, place) = self.upload_file(&file, digest, size)?;
        // A token may expire between the upload's beginning and its end.
        if answer.status == 401 && self.sign_in(&place, &answer)? {
            (answer, _) = self.upload_file(&file, digest, size)?;
        }
        if answer.status == 201 {
            Ok(())
        } else {
            Err(self.refused("push", &answer).into())
        }
    }

    /// What is answered last, and by which address.
    fn upload_file(&self, file: &Scratch, digest: &str, size: u64) -> Result<(Answer, String)> {
        let begin = Request::new("POST", self.url("blobs/uploads/"));
        // Signs in where that is due, so that nothing big is sent for nothing.
        let mut first = Some(self.send(&begin)?);
        let mut place = begin.url.clone();
        let answer = http::again(
            self.exec,
            |what| self.told(what),
            || {
                let mut begin = begin.clone();
                begin.auth = self.known(&begin.url);
                let began = match first.take() {
                    Some(began) => began,
                    None => http::send_once(self.exec, &begin)?,
                };
                let Some(location) = began.header("location").filter(|_| began.status == 202)
                else {
                    return Ok(began);
                };
                let location = self.absolute(location);
                let mark = if location.contains('?') { '&' } else { '?' };
                let digest = digest.replace(':', "%3A");
                let mut put = Request::new("PUT", format!("{location}{mark}digest={digest}"));
                put.auth = self.known(&put.url);
                place.clone_from(&put.url);
                put.body = Body::File(file.text());
                put.limit = Duration::from_secs(60 + size / SLOWEST);
                http::send_once(self.exec, &put)
            },
        )
        .map_err(|why| self.unanswered(why))?;
        Ok((answer, place))
    }

    /// Writes a manifest under a tag or its digest.
    ///
    /// # Errors
    /// When the registry doesn't take it.
    pub fn put_manifest(&self, reference: &str, manifest: &Fetched) -> Result<()> {
        let mut request = Request::new("PUT", self.url(&format!("manifests/{reference}")));
        request.body = Body::Text(manifest.media_type.clone(), manifest.content.clone());
        let answer = self.send(&request)?;
        if answer.ok() {
            Ok(())
        } else {
            Err(self.refused("push", &answer).into())
        }
    }

    /// All tags of the repository; none where there is no repository yet.
    ///
    /// # Errors
    /// When the registry doesn't say.
    pub fn tags(&self) -> Result<Vec<String>> {
        let (mut tags, mut asked) = (Vec::new(), BTreeSet::new());
        let mut next = Some(self.url("tags/list?n=1000"));
        while let Some(url) = next.take() {
            let answer = self.send(&Request::new("GET", url))?;
            if answer.status == 404 {
                break;
            }
            if !answer.ok() {
                return Err(self.refused("read the tags of", &answer).into());
            }
            let list: TagList = serde_json::from_str(&answer.body)
                .with_context(|| format!("{}: the list of tags cannot be read", self.host))?;
            tags.extend(list.tags.unwrap_or_default());
            next = answer
                .header("link")
                .and_then(next_page)
                .map(|page| self.absolute(page))
                // One that leads back to itself would have no end.
                .filter(|page| asked.insert(page.clone()));
        }
        Ok(tags)
    }

    fn absolute(&self, location: &str) -> String {
        if auth::is_address(location) {
            location.to_owned()
        } else {
            format!("{}/{}", self.base, location.trim_start_matches('/'))
        }
    }

    fn unanswered(&self, why: Unanswered) -> anyhow::Error {
        match why {
            Unanswered::Network(words) if words.contains("certificate") => {
                Failure::new(format!("{} cannot be reached: {words}", self.host))
                    .hint("this machine does not trust that certificate: add its CA to the system's, or name a bundle: `CURL_CA_BUNDLE=/path/to/ca.pem` in front of the command")
                    .more("proxy-ca")
                    .into()
            }
            Unanswered::Network(words) => {
                Failure::new(format!("{} cannot be reached: {words}", self.host))
                    .known("registry-unreachable")
                    .into()
            }
            Unanswered::NoCurl => {
                Failure::new("curl is not installed: registries are spoken to with it")
                    .known("curl-missing")
                    .into()
            }
            Unanswered::Interrupted(signal) => Failure::signal(signal).into(),
        }
    }

    /// What a refusal means, and what to do.
    fn refused(&self, what: &str, answer: &Answer) -> Failure {
        let place = format!("{}/{}", self.host, self.path);
        let said = answer.complaint();
        let from = self.credentials.as_ref().map(|found| found.source.as_str());
        match (answer.status, from) {
            (401, None) => Failure::new(format!("not signed in to {}, which is needed to {what} {place}", self.host))
                .hint("sign in: `cargo xtask docker-login`")
                .hint("in CI: set REGISTRY_TOKEN (on GitHub, `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`)")
                .more("not-signed-in"),
            (401, Some(from)) => Failure::new(format!("{} does not take the credentials from {from}: {said}", self.host))
                .hint("sign in again: `cargo xtask docker-login`")
                .more("token-refused"),
            (403, _) => {
                let denied = Failure::new(format!("you may not {what} {place}: {said}"));
                let denied = if self.host == GITHUB_REGISTRY {
                    denied
                        .hint("a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`")
                        .hint("in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access)")
                } else {
                    denied.hint("ask the repository's owner for the right to push, or set `image.repository` to one of yours")
                };
                denied.more("push-denied")
            }
            (429, _) => Failure::new(format!("{} has had enough requests for now: {said}", self.host))
                .hint("wait a few minutes, then run the same command again: it goes on where it stopped")
                .more("too-many-requests"),
            (500.., _) => {
                Failure::new(format!("{} fails: {said}", self.host)).known("registry-fails")
            }
            _ => Failure::new(format!("{} does not let us {what} {place}: {said}", self.host)),
        }
    }
}

impl Source for Registry<'_> {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        let found = Registry::manifest(self, digest)?;
        let found = found.with_context(|| format!("{} has no manifest {digest}", self.host))?;
        Ok(found.content.into_bytes())
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Registry::blob(self, digest)?))
    }
}

/// A file that is removed with this.
struct Scratch(PathBuf);

impl Scratch {
    fn text(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Docker takes registries on the loopback without TLS, and so do we.
/// <https://docs.docker.com/reference/cli/dockerd/#insecure-registries>
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.chars().all(|c| c.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The address in `Link: </v2/x/tags/list?n=1&last=a>; rel="next"`.
pub fn next_page(link: &str) -> Option<&str> {
    link.contains("rel=\"next\"").then_some(())?;
    link.split_once('<')?
        .1
        .split_once('>')
        .map(|(address, _)| address)
        .filter(|page| page.starts_with('/') || auth::is_address(page))
        .filter(|page| !page.contains(|c: char| c.is_whitespace() || c.is_control()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_speaks_plainly() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "ghcr.io",
            "127.example.com:1",
            "registry:5000",
            "10.0.0.1:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let link = "</v2/a/tags/list?last=b&n=1000>; rel=\"next\"";
        assert_eq!(next_page(link), Some("/v2/a/tags/list?last=b&n=1000"));
        assert_eq!(next_page("</x>; rel=\"prev\""), None);
    }
}
