//! The container's network: whether it exists, and what a container on it cannot reach.

use anyhow::Result;

use crate::{
    base::error::Failure, engine::EngineFacts, exec::Finished, facts::context::Context,
    settings::Network,
};

/// Asks whether the configured network exists. True if that is unclear: then the engine itself
/// reports a missing network when the container starts.
///
/// # Errors
/// When a signal interrupts, and with `container:NAME` when the engine does not answer.
pub fn has_network(cx: &Context, engine: &EngineFacts) -> Result<bool> {
    let network = &cx.settings.run.network;
    if let Some(container) = network.container() {
        return Ok(cx.container_of(&engine.engine, container)?.is_some());
    }
    let Some(name) = network.created_by_user() else {
        return Ok(true);
    };
    let answer = cx.ask(&engine.engine.inspect_network(name));
    cx.exec.fail_if_interrupted()?;
    let is_missing = |answer: &Finished| !answer.ok() && answer.stderr.contains("not found");
    Ok(!answer.is_ok_and(|answer| is_missing(&answer)))
}

/// The failure of a start on a network that does not exist.
pub fn missing_network(network: &Network, engine: &EngineFacts) -> Failure {
    let program = &engine.engine.program;
    let others = "or use another network: `--network bridge`";
    match (network.container(), network.created_by_user()) {
        (Some(container), _) => Failure::new(format!(
            "there is no container `{container}` whose network the new one could share"
        ))
        .hint(format!("start that container first, {others}")),
        (None, name) => {
            let name = name.unwrap_or_default();
            Failure::new(format!("{program} has no network `{name}`")).hint(format!(
                "create it: `{program} network create {name}`; {others}"
            ))
        }
    }
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
