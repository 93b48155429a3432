//! One request to a registry, made with curl: it brings TLS, proxies and the machine's own CAs,
//! is on every machine that has an engine, and costs nothing to compile.

use std::time::Duration;

use crate::{
    credentials::login::Login,
    exec::{Exec, Finished, NoAnswer},
    plan::{Cmd, Stdin},
};

/// How often a request is tried before its failure counts.
pub const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest that a registry may make us wait (`Retry-After`).
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What goes along with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    /// A manifest, with its media type.
    Text(String, String),
    /// The fields of a form; they may be secret.
    Form(Vec<(&'static str, String)>),
    /// A file of this path.
    File(String),
    /// Nothing; what comes back is written to a file of this path.
    Download(String),
}

/// How we show who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    Nobody,
    /// The value of an `Authorization` header.
    Header(String),
    User(String, String),
    /// An identity token: worth nothing to the registry itself, but who gives out its tokens takes
    /// it. <https://distribution.github.io/distribution/spec/auth/oauth/>
    Identity(String),
}

impl From<Login> for Auth {
    fn from(login: Login) -> Self {
        match login {
            Login::Password { user, password } => Self::User(user, password),
            Login::EncodedPassword(encoded) => Self::Header(format!("Basic {encoded}")),
            Login::IdentityToken(token) => Self::Identity(token),
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Header(_) | Self::User(..) | Self::Identity(_) => crate::secret::MASK,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub url: String,
    pub accept: String,
    pub auth: Auth,
    pub body: Body,
    pub limit: Duration,
}

impl Request {
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            accept: String::new(),
            auth: Auth::Nobody,
            body: Body::None,
            limit: Duration::from_secs(60),
        }
    }

    /// The command. Who we are goes by standard input alone.
    pub fn cmd(&self) -> Cmd {
        let limit = self.limit.as_secs().to_string();
        let mut cmd = Cmd::new("curl").args(["--silent", "--show-error", "--config", "-"]);
        cmd = cmd.args(["--dump-header", "-", "--suppress-connect-headers"]);
        cmd = cmd.args(["--connect-timeout", "15", "--max-time", &limit]);
        if !self.accept.is_empty() {
            cmd = cmd.args(["--header", &format!("Accept: {}", self.accept)]);
        }
        match (self.method, &self.body) {
            ("HEAD", _) => cmd = cmd.args(["--head", "--output", "/dev/null"]),
            (method, Body::None | Body::Form(_)) => cmd = cmd.args(["--request", method]),
            (_, Body::Download(file)) => cmd = cmd.args(["--location", "--output", file]),
            (method, Body::Text(media_type, _)) => {
                let header = format!("Content-Type: {media_type}");
                cmd = cmd.args(["--request", method, "--header", &header]);
            }
            (method, Body::File(file)) => {
                cmd = cmd.args(["--request", method, "--upload-file", file]);
                cmd = cmd.args(["--header", "Content-Type: application/octet-stream"]);
            }
        }
        cmd = cmd.arg(self.url.as_str());
        cmd.stdin = Some(Stdin {
            secret: self.config(),
            from: "cat".to_owned(),
        });
        cmd
    }

    /// What curl reads as its configuration file.
    fn config(&self) -> String {
        let mut lines = match &self.auth {
            Auth::Nobody | Auth::Identity(_) => String::new(),
            Auth::Header(value) => {
                format!("header = {}\n", quoted(&format!("Authorization: {value}")))
            }
            Auth::User(user, secret) => format!("user = {}\n", quoted(&format!("{user}:{secret}"))),
        };
        match &self.body {
            Body::Text(_, text) => lines.push_str(&format!("data-binary = {}\n", quoted(text))),
            Body::Form(fields) => {
                for (name, value) in fields {
                    let field = quoted(&format!("{name}={value}"));
                    lines.push_str(&format!("data-urlencode = {field}\n"));
                }
            }
            Body::None | Body::File(_) | Body::Download(_) => {}
        }
        lines
    }
}

/// A value in curl's configuration. <https://curl.se/docs/manpage.html#-K>
pub fn quoted(text: &str) -> String {
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

/// What a registry answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }

    /// What the registry says went wrong, for people.
    pub fn complaint(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let error = &body["errors"][0];
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let told = [text("code").to_lowercase(), text("message")]
            .iter()
            .map(|part| crate::ui::plain(part))
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ");
        if told.is_empty() {
            format!("status {}", self.status)
        } else {
            format!("status {}, {told}", self.status)
        }
    }

    /// Whether the same request may well succeed a little later.
    fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
    }

    /// Reads what `curl --dump-header -` prints: the headers of each answer on the way (a proxy's, a
    /// redirect's), then the last one's body.
    pub fn read(text: &str) -> Option<Self> {
        let (mut answer, mut rest) = (None, text);
        while rest.starts_with("HTTP/") {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
            let mut lines = head.lines();
            let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            let headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            answer = Some((status, headers));
            rest = body;
        }
        answer.map(|(status, headers)| Self {
            status,
            headers,
            body: rest.to_owned(),
        })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody is there, or the line broke: curl's own words.
    Network(String),
    /// curl itself is missing.
    NoCurl,
    Interrupted(i32),
}

/// curl's exit codes that may be gone a little later: no connection, a connection lost.
/// <https://curl.se/libcurl/c/libcurl-errors.html>
const BROKEN_LINE: &[i32] = &[7, 16, 18, 28, 35, 52, 55, 56, 92];

/// An attempt that failed, and whether another may help.
pub type Attempt = Result<Answer, (Unanswered, bool)>;

/// Sends a request, again where that can help; each further attempt is told.
///
/// # Errors
/// When there is no answer, also after the last attempt.
pub fn send(exec: &Exec, request: &Request, told: impl FnMut(&str)) -> Result<Answer, Unanswered> {
    again(exec, told, || send_once(exec, request))
}

/// Tries something, again where that can help, with a pause that grows.
///
/// # Errors
/// When there is no answer, also after the last attempt.
pub fn again(
    exec: &Exec,
    mut told: impl FnMut(&str),
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Answer, Unanswered> {
    let mut pause = FIRST_PAUSE;
    for number in 1..ATTEMPTS {
        let once = attempt();
        let (why, wait) = match &once {
            Ok(answer) if answer.is_transient() => {
                let after = answer
                    .header("retry-after")
                    .and_then(|value| value.parse().ok());
                (answer.complaint(), after.map_or(pause, Duration::from_secs))
            }
            Err((Unanswered::Network(words), true)) => (words.clone(), pause),
            Ok(_) | Err(_) => return once.map_err(|(why, _)| why),
        };
        let wait = wait.min(LONGEST_PAUSE);
        told(&format!(
            "{why}; trying again in {} ({number} of {})",
            crate::ui::human_time(wait),
            ATTEMPTS - 1
        ));
        exec.pause(wait).map_err(Unanswered::Interrupted)?;
        pause *= 2;
    }
    attempt().map_err(|(why, _)| why)
}

/// Sends a request once.
///
/// # Errors
/// When there is no answer.
pub fn send_once(exec: &Exec, request: &Request) -> Attempt {
    let cmd = request.cmd();
    let done = exec
        .ask(&cmd, request.limit + Duration::from_secs(5))
        .map_err(|why| match why {
            NoAnswer::TimedOut => (Unanswered::Network("no answer in time".to_owned()), true),
            NoAnswer::NotStarted(_) => (Unanswered::NoCurl, false),
            NoAnswer::Interrupted(signal) => (Unanswered::Interrupted(signal), false),
        })?;
    let broken = |done: &Finished| {
        let complaint = done.complaint();
        let words = complaint
            .split_once(") ")
            .map_or(complaint.as_str(), |(_, rest)| rest);
        let again = BROKEN_LINE.contains(&done.code);
        (Unanswered::Network(words.to_owned()), again)
    };
    if !done.ok() {
        return Err(broken(&done));
    }
    Answer::read(&done.stdout).ok_or_else(|| broken(&done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_we_are_is_no_argument() {
        let mut request = Request::new("PUT", "http://r/v2/x/manifests/1");
        request.auth = Auth::User("me".into(), "marked\"secret".into());
        request.body = Body::Text("application/json".into(), "{\"a\": \"b\\c\"}\n".into());
        let cmd = request.cmd();
        assert!(!cmd.args.join(" ").contains("marked"), "{cmd:?}");
        assert!(!format!("{request:?} {cmd:?}").contains("marked"));
        assert_eq!(
            cmd.stdin.unwrap().secret,
            "user = \"me:marked\\\"secret\"\ndata-binary = \"{\\\"a\\\": \\\"b\\\\c\\\"}\\n\"\n"
        );
    }

    #[test]
    fn the_last_answer_counts() {
        let text = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://b/\r\n\r\n\
                    HTTP/2 200\r\ndocker-content-digest: sha256:1\r\nLink: </v2/x?n=1&last=a>; rel=\"next\"\r\n\r\n{\"a\":1}";
        let answer = Answer::read(text).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"a\":1}"));
        assert_eq!(answer.header("Docker-Content-Digest"), Some("sha256:1"));
        assert_eq!(answer.header("location"), None);
        assert_eq!(Answer::read("no such thing"), None);
        assert_eq!(
            Answer::read("HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap()
                .body,
            ""
        );
    }

    #[test]
    fn complaints_are_the_registrys_own() {
        let read = |body: &str| {
            Answer::read(&format!("HTTP/1.1 403 Forbidden\r\n\r\n{body}"))
                .unwrap()
                .complaint()
        };
        assert_eq!(
            read(r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#),
            "status 403, denied: permission_denied: write_package"
        );
        assert_eq!(read("<html>"), "status 403");
    }
}
