//! A proxy between xtask and a real registry that simulates failures: it forwards requests, answers them
//! itself, drops connections, or corrupts answers. It has no TLS, and a connection may have many requests.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A simulated failure of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The proxy answers with this status and body.
    Status(u16, &'static str),
    /// The proxy answers with 429 and this `Retry-After` in seconds.
    TooMany(u32),
    /// The connection is closed before the request is forwarded.
    Drop,
    /// The connection is closed after the registry has processed the request, so the answer is lost.
    LoseAnswer,
    /// The request is forwarded after a delay.
    Late(Duration),
    /// The upload is redirected to this host.
    Elsewhere(String),
    /// One byte of the answer's body is changed.
    Spoil,
}

#[derive(Clone, Debug)]
struct Rule {
    method: &'static str,
    part: String,
    fault: Fault,
    /// How many more requests fail.
    times: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// The first lines of all requests, in their order.
    seen: Vec<String>,
}

pub struct Proxy {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
        };
        let (state, upstream) = (Arc::clone(&proxy.state), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (state, upstream) = (Arc::clone(&state), upstream.clone());
                // An error of a disconnected client is not an error of the proxy.
                thread::spawn(move || drop(serve(client, &upstream, &state)));
            }
        });
        proxy
    }

    /// Makes the next matching requests fail.
    pub fn fail(&self, method: &'static str, part: &str, fault: Fault, times: usize) {
        self.state.lock().unwrap().rules.push(Rule {
            method,
            part: part.to_owned(),
            fault,
            times,
        });
    }

    /// From now on, no request fails.
    pub fn recover(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// The number of matching requests.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let state = self.state.lock().unwrap();
        let is = |line: &&String| line.starts_with(method) && line.contains(part);
        state.seen.iter().filter(is).count()
    }
}

/// Answers the requests of a connection until it is closed.
fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> io::Result<()> {
    if begins_with_tls(&client)? {
        return Ok(());
    }
    // Otherwise small answers wait for the client's acknowledgement of what was sent before.
    client.set_nodelay(true)?;
    loop {
        let head = read_head(&mut client)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let request = Request::new(head, &mut client)?;
        match state.lock().unwrap().fault(&request.line) {
            None => forward(&mut client, upstream, &request, |_| {})?,
            Some(Fault::Late(time)) => {
                thread::sleep(time);
                forward(&mut client, upstream, &request, |_| {})?;
            }
            Some(Fault::Spoil) => forward(&mut client, upstream, &request, |body| {
                if let Some(byte) = body.last_mut() {
                    *byte ^= 1;
                }
            })?,
            Some(Fault::Drop) => return client.shutdown(Shutdown::Both),
            Some(Fault::LoseAnswer) => {
                read_head(&mut request.send(upstream)?)?;
                return client.shutdown(Shutdown::Both);
            }
            Some(Fault::Status(status, body)) => write!(
                client,
                "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?,
            Some(Fault::Elsewhere(host)) => write!(
                client,
                "HTTP/1.1 202 x\r\nLocation: http://{host}/upload\r\nContent-Length: 0\r\n\r\n"
            )?,
            Some(Fault::TooMany(seconds)) => write!(
                client,
                "HTTP/1.1 429 x\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
            )?,
        }
    }
}

/// Whether the client wants TLS. The answer is then to close the connection.
/// <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>
fn begins_with_tls(client: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    Ok(client.peek(&mut first)? == 1 && first[0] == 22)
}

impl State {
    /// Notes a request, and returns how it fails.
    fn fault(&mut self, line: &str) -> Option<Fault> {
        self.seen.push(line.to_owned());
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times > 0 && line.starts_with(rule.method) && line.contains(&rule.part)
        })?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }
}

struct Request {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// Reads the body to a head.
    fn new(head: String, client: &mut TcpStream) -> io::Result<Self> {
        if header(&head, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let length = header(&head, "content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        client.read_exact(&mut body)?;
        Ok(Self {
            line: head.lines().next().unwrap_or_default().to_owned(),
            head,
            body,
        })
    }

    /// Sends the request to the registry, over a connection of its own, so that the answer ends with it.
    fn send(&self, upstream: &str) -> io::Result<TcpStream> {
        let mut server = TcpStream::connect(upstream)?;
        server.set_nodelay(true)?;
        let head = without(&self.head, &["connection", "expect"]);
        server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        server.write_all(&self.body)?;
        Ok(server)
    }
}

/// The value of a header.
pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// A head without these headers, and without the empty line at its end.
fn without(head: &str, names: &[&str]) -> String {
    let is_kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        !line.is_empty() && !names.iter().any(|one| one.eq_ignore_ascii_case(name))
    };
    let kept = head.lines().filter(is_kept);
    kept.map(|line| format!("{line}\r\n")).collect()
}

/// Reads a head up to the empty line.
pub fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Forwards a request and its answer. `change` gets the answer's body in pieces.
fn forward(
    client: &mut TcpStream,
    upstream: &str,
    request: &Request,
    change: impl Fn(&mut [u8]),
) -> io::Result<()> {
    let mut server = request.send(upstream)?;
    let head = read_head(&mut server)?;
    let head = without(&String::from_utf8_lossy(&head), &["connection"]);
    client.write_all(format!("{head}\r\n").as_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        change(&mut buffer[..count]);
        client.write_all(&buffer[..count])?;
    }
}
