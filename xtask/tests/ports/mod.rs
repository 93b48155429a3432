//! Ports for servers that tests start, where the server cannot choose one itself.
//!
//! A port that the system chooses (port 0) is not safe: after the socket is closed, the system may give it to another
//! program before the server uses it. By default the system chooses ports above 32767 (Linux) or 49151 (macOS).

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A port on which nothing listens. No other test of this process gets it.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` consecutive ports on which nothing listens. No other test of this process gets them.
pub fn free_ports(count: u16) -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // Processes that run at the same time mostly begin at different ports.
        let number = process::id() * 100 + TRIED.fetch_add(count.into(), Ordering::Relaxed);
        let first = 20_000 + u16::try_from(number % 12_000).unwrap();
        let is_free = |port| {
            ["0.0.0.0", "127.0.0.1"]
                .iter()
                .all(|address| TcpListener::bind((*address, port)).is_ok())
        };
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!(
        "no free port was found: {:?}",
        TcpListener::bind(("0.0.0.0", 20_000))
    );
}
