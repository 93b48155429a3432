//! A registry in memory that is as strict as the strictest real ones, and has the oddities that are
//! switched on. It is also a token server, a storage that the registry redirects to, and a proxy that
//! leads to itself under any host name, with TLS.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    mem,
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};

use crate::{publication::digest, sandbox::Sandbox};

/// What is unusual about a registry. The default is a strict registry without oddities.
#[allow(clippy::struct_excessive_bools)] // each is an oddity of its own
#[derive(Clone, Default)]
pub struct Oddities {
    /// HEAD and GET of a blob are redirected to a storage at another host, as with S3.
    pub redirects_blobs: bool,
    /// The storage refuses HEAD, as for an address that is signed for GET.
    pub storage_refuses_head: bool,
    /// How the `Location` of an upload is written.
    pub location: Location,
    /// A PUT with the whole blob is 404; POST, PATCH and PUT are needed.
    pub no_single_put: bool,
    /// A tag that names another image cannot be written: the status of the refusal.
    pub immutable_tags: Option<u16>,
    /// The first manifest is refused as `DIGEST_INVALID`. distribution 2 does this while another
    /// push writes the same blobs.
    pub doubts_first_manifest: bool,
    /// A manifest is refused while its `subject` is not there.
    pub needs_subject: bool,
    /// Even writing the same image to a tag again is refused.
    pub refuses_same_tag: bool,
    /// The registry redirects to the storage for blobs that it does not have.
    pub redirects_missing_blobs: bool,
    /// The storage's answer to every GET.
    pub storage_refusal: Option<(u16, &'static str)>,
    /// The answer to a request to take a blob over from another repository.
    pub mount_refusal: Option<u16>,
    /// How long what was written cannot be read, also by the registry's own checks.
    pub lag: Duration,
    /// For this time after a tag was written, every second read returns what it named before.
    pub replica_lag: Duration,
    /// How long the list of tags lacks a tag that was written.
    pub list_lag: Duration,
    /// Another run gives this tag to another image, right after each time that it was written.
    pub rival: Option<&'static str>,
    /// How the list of tags is written.
    pub pages: Pages,
    /// The code of the answer to a request for the tags of a repository that does not exist, in place of
    /// `NAME_UNKNOWN`.
    pub code_of_missing: Option<&'static str>,
    /// A larger `n` in a request for tags is refused.
    pub max_page: Option<usize>,
    /// The first two uploads are refused with 429 and this `Retry-After`.
    pub busy: Busy,
    /// A larger upload is refused with 413 and a page of nginx.
    pub max_upload: Option<usize>,
    /// Docker's media types are refused.
    pub only_oci: bool,
    /// It keeps the list of what refers to a manifest itself.
    pub has_referrers: bool,
    /// Nothing can be pushed before the repository is created.
    pub needs_repository: bool,
    /// Requests need `me` and `marked-password`.
    pub auth: Auth,
    /// The token server answers 403 to anonymous requests.
    pub forbids_anonymous: bool,
    /// The token server gives tokens for one repository only.
    pub refuses_second_scope: bool,
    /// The answer to a push with a token that does not allow it is 403.
    pub forbids_weak_token: bool,
    /// `Expect: 100-continue` is refused with 417.
    pub refuses_expect: bool,
    /// So many requests for a tunnel are refused with 503.
    pub refused_tunnels: usize,
    /// The connection is closed in the middle of a download, this many times.
    pub drops_downloads: usize,
    /// A download cannot be continued: `Range` is ignored.
    pub ignores_range: bool,
    /// It does not speak TLS.
    pub is_plain: bool,
    /// Its certificate is an authority itself, as that of `openssl req -x509`.
    pub is_self_signed: bool,
    /// It accepts only clients with a certificate of its authority.
    pub wants_client_certificate: bool,
    /// It never answers after it got a blob.
    pub hangs: bool,
    /// The answer to the start of every upload.
    pub push_refusal: Option<(u16, &'static str)>,
    /// The answer to every request for the list of tags.
    pub list_refusal: Option<(u16, &'static str)>,
    /// The answer to every request for a blob.
    pub blob_refusal: Option<(u16, &'static str)>,
    /// The answer to every request.
    pub answers: Option<(u16, &'static str)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Location {
    #[default]
    Path,
    Relative,
    /// With `:443`.
    DefaultPort,
    /// `http://`, behind a TLS proxy.
    WithoutTls,
    OtherHost,
    /// Not below `/v2/`.
    OtherPath,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Pages {
    #[default]
    Whole,
    /// Two tags a page, with a link of this form; `{}` stands for the path.
    Linked(&'static str),
    /// At most as many tags as asked for, without a link to the rest.
    Cut,
    /// The second page leads to itself.
    Endless,
    /// The second page does not exist.
    Broken,
    /// There is no list.
    Missing,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Busy {
    #[default]
    No,
    /// `Retry-After` is a date in two seconds.
    Date,
    /// `Retry-After` is a time since 1970, in two seconds.
    Epoch,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    None,
    Basic,
    Bearer,
    /// Every login is refused.
    Refusing,
    /// Every token is refused, and the next one is another.
    NewTokens,
}

const USER: &str = "Basic bWU6bWFya2VkLXBhc3N3b3Jk";

#[derive(Default)]
struct Store {
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    has_doubted: bool,
    /// Media type and content by digest.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, (String, Instant)>,
    /// What each tag named before it was written.
    outdated: BTreeMap<String, Option<String>>,
    reads: usize,
    /// The tags that the list does not show.
    unlisted: BTreeSet<String>,
    /// The blobs whose downloads it refuses.
    refused: BTreeSet<String>,
    written: BTreeMap<String, Instant>,
    refused_uploads: usize,
    refused_tunnels: usize,
    dropped: usize,
    requests: Vec<String>,
    connections: usize,
}

impl Store {
    /// Adds an image that names no version, another one each time. Returns its digest.
    fn add_other_image(&mut self) -> String {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let number = self.manifests.len().to_string();
        let other = json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": [],
            "annotations": { "number": number },
        });
        let content = other.to_string().into_bytes();
        let name = digest(&content);
        self.manifests
            .insert(name.clone(), (media_type.to_owned(), content));
        name
    }

    /// Stores a manifest, and gives it a tag. Returns its descriptor.
    fn add(&mut self, media_type: &str, manifest: &Value, tag: Option<&str>) -> Value {
        let content = manifest.to_string().into_bytes();
        let (name, size) = (digest(&content), content.len());
        let old = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        self.manifests
            .insert(name.clone(), (media_type.to_owned(), content));
        if let Some(tag) = tag {
            self.tags.insert(tag.to_owned(), (name.clone(), old));
        }
        json!({ "mediaType": media_type, "digest": name, "size": size })
    }

    /// The descriptors of the manifests that refer to a digest.
    fn referrers(&self, subject: &str) -> Vec<Value> {
        let refers = |content: &[u8]| {
            let manifest: Value = serde_json::from_slice(content).unwrap();
            manifest["subject"]["digest"] == subject
        };
        let found = self
            .manifests
            .iter()
            .filter(|(_, (_, content))| refers(content));
        found
            .map(|(name, (media_type, content))| {
                json!({ "mediaType": media_type, "digest": name, "size": content.len() })
            })
            .collect()
    }
}

/// A running registry.
pub struct FakeRegistry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    server: Arc<Server>,
}

struct Server {
    address: String,
    oddities: Oddities,
    store: Mutex<Store>,
    authority: CertifiedIssuer<'static, KeyPair>,
    numbers: AtomicU32,
}

impl FakeRegistry {
    pub fn start(oddities: Oddities) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), oddities)
    }

    pub fn listen(listener: TcpListener, oddities: Oddities) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let mut params = CertificateParams::new(vec!["ghcr.io".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let server = Arc::new(Server {
            address: address.clone(),
            oddities,
            store: Mutex::default(),
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            numbers: AtomicU32::new(1),
        });
        let registry = Self {
            address,
            server: Arc::clone(&server),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                server.store.lock().unwrap().connections += 1;
                // An error of a client that is gone is no error of the registry.
                thread::spawn(move || drop(server.accept(client)));
            }
        });
        registry
    }

    /// The authority of all its certificates, in PEM.
    pub fn authority(&self) -> String {
        self.server.authority.pem()
    }

    /// A certificate for a client, and its key, in PEM.
    pub fn client_certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.server.authority).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    /// Lets the commands of a sandbox find this registry under every name.
    pub fn serve_sandbox(&self, sandbox: Sandbox) -> Sandbox {
        sandbox.proxy(&self.address, &self.authority())
    }

    /// The tags, each with its digest.
    pub fn tags(&self) -> BTreeMap<String, String> {
        let store = self.server.store.lock().unwrap();
        let tags = store.tags.iter();
        tags.map(|(tag, (digest, _))| (tag.clone(), digest.clone()))
            .collect()
    }

    /// Gives tags to some other image.
    pub fn add_tags(&self, tags: &[&str]) {
        let other = self.server.store.lock().unwrap().add_other_image();
        self.set_tags(tags, &other);
    }

    /// Gives tags to an image, as if that had been done long ago.
    pub fn set_tags(&self, tags: &[&str], digest: &str) {
        let mut store = self.server.store.lock().unwrap();
        let old = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        for tag in tags {
            store
                .tags
                .insert((*tag).to_owned(), (digest.to_owned(), old));
        }
    }

    pub fn remove_tags(&self, tags: &[&str]) {
        let mut store = self.server.store.lock().unwrap();
        store.tags.retain(|tag, _| !tags.contains(&tag.as_str()));
    }

    /// Lets the list of tags lack these.
    pub fn hide_from_list(&self, tags: &[&str]) {
        let mut store = self.server.store.lock().unwrap();
        store.unlisted = tags.iter().map(|tag| (*tag).to_owned()).collect();
    }

    /// Lets it refuse the download of a blob.
    pub fn refuse_blob(&self, digest: &str) {
        let mut store = self.server.store.lock().unwrap();
        store.refused.insert(digest.to_owned());
    }

    /// Lets it lose a blob.
    pub fn lose_blob(&self, digest: &str) {
        let mut store = self.server.store.lock().unwrap();
        store.blobs.retain(|(_, one), _| one != digest);
        store.refused.remove(digest);
    }

    /// A manifest or index.
    pub fn manifest(&self, digest: &str) -> Value {
        let store = self.server.store.lock().unwrap();
        serde_json::from_slice(&store.manifests[digest].1).unwrap()
    }

    /// Stores an artifact with a layer in a repository: a signature, or an attestation. It refers to a digest, or has a
    /// tag. Returns its descriptor.
    pub fn add_artifact(
        &self,
        repository: &str,
        subject: Option<&str>,
        tag: Option<&str>,
        content: &str,
    ) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut store = self.server.store.lock().unwrap();
        let mut blob = |content: &str| {
            let digest = digest(content.as_bytes());
            let key = (repository.to_owned(), digest.clone());
            store.blobs.insert(key, content.as_bytes().to_vec());
            json!({ "mediaType": "application/x", "digest": digest, "size": content.len() })
        };
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": blob("{}"), "layers": [blob(content)],
        });
        if let Some(subject) = subject {
            manifest["subject"] = json!({ "digest": subject });
        }
        store.add(media_type, &manifest, tag)
    }

    /// Gives a tag to an index of manifests.
    pub fn add_index(&self, tag: &str, manifests: &[Value]) {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let mut store = self.server.store.lock().unwrap();
        store.add(media_type, &index, Some(tag));
    }

    /// The digests in the index that has a tag; none if there is no such tag.
    pub fn index(&self, tag: &str) -> Vec<String> {
        let store = self.server.store.lock().unwrap();
        let Some((name, _)) = store.tags.get(tag) else {
            return Vec::new();
        };
        let index: Value = serde_json::from_slice(&store.manifests[name].1).unwrap();
        let manifests = index["manifests"].as_array().unwrap().iter();
        manifests
            .map(|one| one["digest"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The digests of the manifests that refer to a digest.
    pub fn referrers(&self, subject: &str) -> Vec<String> {
        let store = self.server.store.lock().unwrap();
        let found = store.referrers(subject).into_iter();
        found
            .map(|one| one["digest"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The requests so far: method, path, status, and `auth` if they had an `Authorization`.
    pub fn requests(&self) -> Vec<String> {
        self.server.store.lock().unwrap().requests.clone()
    }

    /// How many requests begin so.
    pub fn count(&self, begin: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|line| line.starts_with(begin))
            .count()
    }

    pub fn connections(&self) -> usize {
        self.server.store.lock().unwrap().connections
    }

    pub fn forget_requests(&self) {
        let mut store = self.server.store.lock().unwrap();
        store.requests.clear();
        store.connections = 0;
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// As whom the client knows the server.
    base: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: u16) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn with_body(status: u16, body: &str) -> Answer {
    let mut answer = answer(status);
    answer.body = body.as_bytes().to_vec();
    answer
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    with_body(status, &body.to_string())
}

impl Answer {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Server {
    /// Serves a connection: plain, TLS, or a tunnel to either.
    fn accept(&self, client: TcpStream) -> std::io::Result<()> {
        let mut first = [0];
        client.peek(&mut first)?;
        if first[0] == 0x16 && self.oddities.is_plain {
            return (&client).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
        if first[0] == 0x16 {
            let name = self
                .address
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned();
            let base = format!("https://{}", self.address);
            return self.serve_tls(client, &name, &base);
        }
        let base = format!("http://{}", self.address);
        self.serve(client, &base)
    }

    /// A certificate of the authority, and its key.
    fn new_certificate(&self, name: &str) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.authority).unwrap();
        (leaf.der().clone(), key.serialize_der())
    }

    fn serve_tls(&self, client: impl Read + Write, name: &str, base: &str) -> std::io::Result<()> {
        let (certificate, key) = if self.oddities.is_self_signed {
            let key = self.authority.key().serialize_der();
            (self.authority.der().clone(), key)
        } else {
            self.new_certificate(name)
        };
        let key = PrivateKeyDer::try_from(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if self.oddities.wants_client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![certificate], key).unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        self.serve_requests(StreamOwned::new(connection, client), base)
    }

    /// The requests of an encrypted connection. In a tunnel there is no tunnel, or this would be
    /// recursive without end for the compiler.
    fn serve_requests(&self, stream: impl Read + Write, base: &str) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = self.next_request(&mut stream, base)? {
            self.respond(&mut stream, &request)?;
        }
        Ok(())
    }

    /// The requests of a connection that is not encrypted, and a tunnel through it.
    fn serve(&self, stream: TcpStream, base: &str) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = self.next_request(&mut stream, base)? {
            if request.method != "CONNECT" {
                self.respond(&mut stream, &request)?;
                continue;
            }
            if self.refuses_tunnel() {
                stream
                    .get_mut()
                    .write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            let line = format!("CONNECT {} 200", request.path);
            self.store.lock().unwrap().requests.push(line);
            let mut stream = stream.into_inner();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            let host = request.path.split(':').next().unwrap_or_default();
            return self.serve_tls(stream, host, &format!("https://{host}"));
        }
        Ok(())
    }

    fn refuses_tunnel(&self) -> bool {
        let mut store = self.store.lock().unwrap();
        let refuses = store.refused_tunnels < self.oddities.refused_tunnels;
        store.refused_tunnels += usize::from(refuses);
        refuses
    }

    fn next_request(
        &self,
        stream: &mut BufReader<impl Read + Write>,
        base: &str,
    ) -> std::io::Result<Option<Request>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head)? == 0 {
                return Ok(None);
            }
        }
        let mut request = parse(&String::from_utf8_lossy(&head), base);
        if self.is_too_large(&request) {
            // Refused without being read.
            return Ok(Some(request));
        }
        if request.header("expect") == "100-continue" {
            if self.oddities.refuses_expect {
                return Ok(Some(request));
            }
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let length = request.header("content-length").parse().unwrap_or(0);
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    fn respond(
        &self,
        stream: &mut BufReader<impl Read + Write>,
        request: &Request,
    ) -> std::io::Result<()> {
        if self.oddities.hangs && request.method == "PUT" {
            self.store.lock().unwrap().requests.push("hangs".to_owned());
            thread::sleep(Duration::from_secs(60));
        }
        let answer = self.answer(request);
        let auth = if request.header("authorization").is_empty() {
            ""
        } else {
            " auth"
        };
        let line = format!(
            "{} {} {}{auth}",
            request.method, request.path, answer.status
        );
        self.store.lock().unwrap().requests.push(line);
        let is_cut = self.is_cut(request, &answer);
        write_answer(stream.get_mut(), &request.method, &answer, is_cut)?;
        if self.is_too_large(request) {
            // As nginx does (`lingering_close`): if the rest of the body were not read, the kernel would reset the
            // connection, and the client could lose the answer.
            std::io::copy(stream, &mut std::io::sink())?;
        }
        if is_cut || self.is_too_large(request) {
            return Err(std::io::Error::other("the connection is closed"));
        }
        Ok(())
    }

    fn is_too_large(&self, request: &Request) -> bool {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        self.oddities.max_upload.is_some_and(|max| length > max)
    }

    fn is_cut(&self, request: &Request, answer: &Answer) -> bool {
        let mut store = self.store.lock().unwrap();
        let is_layer = request.method == "GET"
            && request.path.contains("/blobs/sha256:")
            && answer.body.len() > 1000;
        let is_cut = is_layer && store.dropped < self.oddities.drops_downloads;
        store.dropped += usize::from(is_cut);
        is_cut
    }

    fn answer(&self, request: &Request) -> Answer {
        let oddities = &self.oddities;
        if let Some((status, body)) = oddities.answers {
            return with_body(status, body).with("Retry-After", "0");
        }
        if request.path == "/token" {
            return self.token(request);
        }
        if oddities.refuses_expect && !request.header("expect").is_empty() {
            return answer(417);
        }
        if let Some(refused) = self.authenticate(request) {
            return refused;
        }
        let is_post = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH");
        if is_post && request.header("content-length").is_empty() {
            return refusal(411, "", "");
        }
        let path = request.path.replace("/uploads-of/", "/v2/");
        let Some(rest) = path.strip_prefix("/v2/") else {
            return match request.path.strip_prefix("/storage/") {
                Some(digest) => self.storage(request, digest),
                None => answer(404),
            };
        };
        if rest.is_empty() {
            return answer(200);
        }
        if let Some((status, body)) = oddities.push_refusal
            && is_post
        {
            return with_body(status, body);
        }
        if is_post && oddities.needs_repository {
            return refusal(404, "NAME_UNKNOWN", "The repository does not exist");
        }
        if let Some((name, digest)) = rest.split_once("/blobs/sha256:") {
            return self.blob(request, name, &format!("sha256:{digest}"));
        }
        if let Some((name, upload)) = rest.split_once("/blobs/uploads/") {
            return self.upload(request, name, upload);
        }
        if let Some((name, reference)) = rest.split_once("/manifests/") {
            return match request.method.as_str() {
                "PUT" => self.put_manifest(request, name, reference),
                _ => self.get_manifest(request, reference),
            };
        }
        if let Some((_, subject)) = rest.split_once("/referrers/")
            && oddities.has_referrers
        {
            let found = self.store.lock().unwrap().referrers(subject);
            return with_body(200, &json!({ "manifests": found }).to_string());
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            if let Some((status, body)) = oddities.list_refusal {
                return with_body(status, body);
            }
            return self.list(request, name);
        }
        answer(404)
    }

    fn authenticate(&self, request: &Request) -> Option<Answer> {
        let shown = request.header("authorization");
        let writes = !matches!(request.method.as_str(), "GET" | "HEAD");
        let unauthorized = |challenge: String| {
            let answer = refusal(401, "UNAUTHORIZED", "authentication required");
            Some(answer.with("WWW-Authenticate", challenge))
        };
        if request.path.starts_with("/storage/") {
            // Storages refuse a request that is signed twice.
            return (!shown.is_empty()).then(|| refusal(400, "", "only one authentication"));
        }
        match self.oddities.auth {
            Auth::None => None,
            Auth::Basic if shown == USER => None,
            Auth::Basic | Auth::Refusing => unauthorized("Basic realm=\"x\"".to_owned()),
            Auth::NewTokens => unauthorized(format!(
                "Bearer realm=\"{}/token\",service=\"fake\"",
                request.base
            )),
            Auth::Bearer if shown == "Bearer push" || (shown == "Bearer pull" && !writes) => None,
            Auth::Bearer if shown == "Bearer pull" && self.oddities.forbids_weak_token => {
                Some(refusal(403, "DENIED", "unauthenticated request"))
            }
            Auth::Bearer => unauthorized(format!(
                "Bearer realm=\"{}/token\",service=\"fake\"",
                request.base
            )),
        }
    }

    fn token(&self, request: &Request) -> Answer {
        let shown = request.header("authorization");
        if shown.is_empty() && self.oddities.forbids_anonymous {
            return refusal(403, "DENIED", "requested access to the resource is denied");
        }
        if !shown.is_empty() && shown != USER {
            return refusal(401, "UNAUTHORIZED", "wrong password");
        }
        let scope = request.query.get("scope").map_or("", String::as_str);
        if self.oddities.refuses_second_scope && scope.contains(' ') {
            return refusal(400, "UNSUPPORTED", "one repository at a time");
        }
        let may_push = scope.split(' ').any(|scope| scope.ends_with(":pull,push")) && shown == USER;
        let mut answer = answer(200);
        let number = self.numbers.fetch_add(1, Ordering::SeqCst).to_string();
        let token = match self.oddities.auth {
            Auth::NewTokens => number.as_str(),
            _ if may_push => "push",
            _ => "pull",
        };
        answer.body = json!({ "token": token }).to_string().into_bytes();
        answer
    }

    /// Whether something that was written can be read already.
    fn is_visible(&self, written: Option<&Instant>) -> bool {
        written.is_none_or(|written| written.elapsed() >= self.oddities.lag)
    }

    fn blob(&self, request: &Request, name: &str, digest: &str) -> Answer {
        if let Some((status, body)) = self.oddities.blob_refusal
            && request.method == "GET"
        {
            return refusal(status, "DENIED", body);
        }
        let store = self.store.lock().unwrap();
        if request.method == "GET" && store.refused.contains(digest) {
            return refusal(403, "DENIED", "not now");
        }
        let visible = self.is_visible(store.written.get(digest));
        let key = (name.to_owned(), digest.to_owned());
        let content = store.blobs.get(&key).filter(|_| visible);
        if content.is_none() && !self.oddities.redirects_missing_blobs {
            return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry");
        }
        if self.oddities.redirects_blobs {
            let storage = request.base.replace("127.0.0.1", "localhost");
            return answer(307).with("Location", format!("{storage}/storage/{digest}?signed=1"));
        }
        part(request, content.unwrap(), self.oddities.ignores_range)
    }

    fn storage(&self, request: &Request, digest: &str) -> Answer {
        if let Some((status, body)) = self.oddities.storage_refusal
            && request.method == "GET"
        {
            return with_body(status, body);
        }
        if request.method == "HEAD" && self.oddities.storage_refuses_head {
            return answer(403);
        }
        let store = self.store.lock().unwrap();
        let mut blobs = store.blobs.iter();
        blobs
            .find(|((_, name), _)| name == digest)
            .map(|(_, content)| content)
            .map_or_else(|| answer(404), |content| part(request, content, false))
    }

    fn upload(&self, request: &Request, name: &str, id: &str) -> Answer {
        let oddities = &self.oddities;
        if self.is_too_large(request) {
            // As nginx, which does not read the rest.
            let mut answer = answer(413).with("Connection", "close");
            answer.body =
                b"<html><head><title>413 Request Entity Too Large</title></head></html>".to_vec();
            return answer;
        }
        let mut store = self.store.lock().unwrap();
        let started = |id: &str| {
            let path = format!("/v2/{name}/blobs/uploads/{id}?_state=x%3D");
            let location = match oddities.location {
                Location::Path => path,
                Location::OtherPath => path.replace("/v2/", "/uploads-of/"),
                Location::Relative => format!("{id}?_state=x%3D"),
                Location::DefaultPort => format!("{}:443{path}", request.base),
                Location::WithoutTls => {
                    format!("{}{path}", request.base.replace("https:", "http:"))
                }
                Location::OtherHost => {
                    format!("{}{path}", request.base.replace("127.0.0.1", "localhost"))
                }
            };
            answer(202).with("Location", location)
        };
        match request.method.as_str() {
            "POST" => {
                let mount = request.query.get("mount").zip(request.query.get("from"));
                if let (Some(_), Some(status)) = (mount, oddities.mount_refusal) {
                    return refusal(status, "DENIED", "no access to the other repository");
                }
                if let Some((digest, from)) = mount
                    && let Some(content) = store.blobs.get(&(from.clone(), digest.clone())).cloned()
                {
                    store
                        .blobs
                        .insert((name.to_owned(), digest.clone()), content);
                    return answer(201);
                }
                let id = self.numbers.fetch_add(1, Ordering::SeqCst).to_string();
                store.uploads.insert(id.clone(), Vec::new());
                started(&id)
            }
            "DELETE" => {
                store.uploads.remove(id);
                answer(204)
            }
            _ if !store.uploads.contains_key(id) => refusal(
                404,
                "BLOB_UPLOAD_UNKNOWN",
                "blob upload unknown to registry",
            ),
            "PATCH" => {
                let upload = store.uploads.get_mut(id).unwrap();
                upload.extend_from_slice(&request.body);
                started(id)
            }
            _ => {
                if oddities.busy != Busy::No && store.refused_uploads < 2 {
                    store.refused_uploads += 1;
                    let until = SystemTime::now() + Duration::from_secs(2);
                    let seconds = until
                        .duration_since(SystemTime::UNIX_EPOCH)
                        .unwrap()
                        .as_secs();
                    let value = match oddities.busy {
                        Busy::Date => httpdate::fmt_http_date(until),
                        _ => seconds.to_string(),
                    };
                    return refusal(429, "TOOMANYREQUESTS", "rate limited")
                        .with("Retry-After", value);
                }
                if oddities.no_single_put && !request.body.is_empty() {
                    return refusal(404, "BLOB_UNKNOWN", "");
                }
                let mut content = store.uploads.remove(id).unwrap();
                content.extend_from_slice(&request.body);
                let digest = digest(&content);
                if request.query.get("digest") != Some(&digest) {
                    return refusal(400, "DIGEST_INVALID", "provided digest did not match");
                }
                store.written.insert(digest.clone(), Instant::now());
                store.blobs.insert((name.to_owned(), digest), content);
                answer(201)
            }
        }
    }

    fn put_manifest(&self, request: &Request, repository: &str, reference: &str) -> Answer {
        let oddities = &self.oddities;
        let media_type = request.header("content-type");
        if oddities.only_oci && media_type.contains("docker") {
            return refusal(415, "MANIFEST_INVALID", "manifest invalid");
        }
        let mut store = self.store.lock().unwrap();
        if oddities.doubts_first_manifest && !mem::replace(&mut store.has_doubted, true) {
            let message = "provided digest did not match uploaded content";
            return refusal(400, "DIGEST_INVALID", message);
        }
        let name = digest(&request.body);
        let manifest: Value = serde_json::from_slice(&request.body).unwrap();
        let digests = |value: &Value| -> Vec<String> {
            let all = value.as_array().cloned().unwrap_or_default();
            all.iter()
                .map(|one| one["digest"].as_str().unwrap().to_owned())
                .collect()
        };
        let mut blobs = digests(&manifest["layers"]);
        blobs.extend(manifest["config"]["digest"].as_str().map(str::to_owned));
        let known = blobs.iter().all(|blob| {
            store
                .blobs
                .contains_key(&(repository.to_owned(), blob.clone()))
                && self.is_visible(store.written.get(blob))
        }) && digests(&manifest["manifests"]).iter().all(|child| {
            store.manifests.contains_key(child) && self.is_visible(store.written.get(child))
        });
        if !known {
            return refusal(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
        }
        let subject = manifest["subject"]["digest"].as_str();
        let is_early = subject.is_some_and(|subject| !store.manifests.contains_key(subject));
        if oddities.needs_subject && is_early {
            return refusal(404, "MANIFEST_UNKNOWN", "the subject is unknown");
        }
        if reference.starts_with("sha256:") {
            if reference != name {
                return refusal(400, "DIGEST_INVALID", "");
            }
        } else {
            let now = store.tags.get(reference).map(|(digest, _)| digest);
            let is_moved = now.is_some_and(|now| *now != name);
            let is_refused = is_moved || (now.is_some() && oddities.refuses_same_tag);
            if let Some(status) = oddities.immutable_tags.filter(|_| is_refused) {
                return refusal(status, "TAG_INVALID", "the tag is immutable");
            }
            let named = if oddities.rival == Some(reference) {
                store.add_other_image()
            } else {
                name.clone()
            };
            let tag = (named, Instant::now());
            let before = store.tags.insert(reference.to_owned(), tag);
            store
                .outdated
                .insert(reference.to_owned(), before.map(|(name, _)| name));
        }
        store
            .written
            .entry(name.clone())
            .or_insert_with(Instant::now);
        store
            .manifests
            .insert(name, (media_type.to_owned(), request.body.clone()));
        match subject {
            Some(subject) if oddities.has_referrers => answer(201).with("OCI-Subject", subject),
            Some(_) | None => answer(201),
        }
    }

    fn get_manifest(&self, request: &Request, reference: &str) -> Answer {
        let mut store = self.store.lock().unwrap();
        store.reads += 1;
        let unknown = || refusal(404, "MANIFEST_UNKNOWN", "manifest unknown");
        let (name, written) = match store.tags.get(reference) {
            Some((_, written))
                if written.elapsed() < self.oddities.replica_lag
                    && store.reads.is_multiple_of(2) =>
            {
                match store.outdated.get(reference).and_then(Option::as_ref) {
                    Some(before) => (before.as_str(), None),
                    None => return unknown(),
                }
            }
            Some((name, written)) => (name.as_str(), Some(written)),
            None => (reference, store.written.get(reference)),
        };
        let visible = self.is_visible(written);
        let Some((media_type, content)) = store.manifests.get(name).filter(|_| visible) else {
            return unknown();
        };
        if !request.header("accept").contains(media_type.as_str()) {
            return unknown();
        }
        let mut answer = answer(200)
            .with("Content-Type", media_type.as_str())
            .with("Docker-Content-Digest", name);
        answer.body.clone_from(content);
        answer
    }

    fn list(&self, request: &Request, name: &str) -> Answer {
        let store = self.store.lock().unwrap();
        let wanted: usize = request
            .query
            .get("n")
            .and_then(|n| n.parse().ok())
            .unwrap_or(100);
        if self.oddities.max_page.is_some_and(|max| wanted > max) && request.query.contains_key("n")
        {
            return refusal(
                400,
                "PAGINATION_NUMBER_INVALID",
                "invalid number of results requested",
            );
        }
        if store.tags.is_empty() {
            let code = self.oddities.code_of_missing.unwrap_or("NAME_UNKNOWN");
            return refusal(404, code, "repository name not known to registry");
        }
        let lag = self.oddities.list_lag;
        let is_listed = |tag: &String, written: &Instant| {
            written.elapsed() >= lag && !store.unlisted.contains(tag)
        };
        let tags = store.tags.iter();
        let tags = tags.filter(|(tag, (_, written))| is_listed(tag, written));
        let tags: Vec<_> = tags.map(|(tag, _)| tag.clone()).collect();
        let last = request.query.get("last").map_or("", String::as_str);
        let size = match self.oddities.pages {
            Pages::Cut if request.query.contains_key("n") => wanted,
            Pages::Whole | Pages::Cut => tags.len(),
            Pages::Missing => return answer(404),
            Pages::Broken if !last.is_empty() => return answer(404),
            _ => 2,
        };
        let rest: BTreeSet<_> = tags.into_iter().filter(|tag| tag.as_str() > last).collect();
        let page: Vec<_> = rest.iter().take(size).cloned().collect();
        let path = match (self.oddities.pages, page.last()) {
            (Pages::Endless, Some(_)) if last.is_empty() => {
                format!("/v2/{name}/tags/list?last={}", page[0])
            }
            (Pages::Endless, _) => format!("/v2/{name}/tags/list?last={last}"),
            (Pages::Cut, _) => String::new(),
            (_, Some(end)) if rest.len() > size => format!("/v2/{name}/tags/list?last={end}&n=2"),
            _ => String::new(),
        };
        let mut answer = answer(200);
        if !path.is_empty() {
            let form = match self.oddities.pages {
                Pages::Linked(form) => form,
                _ => "<{}>; rel=\"next\"",
            };
            for link in form.split('|') {
                answer = answer.with(
                    "Link",
                    link.replace("{}", &path)
                        .replace("{query}", path.split('?').nth(1).unwrap_or_default()),
                );
            }
        }
        answer.body = json!({ "name": name, "tags": page })
            .to_string()
            .into_bytes();
        answer
    }
}

/// The part of a content that `Range: bytes=N-` asks for.
fn part(request: &Request, content: &[u8], ignores_range: bool) -> Answer {
    let range = request.header("range").strip_prefix("bytes=");
    let begin = range.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    let mut answer = match begin {
        Some(begin) if !ignores_range => {
            let mut answer = answer(206);
            answer.body = content[begin..].to_vec();
            answer
        }
        _ => {
            let mut answer = answer(200);
            answer.body = content.to_vec();
            answer
        }
    };
    answer = answer.with("Content-Type", "application/octet-stream");
    answer
}

fn parse(head: &str, base: &str) -> Request {
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines.filter_map(|line| line.split_once(':'));
    Request {
        method,
        path: path.to_owned(),
        query: parse_query(query),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: Vec::new(),
        base: base.to_owned(),
    }
}

/// The parameters. The values of a repeated one are separated by spaces.
fn parse_query(query: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::<String, String>::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let values = parameters.entry(name.to_owned()).or_default();
        values.push(' ');
        values.push_str(&decode(value));
    }
    for values in parameters.values_mut() {
        *values = values.trim_start().to_owned();
    }
    parameters
}

fn decode(text: &str) -> String {
    text.replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",")
}

fn write_answer(
    stream: &mut impl Write,
    method: &str,
    answer: &Answer,
    is_cut: bool,
) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method != "HEAD" {
        let length = if is_cut {
            answer.body.len() / 2
        } else {
            answer.body.len()
        };
        stream.write_all(&answer.body[..length])?;
    }
    stream.flush()
}
