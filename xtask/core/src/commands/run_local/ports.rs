//! The ports of this machine that the container publishes.

use std::{io, net::TcpListener};

use crate::{
    base::error::Failure,
    catalogue,
    engine::{EngineFacts, Location, container::Container},
    settings::Settings,
};

/// The published ports on which another program listens. Those of the container that the start replaces are free
/// after that. Empty if the engine publishes them on another machine.
pub fn used_by_others(
    settings: &Settings,
    engine: &EngineFacts,
    replaced: Option<&Container>,
) -> Vec<u16> {
    let run = &settings.run;
    if engine.location != Location::Host || !engine.has_own_ports_on(&run.network) {
        return Vec::new();
    }
    let running = replaced.filter(|container| container.state.is_up());
    let own = running.map(Container::published_ports).unwrap_or_default();
    let ports = run.ports.iter().map(|port| port.host);
    ports
        .filter(|port| !own.contains(port) && is_used(*port))
        .collect()
}

/// Whether a program listens on a port of the loopback. All other failures are the engine's to report.
fn is_used(port: u16) -> bool {
    let error = TcpListener::bind(("127.0.0.1", port)).err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Refuses a start that must fail, before the earlier container is removed.
///
/// # Errors
/// When a port is used.
pub fn refuse_used_ports(ports: &[u16]) -> Result<(), Failure> {
    let [port, ..] = ports else {
        return Ok(());
    };
    Err(Failure::new(format!(
        "another program listens on 127.0.0.1:{port}, which `run.ports` publishes"
    ))
    .hints(catalogue::hints_for_code("port-taken")))
}
