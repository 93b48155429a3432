//! The HTTP client: connections to servers, which are kept and used again.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ureq::{
    Agent, AsSendBody, Proxy, RequestExt as _, SendBody, Timeout,
    http::{self, header},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, SocksConnector, TcpConnector},
    },
};
use xtask_core::{
    Body, NoResponse, Origin, RegistryCertificates, Request, ResponseHead, Servers, Transport,
};

use crate::tls::{self, TlsConnector};

/// How long resolving the host's name may take, and then connecting, with TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long a connection may stand still while a body is sent or received.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// From this size on, in bytes, a server is asked whether it takes a body before that is sent: it
/// may refuse its size.
const ASK_FIRST: u64 = 1024 * 1024;
/// How many connections to one server are kept.
const KEPT_CONNECTIONS: usize = 8;

/// The connections to all servers.
pub struct Http {
    servers: Arc<Servers>,
    agents: Mutex<HashMap<Origin, Agent>>,
    /// Whether a server, or a proxy before it, refused to be asked whether it takes a body.
    /// <https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1>
    refuses_expect: AtomicBool,
}

impl Transport for Http {
    fn send(&self, request: &Request) -> Result<ResponseHead, NoResponse> {
        let origin = Origin::of(&request.url)
            .ok_or_else(|| NoResponse::Network(format!("`{}` is no HTTP address", request.url)))?;
        let agent = self.agent(&origin)?;
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(&request.url);
        if !request.accept.is_empty() {
            builder = builder.header(header::ACCEPT, &request.accept);
        }
        if request.offset > 0 {
            builder = builder.header(header::RANGE, format!("bytes={}-", request.offset));
        }
        if let Some(authorization) = &request.authorization {
            builder = builder.header(header::AUTHORIZATION, &authorization.0);
        }
        let has_body = !matches!(request.method, "GET" | "HEAD" | "DELETE");
        if !has_body {
            let sent = run(&agent, built(builder.body(()))?, request.time_limit);
            return self.head(&origin, sent);
        }
        let (media_type, mut content) = match &request.body {
            Body::None => ("application/octet-stream", Content::new(io::empty(), 0)),
            Body::Manifest {
                media_type,
                content,
            } => (*media_type, Content::new(*content, content.len() as u64)),
            Body::Form(form) => {
                let form = form.encode().into_bytes();
                let size = form.len() as u64;
                let media_type = "application/x-www-form-urlencoded";
                (media_type, Content::new(Cursor::new(form), size))
            }
            Body::Upload(upload) => {
                let content =
                    (upload.open)().map_err(|why| NoResponse::Content(why.to_string()))?;
                let media_type = "application/octet-stream";
                (media_type, Content::new(content, upload.size))
            }
        };
        let size = content.left;
        // Some registries insist on the length even if it is 0.
        builder = builder
            .header(header::CONTENT_TYPE, media_type)
            .header(header::CONTENT_LENGTH, size);
        let asks_first = size >= ASK_FIRST && !self.refuses_expect.load(Ordering::Relaxed);
        if asks_first {
            builder = builder.header(header::EXPECT, "100-continue");
        }
        let body = built(builder.body(SendBody::from_reader(&mut content)))?;
        let sent = run(&agent, body, request.time_limit);
        if let Some(why) = content.failed {
            return Err(NoResponse::Content(why));
        }
        let head = self.head(&origin, sent)?;
        if asks_first && head.status == 417 {
            self.refuses_expect.store(true, Ordering::Relaxed);
        }
        Ok(head)
    }

    fn shut_down(&self) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, agent) in agents.drain() {
            agent.shutdown();
        }
    }
}

impl Http {
    pub fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            agents: Mutex::default(),
            refuses_expect: AtomicBool::new(false),
        }
    }

    fn head(
        &self,
        origin: &Origin,
        sent: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ResponseHead, NoResponse> {
        let response = sent.map_err(|why| self.no_response(origin, why))?;
        let (head, body) = response.into_parts();
        Ok(ResponseHead {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Box::new(body.into_with_config().limit(u64::MAX).reader()),
        })
    }

    /// The connections to a server.
    fn agent(&self, origin: &Origin) -> Result<Agent, NoResponse> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(origin) {
            return Ok(agent.clone());
        }
        let agent = self.new_agent(origin)?;
        agents.insert(origin.clone(), agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, origin: &Origin) -> Result<Agent, NoResponse> {
        let proxy = match self.servers.proxy(origin) {
            None => None,
            Some(url) => Some(Proxy::new(url).map_err(|_| {
                proxy_failure(
                    without_password(url),
                    "this is no address of a proxy",
                    false,
                )
            })?),
        };
        let config = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("agent-runner-xtask/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_idle_connections_per_host(KEPT_CONNECTIONS)
            .max_idle_connections(KEPT_CONNECTIONS)
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_per_read(Some(IDLE_LIMIT))
            .timeout_per_write(Some(IDLE_LIMIT))
            .build();
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default());
        let resolver = DefaultResolver::default();
        if !origin.is_tls {
            return Ok(Agent::with_parts(config, connector, resolver));
        }
        let of_registry = self
            .servers
            .certificates(origin)
            .map_err(NoResponse::Certificate)?;
        let checks = !self.servers.is_insecure(origin);
        let to_host = tls::config(of_registry, checks).map_err(NoResponse::Certificate)?;
        let to_proxy = if self.servers.proxy(origin).is_some() {
            tls::config(RegistryCertificates::default(), true).map_err(NoResponse::Certificate)?
        } else {
            Arc::clone(&to_host)
        };
        let tls = TlsConnector {
            host: origin.host.clone(),
            to_host,
            to_proxy,
        };
        Ok(Agent::with_parts(config, connector.chain(tls), resolver))
    }

    fn no_response(&self, origin: &Origin, error: ureq::Error) -> NoResponse {
        let proxy = self.servers.proxy(origin).map(without_password);
        match (error, proxy) {
            (ureq::Error::Rustls(why), _) => tls_failure(&why),
            (ureq::Error::Io(why), proxy) => {
                let tls = why
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match (tls, proxy) {
                    (Some(tls), _) => tls_failure(tls),
                    (None, Some(proxy))
                        if why.kind() == io::ErrorKind::ConnectionRefused || is_lookup(&why) =>
                    {
                        proxy_failure(proxy, why, true)
                    }
                    (None, None) if is_lookup(&why) => NoResponse::UnknownHost(origin.host.clone()),
                    (None, _) => NoResponse::Network(why.to_string()),
                }
            }
            (ureq::Error::ConnectProxyFailed(why), Some(proxy)) => {
                // The status is known only from the text.
                let status = why.rsplit('/').next().unwrap_or_default();
                match status.parse::<u16>() {
                    Ok(status) => {
                        let is_refusal = (400..500).contains(&status);
                        proxy_failure(
                            proxy,
                            format!("it answers with status {status}"),
                            !is_refusal,
                        )
                    }
                    Err(_) => proxy_failure(proxy, why, true),
                }
            }
            (ureq::Error::HostNotFound, Some(proxy)) => {
                proxy_failure(proxy, "its name cannot be resolved", true)
            }
            (ureq::Error::HostNotFound, None) => NoResponse::UnknownHost(origin.host.clone()),
            (ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve), _) => {
                NoResponse::Network("no connection in time".to_owned())
            }
            (ureq::Error::Timeout(_), _) => NoResponse::Network("no response in time".to_owned()),
            (why, _) => NoResponse::Network(why.to_string()),
        }
    }
}

fn proxy_failure(address: String, why: impl std::fmt::Display, may_pass: bool) -> NoResponse {
    NoResponse::Proxy {
        address,
        why: why.to_string(),
        may_pass,
    }
}

/// A request, if its address and headers can be sent.
fn built<T>(request: http::Result<T>) -> Result<T, NoResponse> {
    request.map_err(|why| NoResponse::Request(why.to_string()))
}

fn run(
    agent: &Agent,
    request: http::Request<impl AsSendBody>,
    time_limit: Duration,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    let request = request.with_agent(agent).configure();
    request.timeout_recv_response(Some(time_limit)).run()
}

/// Whether a host's name could not be resolved. The standard library has no `ErrorKind` for this.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn tls_failure(error: &rustls::Error) -> NoResponse {
    match error {
        rustls::Error::InvalidMessage(_) => NoResponse::NoTls,
        rustls::Error::InvalidCertificate(why) => {
            let why = if tls::is_authority_as_server(why) {
                "it is self-signed, and not trusted here".to_owned()
            } else {
                why.to_string()
            };
            NoResponse::Certificate(format!("its certificate is refused: {why}"))
        }
        why => NoResponse::Network(why.to_string()),
    }
}

/// A proxy's address for people.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// The content of a request. It keeps its error, to tell it from one of the connection.
struct Content<'a> {
    source: Box<dyn Read + Send + 'a>,
    /// How many bytes are still to be sent.
    left: u64,
    failed: Option<String>,
}

impl<'a> Content<'a> {
    /// A content of a size in bytes.
    fn new(source: impl Read + Send + 'a, size: u64) -> Self {
        Self {
            source: Box::new(source),
            left: size,
            failed: None,
        }
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        // The client would wait for the rest for ever.
        if read == 0 && !buffer.is_empty() && self.left > 0 {
            let left = self.left;
            return Err(io::Error::other(format!("it ends {left} bytes too early")));
        }
        Ok(read)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_source(buffer);
        read.inspect_err(|why| self.failed = Some(why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use xtask_core::Authorization;

    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        assert_eq!(without_password("http://me:marked@p:1"), "http://p:1");
        assert_eq!(without_password("https://p:1"), "https://p:1");
    }

    #[test]
    fn a_content_that_is_too_short_is_an_error() {
        let mut whole = Content::new(&b"abc"[..], 3);
        assert_eq!(io::copy(&mut whole, &mut io::sink()).unwrap(), 3);
        let mut short = Content::new(&b"abc"[..], 5);
        let why = io::copy(&mut short, &mut io::sink()).unwrap_err();
        assert_eq!(why.to_string(), "it ends 2 bytes too early");
        assert_eq!(short.failed, Some(why.to_string()));
    }

    /// The registry is not blamed, and the request is not repeated.
    #[test]
    fn a_header_that_cannot_be_sent_is_not_a_failure_of_the_network() {
        let http = Http::new(Arc::default());
        for method in ["GET", "POST"] {
            let mut request = Request::new(method, "http://127.0.0.1:1/");
            request.authorization = Some(Authorization("Basic marked\n".to_owned()));
            let Err(why) = http.send(&request) else {
                panic!("it was sent");
            };
            let expected = NoResponse::Request("failed to parse header value".to_owned());
            assert_eq!(why, expected, "{method}");
        }
    }
}
