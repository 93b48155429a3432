//! A registry that fails on purpose: between curl and a real registry, it lets requests through,
//! answers in the registry's stead, drops the line, or spoils what comes back.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer with this status, and this body.
    Status(u16, &'static str),
    /// 429, with the seconds after which to come again.
    TooMany(u32),
    /// The line breaks before there is an answer.
    Drop,
    /// The line breaks when the request has come through, and the answer is lost.
    LoseAnswer,
    /// It comes through this much later.
    Late(Duration),
    /// An upload is to go to this host.
    Elsewhere(String),
    /// One byte of the answer's body is another.
    Spoil,
}

#[derive(Clone, Debug)]
struct Rule {
    method: &'static str,
    part: &'static str,
    fault: Fault,
    /// How often it still applies.
    times: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// The requests' first lines, in the order in which they came.
    seen: Vec<String>,
}

pub struct Proxy {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Before a registry, on a port of its own.
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
                // A client that has gone is no fault of the proxy's.
                thread::spawn(move || drop(serve(client, &upstream, &state)));
            }
        });
        proxy
    }

    /// From now on, the first so many requests of the kind meet with a fault.
    pub fn fail(&self, method: &'static str, part: &'static str, fault: Fault, times: usize) {
        self.state.lock().unwrap().rules.push(Rule {
            method,
            part,
            fault,
            times,
        });
    }

    /// How many requests of a kind came.
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

/// Up to the empty line.
pub fn read_head(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Hands everything on, both ways; what comes back goes through `change` piece by piece.
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
