//! What this machine has: folders, SELinux, and programs that listen on a port.

use std::{
    net::{TcpStream, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

/// A folder on the host that the container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    Missing,
    /// Something other than a folder, such as a file. It is mounted unchanged.
    Other,
    Exists {
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

/// Looks at a folder.
pub fn folder(path: &Path) -> Folder {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Folder::Exists {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode(),
        },
        Ok(_) => Folder::Other,
        Err(_) => Folder::Missing,
    }
}

/// Whether SELinux is enforcing on this host.
pub fn selinux_enforcing() -> bool {
    std::fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|state| state.trim() == "1")
}

/// Whether something listens at an address such as `localhost:7233` or `http://localhost:7234`.
pub fn listens(address: &str) -> bool {
    const LIMIT: Duration = Duration::from_millis(300);
    const LOOKUP_LIMIT: Duration = Duration::from_secs(2);
    let Some((host, port)) = host_and_port(address) else {
        return true;
    };
    // Looking up a name has no time limit of its own.
    let (answer, found) = mpsc::channel();
    thread::spawn(move || answer.send((host.as_str(), port).to_socket_addrs()));
    let found = found.recv_timeout(LOOKUP_LIMIT).ok().and_then(Result::ok);
    found.is_some_and(|mut found| found.any(|to| TcpStream::connect_timeout(&to, LIMIT).is_ok()))
}

/// The host and port of an address; none where it names no port.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    let (host, port) = bare.rsplit_once(':')?;
    let host = host.rsplit('@').next().unwrap_or(host);
    Some((
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let is = |text: &str, host: &str, port| {
            assert_eq!(host_and_port(text), Some((host.to_owned(), port)), "{text}");
        };
        is("localhost:7233", "localhost", 7233);
        is("http://localhost:7234/v1", "localhost", 7234);
        is("[::1]:7233", "::1", 7233);
        is("http://me:pw@box:1/x", "box", 1);
        assert_eq!(host_and_port("localhost"), None);
        assert_eq!(host_and_port("http://localhost/"), None);
    }

    #[test]
    fn listening_and_closed_ports_are_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(listens(&address));
        // Port 1 is always closed. After the listener is dropped, another process could take its port.
        assert!(!listens("127.0.0.1:1"));
    }
}
