//! One HTTP request, and the curl command that sends it. curl brings TLS, proxies and the machine's
//! own CAs, is on every machine that has an engine, and costs nothing to compile.

use std::{fmt, time::Duration};

use crate::{
    base::secret::MASK,
    plan::{Cmd, Stdin},
};

/// What is sent with a request, or what becomes of the response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    /// A manifest.
    Manifest {
        media_type: String,
        content: String,
    },
    Form(Form),
    /// Sends the file at this path.
    Upload(String),
    /// Sends nothing, and writes the response's body to the file at this path.
    Download(String),
}

/// The fields of a form, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Form(pub Vec<(&'static str, String)>);

/// Without the values.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.0.iter().map(|(name, _)| (name, MASK));
        f.debug_map().entries(fields).finish()
    }
}

/// The `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// The header is not sent.
    None,
    /// The header's value.
    Header(String),
    /// Basic authentication.
    Basic { user: String, password: String },
}

/// Without the secret.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Header(_) | Self::Basic { .. } => MASK,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub url: String,
    /// The media types of the `Accept` header; empty for none.
    pub accept: String,
    pub authorization: Authorization,
    pub body: Body,
    /// For the whole exchange.
    pub time_limit: Duration,
}

impl Request {
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            accept: String::new(),
            authorization: Authorization::None,
            body: Body::None,
            time_limit: Duration::from_secs(60),
        }
    }

    /// The curl command, which prints the headers and the body of the response. Secrets are on its
    /// standard input, because other users of the machine can see its arguments.
    pub fn cmd(&self) -> Cmd {
        let seconds = self.time_limit.as_secs().to_string();
        let mut cmd = Cmd::new("curl").args(["--silent", "--show-error", "--config", "-"]);
        cmd = cmd.args(["--dump-header", "-", "--suppress-connect-headers"]);
        cmd = cmd.args(["--connect-timeout", "15", "--max-time", &seconds]);
        if !self.accept.is_empty() {
            cmd = cmd.args(["--header", &format!("Accept: {}", self.accept)]);
        }
        match (self.method, &self.body) {
            ("HEAD", _) => cmd = cmd.args(["--head", "--output", "/dev/null"]),
            (method, Body::None | Body::Form(_)) => cmd = cmd.args(["--request", method]),
            (_, Body::Download(path)) => cmd = cmd.args(["--location", "--output", path]),
            (method, Body::Manifest { media_type, .. }) => {
                let header = format!("Content-Type: {media_type}");
                cmd = cmd.args(["--request", method, "--header", &header]);
            }
            (method, Body::Upload(path)) => {
                cmd = cmd.args(["--request", method, "--upload-file", path]);
                cmd = cmd.args(["--header", "Content-Type: application/octet-stream"]);
            }
        }
        cmd = cmd.arg(self.url.as_str());
        cmd.stdin = Some(Stdin {
            secret: self.curl_config(),
            source_command: "cat".to_owned(),
        });
        cmd
    }

    /// The part of the request that curl reads as a configuration file.
    fn curl_config(&self) -> String {
        let mut lines = match &self.authorization {
            Authorization::None => String::new(),
            Authorization::Header(value) => {
                let header = format!("Authorization: {value}");
                format!("header = {}\n", quote_for_curl(&header))
            }
            Authorization::Basic { user, password } => {
                let both = format!("{user}:{password}");
                format!("user = {}\n", quote_for_curl(&both))
            }
        };
        match &self.body {
            Body::Manifest { content, .. } => {
                lines.push_str(&format!("data-binary = {}\n", quote_for_curl(content)));
            }
            Body::Form(Form(fields)) => {
                for (name, value) in fields {
                    let field = quote_for_curl(&format!("{name}={value}"));
                    lines.push_str(&format!("data-urlencode = {field}\n"));
                }
            }
            Body::None | Body::Upload(_) | Body::Download(_) => {}
        }
        lines
    }
}

/// A value in curl's configuration file. <https://curl.se/docs/manpage.html#-K>
pub fn quote_for_curl(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_no_arguments() {
        let mut request = Request::new("PUT", "http://r/v2/x/manifests/1");
        request.authorization = Authorization::Basic {
            user: "me".into(),
            password: "marked\"secret".into(),
        };
        request.body = Body::Manifest {
            media_type: "application/json".into(),
            content: "{\"a\": \"b\\c\"}\n".into(),
        };
        let cmd = request.cmd();
        assert!(!cmd.args.join(" ").contains("marked"), "{cmd:?}");
        assert!(!format!("{request:?} {cmd:?}").contains("marked"));
        assert_eq!(
            cmd.stdin.unwrap().secret,
            "user = \"me:marked\\\"secret\"\ndata-binary = \"{\\\"a\\\": \\\"b\\\\c\\\"}\\n\"\n"
        );
    }
}
