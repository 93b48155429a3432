//! What a registry responds.

use std::io::{self, Read};

use http::{HeaderMap, HeaderValue};

use crate::base::ui::single_line;

/// The longest body that is read into memory, in bytes: a list of many tags.
const MAX_BODY: u64 = 32 * 1024 * 1024;
/// How much of an error page is shown.
const MAX_SHOWN: usize = 200;

/// The response to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The host that the registry redirected to, if the response is from there.
    pub storage: Option<String>,
}

/// A response whose body has not been read yet.
pub struct ResponseHead {
    /// The status code, such as 200.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, as the server sends it.
    pub body: Box<dyn Read + Send>,
}

impl ResponseHead {
    /// Reads the body into memory.
    ///
    /// # Errors
    /// When the connection is lost, or the body is too large.
    pub fn read(self) -> io::Result<Response> {
        let mut body = Vec::new();
        self.body.take(MAX_BODY + 1).read_to_end(&mut body)?;
        if body.len() as u64 > MAX_BODY {
            return Err(io::Error::other("the response is too large"));
        }
        Ok(Response {
            status: self.status,
            headers: self.headers,
            body,
            storage: None,
        })
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The connection failed, and why.
    Network(String),
    /// The host's name cannot be resolved.
    UnknownHost(String),
    /// The server's certificate was refused, or there are no authorities to check it with.
    Certificate(String),
    /// The server does not speak TLS.
    NoTls,
    /// There is no connection through the proxy.
    Proxy {
        /// The proxy's URL, without its password.
        address: String,
        /// The reason.
        why: String,
        /// Whether the same request may succeed a little later.
        may_pass: bool,
    },
    /// The request cannot be made, and why. Nothing was sent.
    Request(String),
    /// The content to be sent cannot be read.
    Content(String),
    /// A signal told us to stop: its number.
    Interrupted(i32),
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// The first header of a name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers of a name. What is no UTF-8 is replaced.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).into_iter();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        values.map(text).collect()
    }

    /// The code of the registry's error, such as `NAME_UNKNOWN`; empty if there is none.
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
    pub fn error_code(&self) -> String {
        self.error("code")
    }

    fn error(&self, key: &str) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = body["errors"][0][key].as_str().unwrap_or_default();
        text.to_owned()
    }

    /// The status and the registry's own reason: a line for error messages.
    pub fn error_text(&self) -> String {
        let parts = [self.error("code").to_lowercase(), self.error("message")];
        let parts = parts.iter().map(|part| single_line(part));
        let mut reason = parts
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ");
        if reason.is_empty() {
            reason = self.plain_text();
        }
        let from = self.storage.as_ref().map(|host| format!(" from {host}"));
        let status = format!("status {}{}", self.status, from.unwrap_or_default());
        if reason.is_empty() {
            status
        } else {
            format!("{status}, {reason}")
        }
    }

    /// The beginning of a body that is text. Of a page of a proxy only its title, of the XML of a
    /// storage (S3, Google, Azure) its code and message.
    fn plain_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (content, _) = rest.split_once(&format!("</{name}>"))?;
            Some(content.trim()).filter(|content| !content.is_empty())
        };
        let text = match element("title") {
            Some(title) => title.to_owned(),
            None if text
                .trim_start_matches(['\u{feff}', ' ', '\r', '\n', '\t'])
                .starts_with('<') =>
            {
                let parts = ["Code", "Message"].into_iter().filter_map(element);
                parts.collect::<Vec<_>>().join(": ")
            }
            None => text.into_owned(),
        };
        single_line(&text).chars().take(MAX_SHOWN).collect()
    }

    /// Whether the same request may succeed a little later. After 417 it is sent without `Expect`.
    pub fn is_transient_error(&self) -> bool {
        matches!(self.status, 408 | 417 | 425 | 429 | 500 | 502 | 503 | 504)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            body: body.as_bytes().to_vec(),
            ..Response::default()
        }
    }

    #[test]
    fn headers_have_any_case() {
        let mut response = response(200, "");
        let value = "sha256:1".parse().unwrap();
        response.headers.insert("docker-content-digest", value);
        assert_eq!(response.header("Docker-Content-Digest"), Some("sha256:1"));
        assert_eq!(response.header("location"), None);
    }

    #[test]
    fn errors_contain_the_registrys_reason() {
        let text = |body: &str| response(403, body).error_text();
        assert_eq!(
            text(r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#),
            "status 403, denied: permission_denied: write_package"
        );
        assert_eq!(text(""), "status 403");
        assert_eq!(text("quota exceeded\n"), "status 403, quota exceeded");
        assert_eq!(
            text("<html><head><title>403 Forbidden</title></head></html>"),
            "status 403, 403 Forbidden"
        );
        assert_eq!(text("<Error></Error>"), "status 403");
        let xml = "\u{feff}<?xml version=\"1.0\"?>\n<Error><Code>RequestTimeTooSkewed</Code>\
                   <Message>The difference is too large.</Message></Error>";
        let mut of_storage = response(403, xml);
        of_storage.storage = Some("s3.example.com".to_owned());
        assert_eq!(
            of_storage.error_text(),
            "status 403 from s3.example.com, RequestTimeTooSkewed: The difference is too large."
        );
        assert!(text(&"long ".repeat(999)).len() < 300);
    }

    #[test]
    fn a_body_that_is_too_large_is_refused() {
        let head = ResponseHead {
            status: 200,
            headers: HeaderMap::new(),
            body: Box::new(io::repeat(b'x')),
        };
        assert!(head.read().is_err());
    }
}
