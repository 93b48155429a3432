//! The container's network: whether it exists, and what a container on it cannot reach.

use anyhow::Result;

use crate::{
    base::error::Failure,
    engine::{EngineFacts, container::Container},
    exec::Finished,
    facts::context::{Context, EngineState},
    settings::Network,
};

/// What is known about the configured network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkState {
    /// It can be used, or that is unclear: then the engine itself reports what is wrong when the container
    /// starts.
    Usable,
    Missing,
    /// It is the network of the container that the start replaces.
    OfReplaced,
    /// It is that of a container whose network cannot be shared now, such as a stopped one.
    OfStopped {
        /// The engine's word for the state of that container.
        status: String,
    },
}

/// Asks whether the configured network can be used.
///
/// # Errors
/// When a signal interrupts, and with `container:NAME` when the engine does not answer.
pub fn network_state(cx: &Context, state: &EngineState) -> Result<NetworkState> {
    let run = &cx.settings.run;
    let engine = &state.engine.engine;
    if let Some(name) = run.network.container() {
        if name == run.container {
            return Ok(NetworkState::OfReplaced);
        }
        let Some(container) = cx.container_of(engine, name)? else {
            return Ok(NetworkState::Missing);
        };
        // The name can be an id.
        let is_replaced = |old: &Container| old.id == container.id;
        return Ok(if state.container.as_ref().is_some_and(is_replaced) {
            NetworkState::OfReplaced
        } else if engine.can_share_network_of(&container) {
            NetworkState::Usable
        } else {
            NetworkState::OfStopped {
                status: container.state.status,
            }
        });
    }
    let Some(name) = run.network.created_by_user() else {
        return Ok(NetworkState::Usable);
    };
    let answer = cx.ask(&engine.inspect_network(name));
    cx.exec.fail_if_interrupted()?;
    let is_missing = |answer: &Finished| !answer.ok() && answer.stderr.contains("not found");
    Ok(match answer {
        Ok(answer) if is_missing(&answer) => NetworkState::Missing,
        _ => NetworkState::Usable,
    })
}

/// Refuses a start on a network that cannot be used.
///
/// # Errors
/// When the network does not exist, and when the container cannot share that of another one.
pub fn refuse_unusable_network(
    network: &Network,
    state: &NetworkState,
    engine: &EngineFacts,
) -> Result<(), Failure> {
    let program = &engine.engine.program;
    let another = "use another network: `--network bridge`";
    let container = network.container();
    let name = container.or(network.created_by_user()).unwrap_or_default();
    Err(match state {
        NetworkState::Usable => return Ok(()),
        NetworkState::OfReplaced => Failure::new(format!(
            "the new container cannot share the network of `{name}`, because it replaces that container"
        ))
        .hint(another),
        NetworkState::OfStopped { status } => Failure::new(format!(
            "the new container cannot share the network of `{name}`, because that container is not running (it is {status})"
        ))
        .hint(if status == "restarting" {
            format!("read why it restarts: `{program} logs {name}`; or {another}")
        } else {
            format!("start it: `{program} start {name}`; or {another}")
        }),
        NetworkState::Missing if container.is_some() => Failure::new(format!(
            "there is no container `{name}` whose network the new one could share"
        ))
        .hint(format!("start that container first, or {another}")),
        NetworkState::Missing => Failure::new(format!("{program} has no network `{name}`")).hint(
            format!("create it: `{program} network create {name}`; or {another}"),
        ),
    })
}

/// Why addresses of this machine stay as they are on a network; none if they are replaced.
pub fn why_apart_from_host(network: &Network) -> Option<String> {
    if let Some(other) = network.container() {
        return Some(format!(
            "the container shares the network of `{other}`: `localhost` in its addresses is that container"
        ));
    }
    network.is_apart_from_host().then(|| {
        "the container cannot reach this machine through its network, so its addresses stay as they are".to_owned()
    })
}
