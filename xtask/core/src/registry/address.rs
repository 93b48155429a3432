//! Addresses: where a registry is, and those that it sends.

use std::{fmt, net::IpAddr};

use http::Uri;

/// Scheme, host and port of a URL: what requests to the same server have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub is_tls: bool,
    /// In lower case, without the brackets of an IPv6 address.
    pub host: String,
    /// The scheme's usual port if the URL names none.
    pub port: u16,
}

impl Origin {
    /// The origin of a URL. `None` if it is not an HTTP URL with a host.
    pub fn of(url: &str) -> Option<Self> {
        let is_tls = match url.split_once("://")?.0 {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        (!has_space_or_control(url)).then_some(())?;
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        // A port that is no number below 65536 counts as none.
        let (_, port) = uri.authority()?.as_str().split_once(uri.host()?)?;
        (port.len() <= 1 || uri.port_u16().is_some()).then_some(())?;
        (!host.is_empty()).then_some(())?;
        Some(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(default_port(is_tls)),
        })
    }

    /// The origin of a registry that has TLS. Docker Hub is at another host than its name.
    /// `None` if the text is no host with an optional port.
    pub fn of_registry(registry: &str) -> Option<Self> {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        Self::of(&format!("https://{host}"))
    }

    /// The same server without TLS.
    #[must_use]
    pub fn without_tls(&self) -> Self {
        let port = match self.port {
            443 => 80,
            port => port,
        };
        Self {
            is_tls: false,
            port,
            ..self.clone()
        }
    }

    /// Whether the host is this machine. As with Docker, such a registry needs no certificate.
    /// <https://docs.docker.com/reference/cli/dockerd/#insecure-registries>
    pub fn is_loopback(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// The host, with its port if that is not the scheme's usual one.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default_port(self.is_tls) {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// The URL without a path.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// Whether a text from a registry is an HTTP URL.
pub fn is_http_url(text: &str) -> bool {
    Origin::of(text).is_some()
}

fn has_space_or_control(text: &str) -> bool {
    text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// The URL that a `Location` or `Link` header means in the response to a request for `base`.
/// `None` if it is no HTTP address. A server behind a TLS proxy may not know about TLS: if it calls
/// itself `http://`, the URL keeps the scheme and port of `base`.
/// <https://www.rfc-editor.org/rfc/rfc3986#section-5.2>
pub fn resolve(base: &str, reference: &str) -> Option<String> {
    let origin = Origin::of(base)?;
    (!has_space_or_control(reference)).then_some(())?;
    if has_scheme(reference) {
        let other = Origin::of(reference)?;
        let is_same_host = other.host == origin.host && [80, origin.port].contains(&other.port);
        if origin.is_tls && !other.is_tls && is_same_host {
            return Some(format!("{origin}{}", path_and_query(reference)));
        }
        return Some(reference.to_owned());
    }
    if let Some(rest) = reference.strip_prefix("//") {
        let scheme = if origin.is_tls { "https" } else { "http" };
        let url = format!("{scheme}://{rest}");
        return is_http_url(&url).then_some(url);
    }
    let path = path_and_query(base);
    let path = path.split('?').next().unwrap_or_default();
    Some(if reference.starts_with('/') {
        format!("{origin}{reference}")
    } else if reference.starts_with('?') {
        format!("{origin}{path}{reference}")
    } else {
        let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
        let reference = reference.trim_start_matches("./");
        format!("{origin}{folder}{reference}")
    })
}

fn has_scheme(reference: &str) -> bool {
    let is_scheme = |text: &str| {
        text.bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
    };
    reference
        .split_once("://")
        .is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// What follows the host in a URL.
fn path_and_query(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = &url[after_scheme..];
    rest.find(['/', '?']).map_or("", |at| &rest[at..])
}

/// The target of the link with `rel="next"` among the `Link` headers of a response.
/// <https://www.rfc-editor.org/rfc/rfc8288#section-3>
///
/// # Errors
/// The header that does not say what its links are. One of them may lead to the next page.
pub fn next_link<'a>(
    headers: impl IntoIterator<Item = &'a str>,
) -> Result<Option<&'a str>, &'a str> {
    let mut unclear = None;
    for header in headers {
        let links = links(header);
        let is_clear = !links.is_empty()
            && links
                .iter()
                .all(|(_, parameters)| relations(parameters).count() > 0);
        if let Some((target, _)) = links.iter().find(|(_, parameters)| is_next(parameters)) {
            return Ok(Some(target));
        }
        unclear = unclear.or((!is_clear).then_some(header));
    }
    unclear.map_or(Ok(None), Err)
}

/// The links of one header: target and parameters.
fn links(header: &str) -> Vec<(&str, &str)> {
    let (mut found, mut rest) = (Vec::new(), header);
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else {
            break;
        };
        let end = after.find('<').unwrap_or(after.len());
        found.push((target.trim(), &after[..end]));
        rest = &after[end..];
    }
    found
}

fn is_next(parameters: &str) -> bool {
    relations(parameters).any(|relation| relation.eq_ignore_ascii_case("next"))
}

/// The words of the parameter `rel`.
fn relations(parameters: &str) -> impl Iterator<Item = &str> {
    let values = parameters.split([';', ',']).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("rel").then_some(value)
    });
    values.flat_map(|value| value.trim().trim_matches(['"', '\'']).split_whitespace())
}

/// The URL that starts an upload and asks to take the blob over from another repository.
pub fn mount(uploads: &str, digest: &str, from: &str) -> String {
    let url = with_parameter(uploads, "mount", digest);
    with_parameter(&url, "from", from)
}

/// Whether a URL is from [`mount`].
pub fn is_mount(url: &str) -> bool {
    url.contains("/blobs/uploads/?mount=")
}

/// Adds a parameter to a URL; its value is percent-encoded here.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{name}={}", percent_encode(value))
}

/// <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
pub fn percent_encode(text: &str) -> String {
    let is_unreserved = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    text.bytes().fold(String::new(), |out, c| {
        if is_unreserved(c) {
            out + &char::from(c).to_string()
        } else {
            out + &format!("%{c:02X}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_this_machine_are_recognised() {
        let is_loopback = |registry| Origin::of_registry(registry).unwrap().is_loopback();
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in [
            "ghcr.io",
            "127.example.com:1",
            "registry:5000",
            "10.0.0.1:5000",
            "localhost.example.com",
        ] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn a_registry_has_an_address() {
        let address = |registry| Origin::of_registry(registry).unwrap().to_string();
        assert_eq!(address("docker.io"), "https://registry-1.docker.io");
        assert_eq!(address("GHCR.io:443"), "https://ghcr.io");
        assert_eq!(address("[::1]:5000"), "https://[::1]:5000");
        let plain = |registry| Origin::of_registry(registry).unwrap().without_tls();
        assert_eq!(plain("localhost").to_string(), "http://localhost");
        assert_eq!(plain("r:5000").to_string(), "http://r:5000");
        assert_eq!(Origin::of("file:///etc/passwd"), None);
        assert_eq!(Origin::of("https://"), None);
        assert_eq!(Origin::of("https://a b/"), None);
        assert_eq!(Origin::of_registry("127.0.0.1:99999"), None);
    }

    #[test]
    fn the_usual_port_may_be_written_or_not() {
        for (a, b) in [
            ("https://r.io/x", "https://R.io:443/y"),
            ("http://r.io/x", "http://r.io:80/y"),
        ] {
            assert_eq!(Origin::of(a), Origin::of(b));
        }
        assert_ne!(Origin::of("https://r.io/"), Origin::of("http://r.io/"));
    }

    #[test]
    fn addresses_from_a_registry_are_resolved() {
        let base = "https://r.io:5000/v2/a/blobs/uploads/?x=1";
        for (reference, expected) in [
            (
                "/v2/a/blobs/uploads/1?s=2",
                "https://r.io:5000/v2/a/blobs/uploads/1?s=2",
            ),
            (
                "1?s=/2://",
                "https://r.io:5000/v2/a/blobs/uploads/1?s=/2://",
            ),
            ("?s=2", "https://r.io:5000/v2/a/blobs/uploads/?s=2"),
            ("//s.io/1", "https://s.io/1"),
            ("https://s.io:443/1", "https://s.io:443/1"),
            ("http://s.io/1", "http://s.io/1"),
            // The registry is behind a TLS proxy.
            ("http://r.io:5000/1?s=2", "https://r.io:5000/1?s=2"),
            ("http://R.io/1", "https://r.io:5000/1"),
        ] {
            assert_eq!(
                resolve(base, reference).as_deref(),
                Some(expected),
                "{reference}"
            );
        }
        for reference in ["file:///etc/passwd", "https://", "/a b", "/a\r\nX: y"] {
            assert_eq!(resolve(base, reference), None, "{reference}");
        }
    }

    #[test]
    fn the_next_page_is_found_in_every_spelling() {
        let page = "/v2/a/tags/list?last=b,c&n=1000";
        for link in [
            format!("<{page}>; rel=\"next\""),
            format!("<{page}>;rel=next"),
            format!("<{page}>; REL='Next'"),
            format!("<{page}>; title=\"a\"; rel=\"last next\""),
            format!("</first>; rel=\"first\", <{page}>; rel=\"next\""),
        ] {
            assert_eq!(next_link([link.as_str()]), Ok(Some(page)), "{link}");
        }
        let both = ["</x>; rel=\"prev\"", "</y>; rel=\"next\""];
        assert_eq!(next_link(both), Ok(Some("/y")));
        assert_eq!(next_link(["</x>", both[1]]), Ok(Some("/y")));
        for link in ["</x>; rel=\"prev\"", "</x>; rel=nextish"] {
            assert_eq!(next_link([link]), Ok(None), "{link}");
        }
    }

    #[test]
    fn a_link_that_may_lead_to_the_next_page_is_an_error() {
        for link in [
            "</next>",
            "rel=next",
            "/v2/a/tags/list?last=b; rel=\"next\"",
            "\u{2039}/v2/a/tags/list?last=b\u{203a}; rel=\"next\"",
            "</x>; rel=\"prev\", </y>",
            "</x",
        ] {
            assert_eq!(next_link([link]), Err(link), "{link}");
        }
    }

    #[test]
    fn parameters_are_encoded() {
        let url = with_parameter("https://r/token", "service", "a b");
        assert_eq!(url, "https://r/token?service=a%20b");
        let url = with_parameter(&url, "digest", "sha256:1");
        assert_eq!(url, "https://r/token?service=a%20b&digest=sha256%3A1");
    }
}
