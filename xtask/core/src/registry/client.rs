//! The client of one repository: manifests, tags, and authentication.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    address::{Origin, is_mount, next_link, resolve},
    authentication::{Access, Challenge, basic, parse_token, token_request},
    certificates::CertificateFiles,
    refusal::{self, Action},
    request::{Authorization, Body, Request},
    response::{NoResponse, Response, ResponseHead},
    retry::retry,
    servers::Servers,
    transfers::Transfers,
    transport::{InterruptibleTransport, NewTransport},
};
use crate::{
    base::{
        env::Env,
        error::Failure,
        image::Repository,
        ui::{Ui, single_line},
    },
    catalogue,
    credentials::{found::Found, login::Credentials},
    exec::Exec,
    oci::{digest::sha256, media_type},
};

/// How many redirects of one request are followed.
const MAX_REDIRECTS: usize = 5;
/// How often one request is sent because of an answer 401. A registry may refuse a token that another
/// thread got a moment ago.
const MAX_AUTHENTICATIONS: u32 = 4;
/// More pages than the list of tags of any repository has.
const MAX_PAGES: usize = 10_000;

/// One repository of a registry. Its methods may be called from several threads at once.
pub struct RegistryClient<'a> {
    pub(super) exec: &'a Exec,
    pub(super) ui: Ui,
    servers: Arc<Servers>,
    transport: InterruptibleTransport,
    /// As in the name of an image.
    host: String,
    path: String,
    origin: OnceLock<Origin>,
    access: Access,
    /// The login, or where it was looked for.
    login: Found,
    /// The authorization that was obtained last; the registry may refuse it.
    authorization: Mutex<Option<Authorization>>,
    /// The same for taking blobs over from the related repository, which needs a token for both.
    mount_authorization: Mutex<Option<Authorization>>,
    /// Whether any server responded.
    has_answered: AtomicBool,
    /// A repository of the same registry that may have our blobs already.
    pub(super) related: Option<String>,
    pub(super) transfers: Transfers,
    /// Whether the registry refuses a blob in a single request.
    pub(super) needs_patch: OnceLock<()>,
    /// Whether the registry does not let us take blobs over from the related repository.
    pub(super) refuses_mount: OnceLock<()>,
}

/// How a repository is spoken to.
pub struct ClientOptions<'a> {
    pub access: Access,
    pub login: Found,
    pub transport: NewTransport,
    /// The registries without TLS, or with a certificate that is not checked.
    pub insecure: &'a [String],
    /// A repository of the same registry that may have the same blobs.
    pub related: Option<&'a Repository>,
}

/// What another program needs to reach the registry.
pub struct Connection<'a> {
    pub security: Security,
    pub certificates: CertificateFiles,
    pub login: Option<&'a Credentials>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    PlainHttp,
    /// By TLS, with a certificate that is not checked.
    Unchecked,
    Checked,
}

/// A manifest as the registry stores it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    pub media_type: String,
    pub content: Vec<u8>,
}

impl RawManifest {
    pub fn digest(&self) -> String {
        sha256(&self.content)
    }
}

impl<'a> RegistryClient<'a> {
    pub fn new(
        exec: &'a Exec,
        env: &Env,
        ui: Ui,
        repository: &Repository,
        options: ClientOptions,
    ) -> Self {
        let servers = Arc::new(Servers::new(env, options.insecure));
        let host = repository.registry().to_owned();
        Self {
            exec,
            ui,
            transport: InterruptibleTransport::new(exec, (options.transport)(Arc::clone(&servers))),
            servers,
            path: repository.path().to_owned(),
            origin: OnceLock::new(),
            access: options.access,
            login: options.login,
            authorization: Mutex::new(None),
            mount_authorization: Mutex::new(None),
            has_answered: AtomicBool::new(false),
            related: options.related.map(|other| other.path().to_owned()),
            transfers: Transfers::new(ui),
            needs_patch: OnceLock::new(),
            refuses_mount: OnceLock::new(),
            host,
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// How another program can reach the registry as this client does. An insecure registry is asked whether it
    /// speaks TLS; one that does not answer counts as one whose certificate is not checked.
    pub fn connection(&self) -> Connection<'_> {
        let origin = self.origin().ok();
        let security = match origin {
            Some(origin) if !origin.is_tls => Security::PlainHttp,
            Some(origin) if self.servers.is_insecure(origin) => Security::Unchecked,
            Some(_) => Security::Checked,
            // Only an insecure registry is asked.
            None => Security::Unchecked,
        };
        let certificates = origin.map(|origin| self.servers.certificate_files(origin));
        Connection {
            security,
            certificates: certificates.unwrap_or_default(),
            login: self.login.credentials.as_ref(),
        }
    }

    /// Where the registry is. An insecure one is asked first whether it speaks TLS.
    fn origin(&self) -> Result<&Origin, Failure> {
        if let Some(origin) = self.origin.get() {
            return Ok(origin);
        }
        let with_tls = Origin::of_registry(&self.host)
            .ok_or_else(|| Failure::new(format!("`{}` is no address of a registry", self.host)))?;
        let origin = if self.servers.is_insecure(&with_tls) {
            self.ask_for_tls(with_tls)?
        } else {
            with_tls
        };
        Ok(self.origin.get_or_init(|| origin))
    }

    /// The origin at which an insecure registry answers: with TLS, else without.
    fn ask_for_tls(&self, with_tls: Origin) -> Result<Origin, Failure> {
        let without_tls = with_tls.without_tls();
        let question = |origin: &Origin| Request::new("GET", format!("{origin}/v2/"));
        let ask = |origin| self.attempt(&question(origin), None, &mut ResponseHead::read);
        // A server with TLS answers a plain request with 400.
        let is_answer = |response: &Result<Response, NoResponse>| {
            response
                .as_ref()
                .is_ok_and(|response| response.status != 400)
        };
        let mut is_plain = false;
        self.retry(&question(&with_tls), || {
            let encrypted = ask(&with_tls);
            if is_answer(&encrypted) || matches!(encrypted, Err(NoResponse::Interrupted(_))) {
                return encrypted;
            }
            let plain = ask(&without_tls);
            is_plain = is_answer(&plain);
            match encrypted {
                // The server is not there at the moment, or answers without TLS.
                Err(NoResponse::NoTls) => plain,
                _ if is_plain => plain,
                _ => encrypted,
            }
        })?;
        Ok(if is_plain { without_tls } else { with_tls })
    }

    /// The URL of something in the repository.
    pub(super) fn url(&self, rest: &str) -> Result<String, Failure> {
        Ok(format!("{}/v2/{}/{rest}", self.origin()?, self.path))
    }

    /// Sends a request, follows redirects, and authenticates if the registry demands it.
    pub(super) fn send(&self, request: &Request) -> Result<Response> {
        self.send_and(request, ResponseHead::read)
    }

    /// As [`Self::send`]. `read` turns a response's head into the response.
    pub(super) fn send_and(
        &self,
        request: &Request,
        mut read: impl FnMut(ResponseHead) -> std::io::Result<Response>,
    ) -> Result<Response> {
        let mut request = request.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send_to_server(&request, &mut read)?;
            match redirect(&request, &response) {
                None => {
                    let is_elsewhere = !self.is_same_origin(&request.url);
                    response.storage = is_elsewhere.then(|| self.host_of(&request.url));
                    return Ok(response);
                }
                Some(url) => request.url = url,
            }
        }
        // The query of a storage's address is a signature.
        let url = request.url.split('?').next().unwrap_or_default();
        Err(Failure::new(format!(
            "{}: too many redirects, the last one to `{url}`",
            self.host
        ))
        .into())
    }

    /// Sends a request, and authenticates if the registry demands it. Redirects are not followed.
    pub(super) fn send_to_server(
        &self,
        request: &Request,
        read: &mut impl FnMut(ResponseHead) -> std::io::Result<Response>,
    ) -> Result<Response> {
        let mut attempts = 0;
        loop {
            let used = self.authorization_for(&request.url);
            let response = self.retry(request, || self.attempt(request, used.clone(), read))?;
            attempts += 1;
            if response.status != 401
                || attempts == MAX_AUTHENTICATIONS
                || !self.authenticate(&request.url, &response, used.as_ref())?
            {
                return Ok(response);
            }
        }
    }

    /// Sends a request once.
    pub(super) fn attempt(
        &self,
        request: &Request,
        authorization: Option<Authorization>,
        read: &mut impl FnMut(ResponseHead) -> std::io::Result<Response>,
    ) -> Result<Response, NoResponse> {
        let mut request = request.clone();
        request.authorization = authorization.or(request.authorization);
        let head = self.transport.send(&request)?;
        self.has_answered.store(true, Ordering::Relaxed);
        read(head).map_err(|why| match self.exec.stop_signal() {
            Some(signal) => NoResponse::Interrupted(signal),
            None => NoResponse::Network(why.to_string()),
        })
    }

    /// Repeats attempts of a request.
    pub(super) fn retry(
        &self,
        request: &Request,
        attempt: impl FnMut() -> Result<Response, NoResponse>,
    ) -> Result<Response, Failure> {
        let host = self.host_of(&request.url);
        let warn = |why: &str| self.ui.warn(&format!("{host}: {why}"));
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        // While another push writes the link of the same blob, distribution 2 can read it
        // half-written. It then calls the manifest's digest invalid. We computed the digest, so the
        // same request can succeed. Other registries do not see yet what was pushed a moment ago.
        let may_pass = |response: &Response| {
            response.is_transient_error()
                || matches!(request.body, Body::Manifest { .. })
                    && matches!(
                        response.error_code().as_str(),
                        "DIGEST_INVALID"
                            | "MANIFEST_BLOB_UNKNOWN"
                            | "BLOB_UNKNOWN"
                            | "MANIFEST_UNKNOWN"
                    )
        };
        retry(self.exec, has_answered, may_pass, warn, attempt)
            .map_err(|why| refusal::no_response(&host, why))
    }

    /// The host of a URL for messages. The registry has the name that people know.
    fn host_of(&self, url: &str) -> String {
        match Origin::of(url) {
            Some(origin) if self.origin.get() != Some(&origin) => origin.authority(),
            _ => self.host.clone(),
        }
    }

    fn authorization(&self, url: &str) -> MutexGuard<'_, Option<Authorization>> {
        let authorization = if is_mount(url) {
            &self.mount_authorization
        } else {
            &self.authorization
        };
        authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The authorization for a URL. Registries redirect to other hosts, and to their storage, which
    /// must not learn ours.
    pub(super) fn authorization_for(&self, url: &str) -> Option<Authorization> {
        self.is_registry(url)
            .then(|| self.authorization(url).clone())?
    }

    /// The authorization for the address that the registry gave for an upload. Some are not below `/v2/`.
    pub(super) fn authorization_for_upload(&self, url: &str) -> Option<Authorization> {
        self.is_same_origin(url)
            .then(|| self.authorization(url).clone())?
    }

    fn is_same_origin(&self, url: &str) -> bool {
        let origin = Origin::of(url);
        origin.is_some() && origin.as_ref() == self.origin.get()
    }

    /// Whether a URL is of the registry itself, not of its storage or another host.
    pub(super) fn is_registry(&self, url: &str) -> bool {
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        self.is_same_origin(url) && path.starts_with("v2/")
    }

    /// Gets the authorization that the registry demands in its response to a request for the URL,
    /// which was sent with `used`. False if there is no other authorization to try.
    fn authenticate(
        &self,
        url: &str,
        response: &Response,
        used: Option<&Authorization>,
    ) -> Result<bool> {
        if !self.is_registry(url) {
            return Ok(false);
        }
        let mut current = self.authorization(url);
        if current.as_ref() != used {
            // Another thread was faster.
            return Ok(true);
        }
        let login = self.login.credentials.as_ref().map(|found| &found.login);
        let challenges = response.headers("www-authenticate");
        let new = match Challenge::of(challenges.iter().map(String::as_str)) {
            Some(Challenge::Basic) => login.and_then(basic),
            Some(Challenge::Bearer { realm, service }) => {
                let realm = self.token_server(url, &realm, login.is_some())?;
                let ask = |related| {
                    let request =
                        token_request(&realm, &service, &self.path, self.access, related, login);
                    self.retry(&request, || {
                        self.attempt(&request, None, &mut ResponseHead::read)
                    })
                };
                let related = self.related.as_deref().filter(|_| is_mount(url));
                let mut response = ask(related)?;
                if related.is_some() && !response.is_success() {
                    // There may be no such repository, or not for us.
                    response = ask(None)?;
                }
                if !response.is_success() {
                    return Err(self.refused(Action::SignIn, &response).into());
                }
                let token = parse_token(&response.body);
                Some(token.with_context(|| {
                    let answer = response.error_text();
                    format!(
                        "the token server {realm} of {} sent no token: {answer}",
                        self.host
                    )
                })?)
            }
            None => None,
        };
        // Every token is new. A password that was refused would be refused again.
        let is_new = new.is_some() && *current != new;
        if is_new {
            *current = new;
        }
        Ok(is_new)
    }

    /// The address of the token server. A login is not sent without TLS for a registry that has TLS.
    fn token_server(&self, url: &str, realm: &str, has_login: bool) -> Result<String, Failure> {
        let realm = resolve(url, realm).unwrap_or_default();
        let is_plain = Origin::of(&realm)
            .is_none_or(|server| !server.is_tls && !self.servers.is_insecure(&server));
        let registry_has_tls = self.origin.get().is_some_and(|origin| origin.is_tls);
        if has_login && registry_has_tls && is_plain {
            return Err(Failure::new(format!(
                "the token server {realm} of {} has no TLS, so the login is not sent to it",
                self.host
            ))
            .hint("if that is intended, add its host to `registry.insecure` in xtask.local.toml"));
        }
        Ok(realm)
    }

    /// Checks that we may push: starts an upload, and cancels it.
    ///
    /// # Errors
    /// When we may not, with what to do.
    pub fn check_push(&self) -> Result<()> {
        let url = self.url("blobs/uploads/")?;
        let response = self.send(&Request::new("POST", &url))?;
        if response.status != 202 {
            return Err(self.refused(Action::Push, &response).into());
        }
        let location = response.header("location");
        if let Some(upload) = location.and_then(|location| resolve(&url, location)) {
            // Registries that cannot cancel it let it expire.
            let _ = self.send(&Request::new("DELETE", upload));
        }
        Ok(())
    }

    /// The manifest of a tag or digest. `None` if the repository has no such manifest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        let mut request = Request::new("GET", self.url(&format!("manifests/{reference}"))?);
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
        self.put_manifest_and_read(reference, manifest).map(|_| ())
    }

    /// As [`Self::put_manifest`], with the response.
    pub(super) fn put_manifest_and_read(
        &self,
        reference: &str,
        manifest: &RawManifest,
    ) -> Result<Response> {
        let mut request = Request::new("PUT", self.url(&format!("manifests/{reference}"))?);
        request.body = Body::Manifest {
            media_type: &manifest.media_type,
            content: &manifest.content,
        };
        let response = self.send(&request)?;
        if response.is_success() {
            return Ok(response);
        }
        if matches!(response.status, 400 | 403 | 409 | 412)
            && let Some(other) = self.other_image(reference, manifest)
        {
            let tag = format!("{}/{}:{reference}", self.host, self.path);
            let why = response.error_text();
            return Err(Failure::new(format!(
                "{tag} names another image, {other}, and the registry does not let this tag move: {why}"
            ))
            .hints(catalogue::hints_for_code("immutable-tag"))
            .into());
        }
        let action = Action::PushManifest(&manifest.media_type);
        Err(self.refused(action, &response).into())
    }

    /// The digest that a tag names, if it is not the manifest's.
    fn other_image(&self, tag: &str, manifest: &RawManifest) -> Option<String> {
        let is_tag = !tag.contains(':');
        let found = is_tag
            .then(|| self.manifest(tag).ok())
            .flatten()
            .flatten()?;
        (found.digest() != manifest.digest()).then(|| found.digest())
    }

    /// All tags of the repository; empty if the repository does not exist yet.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    pub fn tags(&self) -> Result<Vec<String>> {
        let (mut tags, mut pages) = (Vec::new(), BTreeSet::new());
        let first = self.url("tags/list?n=1000")?;
        let mut response = self.send(&Request::new("GET", &first))?;
        let mut url = first;
        if matches!(response.status, 400 | 422) {
            // The page is too large for this registry.
            url = self.url("tags/list")?;
            response = self.send(&Request::new("GET", &url))?;
        }
        // Harbor has a code of its own.
        let is_missing = matches!(response.error_code().as_str(), "NAME_UNKNOWN" | "NOT_FOUND");
        if response.status == 404 && is_missing {
            return Ok(tags);
        }
        loop {
            if !response.is_success() {
                return Err(self.refused(Action::ListTags, &response).into());
            }
            let page = parse_tags(&response.body).with_context(|| {
                let answer = response.error_text();
                format!(
                    "cannot read the list of tags that {} sent: {answer}",
                    self.host
                )
            })?;
            tags.extend(page);
            // Some registries cut the list without a link. If no size is asked for, they send all of it.
            let whole = (pages.is_empty() && tags.len() == 1000).then_some("list");
            let links = response.headers("link");
            let Some(link) = self.next_page(&links, "tags")?.or(whole) else {
                return Ok(tags);
            };
            let next = resolve(&url, link)
                .filter(|next| pages.len() < MAX_PAGES && pages.insert(next.clone()));
            // A page that leads to an earlier one would make this endless.
            url = next.with_context(|| {
                format!(
                    "the list of tags that {} sent has no end: its next page is `{link}`",
                    self.host
                )
            })?;
            response = self.send(&Request::new("GET", &url))?;
        }
    }

    /// The address of the next page of a list.
    pub(super) fn next_page<'b>(
        &self,
        links: &'b [String],
        list: &str,
    ) -> Result<Option<&'b str>, Failure> {
        next_link(links.iter().map(String::as_str)).map_err(|header| {
            Failure::new(format!(
                "the list of {list} that {} sent may have more pages: its header `Link: {}` is malformed",
                self.host,
                single_line(header)
            ))
        })
    }

    pub(super) fn refused(&self, action: Action, response: &Response) -> Failure {
        refusal::refused(&self.host, &self.path, &self.login, action, response)
    }
}

/// The tags in one page of the list. `None` if the text is no such page.
fn parse_tags(body: &[u8]) -> Option<Vec<String>> {
    let page: Value = serde_json::from_slice(body).ok()?;
    match page.get("tags")? {
        Value::Null => Some(Vec::new()),
        tags => serde_json::from_value(tags.clone()).ok(),
    }
}

/// Where a request is to be sent instead.
pub(super) fn redirect(request: &Request, response: &Response) -> Option<String> {
    let repeats_body = matches!(response.status, 307 | 308);
    let is_read = matches!(request.method, "GET" | "HEAD");
    if !response.is_redirect() || !(is_read || repeats_body) {
        return None;
    }
    resolve(&request.url, response.header("location")?)
}
