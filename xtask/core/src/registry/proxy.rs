//! Which proxy a request goes through. The choice follows the rules of Go's HTTP client, which Docker, Podman
//! and the other registry clients use. <https://pkg.go.dev/golang.org/x/net/http/httpproxy>

use std::net::IpAddr;

use super::address::Origin;
use crate::base::env::Env;

/// The proxies of the environment.
#[derive(Clone, Default)]
pub struct Proxies {
    for_https: Option<String>,
    for_http: Option<String>,
    exceptions: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// An address or a CIDR range: the first address, the number of bits that count, the port.
    Network(IpAddr, u8, Option<u16>),
    /// A domain, and whether the domain itself is meant too.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    pub fn from_env(env: &Env) -> Self {
        let get = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let value = env.get(name).or_else(|| env.get(&lower))?;
            Some(value.trim()).filter(|value| !value.is_empty())
        };
        Self {
            for_https: get("HTTPS_PROXY").map(with_scheme),
            for_http: get("HTTP_PROXY").map(with_scheme),
            exceptions: get("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .filter_map(Exception::parse)
                .collect(),
        }
    }

    /// The URL of the proxy for requests to a server, with its user and password; `None` for a
    /// direct connection.
    pub fn for_origin(&self, origin: &Origin) -> Option<&str> {
        let is_exception = origin.is_loopback()
            || self
                .exceptions
                .iter()
                .any(|exception| exception.matches(origin));
        let proxy = if origin.is_tls {
            &self.for_https
        } else {
            &self.for_http
        };
        proxy.as_deref().filter(|_| !is_exception)
    }
}

fn with_scheme(proxy: &str) -> String {
    if proxy.contains("://") {
        proxy.to_owned()
    } else {
        format!("http://{proxy}")
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let (address, bits) = (address.parse().ok()?, bits.parse().ok()?);
            return Some(Self::Network(address, bits, None));
        }
        let (host, port) = split_port(&entry);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Network(address, address_bits(address), port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        let suffix = host.trim_start_matches('.').to_owned();
        (!suffix.is_empty()).then_some(Self::Domain {
            itself: !host.starts_with('.'),
            suffix,
            port,
        })
    }

    fn matches(&self, origin: &Origin) -> bool {
        let is_port = |port: &Option<u16>| port.is_none_or(|port| port == origin.port);
        match self {
            Self::All => true,
            Self::Network(network, bits, port) => {
                let address = origin.host.parse();
                is_port(port) && address.is_ok_and(|it| shares_bits(*network, it, *bits))
            }
            Self::Domain {
                suffix,
                itself,
                port,
            } => {
                let below = origin.host.strip_suffix(suffix.as_str());
                is_port(port)
                    && below.is_some_and(|name| (name.is_empty() && *itself) || name.ends_with('.'))
            }
        }
    }
}

fn split_port(text: &str) -> (&str, Option<u16>) {
    match text.rsplit_once(':') {
        // Not the end of an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            port.parse().map_or((text, None), |port| (host, Some(port)))
        }
        _ => (text, None),
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the first bits of two addresses are equal.
fn shares_bits(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let shift = 128_u32.saturating_sub(u32::from(bits));
    let prefix = |address| number(address).checked_shr(shift).unwrap_or(0);
    a.is_ipv4() == b.is_ipv4() && bits <= address_bits(a) && prefix(a) == prefix(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_for(vars: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::from_env(&Env::fake(vars));
        let origin = Origin::of(url).unwrap();
        proxies.for_origin(&origin).map(str::to_owned)
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let vars = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")];
        let proxy = |url| proxy_for(&vars, url);
        assert_eq!(proxy("https://ghcr.io/").as_deref(), Some("http://s:1"));
        assert_eq!(proxy("http://r.lan/").as_deref(), Some("http://p:2"));
        assert_eq!(proxy_for(&[("ALL_PROXY", "a:1")], "https://ghcr.io/"), None);
    }

    #[test]
    fn this_machine_is_reached_directly() {
        let vars = [("HTTPS_PROXY", "p:1"), ("HTTP_PROXY", "p:1")];
        for url in [
            "http://localhost:5000/",
            "https://127.0.0.1/",
            "http://[::1]:5000/",
        ] {
            assert_eq!(proxy_for(&vars, url), None, "{url}");
        }
    }

    #[test]
    fn exceptions_are_those_of_go() {
        for (no_proxy, url, is_direct) in [
            ("*", "https://ghcr.io/", true),
            ("ghcr.io", "https://ghcr.io/", true),
            ("ghcr.io", "https://pkg.ghcr.io/", true),
            ("ghcr.io", "https://notghcr.io/", false),
            (".ghcr.io", "https://ghcr.io/", false),
            (".ghcr.io", "https://pkg.ghcr.io/", true),
            ("*.corp.lan", "https://r.corp.lan/", true),
            ("GHCR.io ", "https://ghcr.IO/", true),
            ("a.io, b.io", "https://b.io/", true),
            ("r.lan:5000", "https://r.lan:5000/", true),
            ("r.lan:5000", "https://r.lan/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.0.0.0/8", "https://ten.lan/", false),
            ("10.1.2.3", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3/", false),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", true),
            ("fd00::1", "https://[fd00::1]:5000/", true),
            ("0.0.0.0/0", "https://10.1.2.3/", true),
            ("10.0.0.0/99", "https://10.1.2.3/", false),
            ("", "https://ghcr.io/", false),
            (",", "https://ghcr.io/", false),
        ] {
            let vars = [("HTTPS_PROXY", "p:1"), ("NO_PROXY", no_proxy)];
            assert_eq!(
                proxy_for(&vars, url).is_none(),
                is_direct,
                "{no_proxy} {url}"
            );
        }
    }
}
