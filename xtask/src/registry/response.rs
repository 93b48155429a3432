//! What a registry responds.

use crate::base::ui::single_line;

/// The response to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The connection failed: curl's message.
    Network(String),
    CurlMissing,
    /// A signal told us to stop: its number.
    Interrupted(i32),
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of a name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The status, and the registry's message if it sends one: a line for error messages.
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
    pub fn error_text(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let error = &body["errors"][0];
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let parts = [text("code").to_lowercase(), text("message")];
        let parts = parts.iter().map(|part| single_line(part));
        let message = parts
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ");
        if message.is_empty() {
            format!("status {}", self.status)
        } else {
            format!("status {}, {message}", self.status)
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient_error(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
    }

    /// Parses the output of `curl --dump-header -`: the headers of each response on the way (from a
    /// proxy, or a redirect), then the headers and body of the last one.
    pub fn parse(output: &str) -> Option<Self> {
        let (mut response, mut rest) = (None, output);
        while rest.starts_with("HTTP/") {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
            let mut lines = head.lines();
            let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            let headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            response = Some((status, headers));
            rest = body;
        }
        response.map(|(status, headers)| Self {
            status,
            headers,
            body: rest.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_response_is_used() {
        let output = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://b/\r\n\r\n\
                      HTTP/2 200\r\ndocker-content-digest: sha256:1\r\nLink: </v2/x?n=1&last=a>; rel=\"next\"\r\n\r\n{\"a\":1}";
        let response = Response::parse(output).unwrap();
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, "{\"a\":1}")
        );
        assert_eq!(response.header("Docker-Content-Digest"), Some("sha256:1"));
        assert_eq!(response.header("location"), None);
    }

    #[test]
    fn a_response_may_have_no_body() {
        let response = Response::parse("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((response.status, response.body.as_str()), (204, ""));
        assert_eq!(Response::parse("curl: (6) no such host"), None);
    }

    #[test]
    fn errors_contain_the_registrys_message() {
        let text = |body: &str| {
            Response::parse(&format!("HTTP/1.1 403 Forbidden\r\n\r\n{body}"))
                .unwrap()
                .error_text()
        };
        assert_eq!(
            text(r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#),
            "status 403, denied: permission_denied: write_package"
        );
        assert_eq!(text("<html>"), "status 403");
    }
}
