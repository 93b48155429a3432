//! A proxy between curl and a real registry that simulates failures: it forwards requests, answers them
//! itself, drops connections, or corrupts answers.

use std::{
    io::{Read, Write},
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
    part: &'static str,
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
    pub fn fail(&self, method: &'static str, part: &'static str, fault: Fault, times: usize) {
        self.state.lock().unwrap().rules.push(Rule {
            method,
            part,
            fault,
            times,
        });
    }

    /// The number of matching requests.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let state = self.state.lock().unwrap();
        let is = |line: &&String| line.starts_with(method) && line.contains(part);
        state.seen.iter().filter(is).count()
    }
}

fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let head = read_head(&mut client)?;
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default().to_owned();
    let fault = {
        let mut state = state.lock().unwrap();
        state.seen.push(line.clone());
        let rule = state.rules.iter_mut().find(|rule| {
            rule.times > 0 && line.starts_with(rule.method) && line.contains(rule.part)
        });
        rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        })
    };
    match fault {
        None => forward(client, upstream, &head, |_| {}),
        Some(Fault::Late(time)) => {
            thread::sleep(time);
            forward(client, upstream, &head, |_| {})
        }
        Some(Fault::Spoil) => forward(client, upstream, &head, |body| {
            if let Some(byte) = body.last_mut() {
                *byte ^= 1;
            }
        }),
        Some(Fault::Drop) => client.shutdown(Shutdown::Both),
        Some(Fault::LoseAnswer) => {
            let mut server = TcpStream::connect(upstream)?;
            server.write_all(&head)?;
            let mut answer = [0; 1];
            let mut from_client = client.try_clone()?;
            let mut to_server = server.try_clone()?;
            thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let _ = server.read(&mut answer)?;
            client.shutdown(Shutdown::Both)
        }
        Some(Fault::Status(status, body)) => {
            let length = body.len();
            write!(
                client,
                "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
        }
        Some(Fault::Elsewhere(host)) => write!(
            client,
            "HTTP/1.1 202 x\r\nLocation: http://{host}/upload\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        Some(Fault::TooMany(seconds)) => write!(
            client,
            "HTTP/1.1 429 x\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    }
}

/// Reads a request up to the empty line.
pub fn read_head(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Forwards a request and its answer. `change` gets the answer in pieces.
fn forward(
    mut client: TcpStream,
    upstream: &str,
    head: &[u8],
    change: impl Fn(&mut [u8]),
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(head)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            return client.shutdown(Shutdown::Write);
        }
        change(&mut buffer[..count]);
        client.write_all(&buffer[..count])?;
    }
}
