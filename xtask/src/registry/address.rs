//! Addresses: where a registry is, and those that it sends.

/// The URL of a registry, without a path. Docker Hub is at another host than its name. As with
/// Docker, registries on the loopback interface need no TLS.
/// <https://docs.docker.com/reference/cli/dockerd/#insecure-registries>
pub fn base_url(registry: &str) -> String {
    let host = match registry {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let scheme = if is_loopback(registry) {
        "http"
    } else {
        "https"
    };
    format!("{scheme}://{host}")
}

fn is_loopback(host: &str) -> bool {
    let is_port = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Whether a text from a registry is an HTTP URL. curl would take anything else for an option, or
/// for a file of this machine.
pub fn is_http_url(text: &str) -> bool {
    let schemes = ["https://", "http://"];
    schemes.iter().any(|scheme| text.starts_with(scheme)) && !has_space_or_control(text)
}

fn has_space_or_control(text: &str) -> bool {
    text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// The URL or path in `Link: </v2/x/tags/list?n=1&last=a>; rel="next"`.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags>
pub fn next_page(link: &str) -> Option<&str> {
    link.contains("rel=\"next\"").then_some(())?;
    let (_, rest) = link.split_once('<')?;
    let (page, _) = rest.split_once('>')?;
    let is_path = page.starts_with('/') && !has_space_or_control(page);
    (is_path || is_http_url(page)).then_some(page)
}

/// Adds a parameter to a URL; its value is percent-encoded here.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{name}={}", percent_encode(value))
}

/// <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
fn percent_encode(text: &str) -> String {
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
    fn registries_on_the_loopback_interface_need_no_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
        ] {
            assert_eq!(base_url(host), format!("http://{host}"));
        }
        for host in [
            "ghcr.io",
            "127.example.com:1",
            "registry:5000",
            "10.0.0.1:5000",
        ] {
            assert_eq!(base_url(host), format!("https://{host}"));
        }
        assert_eq!(base_url("docker.io"), "https://registry-1.docker.io");
    }

    #[test]
    fn the_next_page_is_found() {
        let link = "</v2/a/tags/list?last=b&n=1000>; rel=\"next\"";
        assert_eq!(next_page(link), Some("/v2/a/tags/list?last=b&n=1000"));
        assert_eq!(next_page("</x>; rel=\"prev\""), None);
        assert_eq!(next_page("<file:///etc/passwd>; rel=\"next\""), None);
    }

    #[test]
    fn parameters_are_encoded() {
        let url = with_parameter("https://r/token", "service", "a b");
        assert_eq!(url, "https://r/token?service=a%20b");
        let url = with_parameter(&url, "digest", "sha256:1");
        assert_eq!(url, "https://r/token?service=a%20b&digest=sha256%3A1");
    }
}
