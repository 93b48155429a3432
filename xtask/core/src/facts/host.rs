//! What this machine has: folders, SELinux, and programs that listen on a port.

use std::{
    net::{TcpStream, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A folder on the host that the container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    Missing,
    /// A link, at the path or above it, leads to a place that is not there.
    DanglingLink {
        link: PathBuf,
        target: PathBuf,
    },
    /// Something other than a folder, such as a file. It is mounted unchanged.
    Other,
    Exists {
        uid: u32,
        gid: u32,
        mode: u32,
        /// Whether the system depends on who owns it, such as `/etc`.
        is_of_system: bool,
    },
}

/// Looks at a folder.
pub fn folder(path: &Path) -> Folder {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Folder::Exists {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode(),
            // A path that cannot be resolved may lead to any place.
            is_of_system: path.canonicalize().map_or(true, |real| is_of_system(&real)),
        },
        Ok(_) => Folder::Other,
        Err(_) => dangling_link(path).unwrap_or(Folder::Missing),
    }
}

/// The folders of the system: also everything in them belongs to it.
const SYSTEM_FOLDERS: [&str; 10] = [
    "/bin", "/boot", "/dev", "/etc", "/proc", "/run", "/sbin", "/sys", "/usr", "/var",
];

/// Whether a folder, given without links, belongs to the system: `/`, each folder directly in it, a home
/// folder, and what is in a folder of the system, except in `/var/tmp`.
fn is_of_system(real: &Path) -> bool {
    let depth = real.components().skip(1).count();
    let is_in_system = SYSTEM_FOLDERS.iter().any(|folder| real.starts_with(folder));
    let is_temporary = real.starts_with("/var/tmp") && depth > 2;
    let is_library = real
        .iter()
        .nth(1)
        .is_some_and(|top| top.to_string_lossy().starts_with("lib"));
    let is_home = real.starts_with("/home") && depth == 2;
    depth < 2 || is_home || is_library || (is_in_system && !is_temporary)
}

/// The link on the way to a path that leads nowhere.
fn dangling_link(path: &Path) -> Option<Folder> {
    let exists = |path: &&Path| std::fs::symlink_metadata(path).is_ok();
    let nearest = path.ancestors().find(exists)?;
    let target = std::fs::read_link(nearest).ok()?;
    if std::fs::metadata(nearest).is_ok() {
        return None;
    }
    Some(Folder::DanglingLink {
        link: nearest.to_owned(),
        target: nearest.parent().unwrap_or(nearest).join(target),
    })
}

/// The folders above a path that do not exist, the outermost first.
pub fn missing_parents(path: &Path) -> Vec<PathBuf> {
    let is_missing = |parent: &&Path| std::fs::symlink_metadata(parent).is_err();
    let parents = path.ancestors().skip(1).take_while(is_missing);
    let mut parents: Vec<_> = parents.map(Path::to_owned).collect();
    parents.reverse();
    parents
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

/// The host and port of an address. Without a port it is that of the scheme; none if there is neither.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (default, bare) = match address.split_once("://") {
        Some((scheme, rest)) => (port_of_scheme(scheme), rest),
        None => (None, address),
    };
    let bare = bare.split(['/', '?', '#']).next().unwrap_or(bare);
    let bare = bare.rsplit('@').next().unwrap_or(bare);
    let (host, port) = match bare.rsplit_once(':') {
        // A colon in brackets belongs to an address of IPv6.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (bare, default?),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// An address for a message: `host:port`, without its user, its password and its path. If that cannot be shown, the
/// words say why.
pub fn describe_address(address: &str) -> String {
    let Some((host, port)) = host_and_port(address) else {
        return "an address whose port cannot be read".to_owned();
    };
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    if let Some(end) = bare.find(['/', '?', '#'])
        && bare[end..].contains('@')
    {
        return "an address that is not shown, because what precedes its `@` may be a password"
            .to_owned();
    }
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn port_of_scheme(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_system() {
        for folder in [
            "/",
            "/etc",
            "/srv",
            "/root",
            "/tmp",
            "/home",
            "/home/me",
            "/etc/ssh",
            "/usr/local/share",
            "/lib64/x",
            "/var/lib/docker",
            "/var/tmp",
        ] {
            assert!(is_of_system(Path::new(folder)), "{folder}");
        }
        for folder in [
            "/srv/work",
            "/root/work",
            "/home/me/work",
            "/tmp/x",
            "/var/tmp/x",
            "/etcetera/x",
        ] {
            assert!(!is_of_system(Path::new(folder)), "{folder}");
        }
    }

    #[test]
    fn addresses() {
        let is = |text: &str, host: &str, port| {
            assert_eq!(host_and_port(text), Some((host.to_owned(), port)), "{text}");
        };
        is("localhost:7233", "localhost", 7233);
        is("http://localhost:7234/v1", "localhost", 7234);
        is("[::1]:7233", "::1", 7233);
        is("http://me:pw@box:1/x", "box", 1);
        is("http://localhost/", "localhost", 80);
        is("https://api.example.com", "api.example.com", 443);
        is("HTTPS://[::1]/v1", "::1", 443);
        for unreadable in ["localhost", "", ":7233", "localhost:", "a:70000", "tcp://a"] {
            assert_eq!(host_and_port(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn a_printed_address_has_no_login() {
        let is = |text: &str, expected: &str| {
            assert_eq!(describe_address(text), expected, "{text}");
        };
        is("http://me:pw@box:1/v1?key=x", "box:1");
        is("https://api.example.com/v1", "api.example.com:443");
        is("http://[::1]:1/v1", "[::1]:1");
        let hidden =
            "an address that is not shown, because what precedes its `@` may be a password";
        is("http://me:12/34@box:1", hidden);
        is("http://me:12#34@box:1", hidden);
        for unreadable in ["http://me:p/w@box:1", "localhost"] {
            is(unreadable, "an address whose port cannot be read");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_missing_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("there")).unwrap();
        std::os::unix::fs::symlink("unplugged/disk", at("link")).unwrap();
        std::os::unix::fs::symlink("there", at("good")).unwrap();
        let dangling = Folder::DanglingLink {
            link: at("link"),
            target: at("unplugged/disk"),
        };
        assert_eq!(folder(&at("link")), dangling);
        assert_eq!(folder(&at("link/a/b")), dangling);
        assert_eq!(folder(&at("good/a/b")), Folder::Missing);
        assert!(matches!(folder(&at("good")), Folder::Exists { .. }));
        assert_eq!(missing_parents(&at("good/a/b")), [at("good/a")]);
        assert!(missing_parents(&at("good/a")).is_empty());
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
