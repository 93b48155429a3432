//! One HTTP request.

use std::{
    fmt,
    io::{self, Read},
    time::Duration,
};

use super::address::percent_encode;
use crate::base::secret::MASK;

/// What is sent with a request.
#[derive(Clone)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// A manifest.
    Manifest {
        /// The `Content-Type` header.
        media_type: &'a str,
        /// The manifest, byte for byte.
        content: &'a [u8],
    },
    /// The fields of a form.
    Form(Form),
    /// A blob.
    Upload(Upload<'a>),
}

/// The content of a blob.
#[derive(Clone, Copy)]
pub struct Upload<'a> {
    /// Opens the content from its beginning. Each attempt of an upload opens it once.
    pub open: &'a (dyn Fn() -> io::Result<Box<dyn Read + Send + 'a>> + Sync),
    /// In bytes.
    pub size: u64,
}

/// Without the content, which may be secret.
impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Manifest { media_type, .. } => write!(f, "Manifest({media_type})"),
            Self::Form(form) => form.fmt(f),
            Self::Upload(Upload { size, .. }) => write!(f, "Upload({size} bytes)"),
        }
    }
}

/// The fields of a form, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Form(pub Vec<(&'static str, String)>);

impl Form {
    /// <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>
    pub fn encode(&self) -> String {
        let fields = self.0.iter();
        let fields = fields.map(|(name, value)| format!("{name}={}", percent_encode(value)));
        fields.collect::<Vec<_>>().join("&")
    }
}

/// Without the values.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.0.iter().map(|(name, _)| (name, MASK));
        f.debug_map().entries(fields).finish()
    }
}

/// The `Authorization` header's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(pub String);

/// Without the secret.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A request to a server.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// In upper case.
    pub method: &'static str,
    /// With the scheme `http` or `https`.
    pub url: String,
    /// The media types of the `Accept` header; empty for any.
    pub accept: String,
    /// The first byte that is wanted of the response's body.
    pub offset: u64,
    /// The `Authorization` header.
    pub authorization: Option<Authorization>,
    /// `GET`, `HEAD` and `DELETE` send none.
    pub body: Body<'a>,
    /// How long the server may take to begin its response after it got the request.
    pub time_limit: Duration,
}

impl Request<'_> {
    /// A request without a body, which may take a minute.
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            accept: String::new(),
            offset: 0,
            authorization: None,
            body: Body::None,
            time_limit: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut request = Request::new("POST", "http://r/token");
        request.authorization = Some(Authorization("Basic marked".into()));
        request.body = Body::Form(Form(vec![("refresh_token", "marked".into())]));
        assert!(!format!("{request:?}").contains("marked"), "{request:?}");
    }

    #[test]
    fn form_fields_are_encoded() {
        let form = Form(vec![("a", "b&c=d e".into()), ("f", "+/".into())]);
        assert_eq!(form.encode(), "a=b%26c%3Dd%20e&f=%2B%2F");
    }
}
