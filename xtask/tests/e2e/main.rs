//! Every command with real engines, on the real image. An engine that this machine lacks is
//! skipped, and that is said; in CI it is a failure.
//!
//! Set `XTASK_BUILD_BASE_IMAGE` where docker.io cannot be reached.
#![allow(clippy::disallowed_methods)] // tests start processes and read the environment

mod ages;
mod capabilities;
mod engines;
mod faults;
mod journey;
mod lookalikes;
mod promises;
mod proxy;
mod publish;
mod registry;
mod remote;
mod secrets;
mod stack;
mod temporal;
mod tokens;
mod watch;

use engines::{
    Checkout, DOCKER, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_26_CONTAINERD,
    DOCKER_CONTAINERD, PODMAN, PODMAN_5, PODMAN_ROOTLESS, RealEngine,
};

/// A test of engines by their names.
macro_rules! on_engines {
    ($module:ident :: $test:ident: $($name:ident = $engine:expr),* $(,)?) => {
        mod $test {
            use super::*;

            $(
                #[test]
                fn $name() {
                    if let Some(engine) = RealEngine::find($engine) {
                        let purpose = stringify!($test).replace('_', "-");
                        crate::$module::$test(&Checkout::new(&engine, &purpose));
                    }
                }
            )*
        }
    };
}

/// A test of each engine by its name.
macro_rules! on_every_engine {
    ($($module:ident :: $test:ident),* $(,)?) => {
        $(
            on_engines!(
                $module::$test:
                docker = DOCKER,
                docker_containerd = DOCKER_CONTAINERD,
                podman = PODMAN,
                podman_rootless = PODMAN_ROOTLESS,
            );
        )*
    };
}

on_every_engine!(
    journey::whole_day,
    lookalikes::untouched,
    promises::interrupted_build,
    registry::login,
);

// What engines of other ages do otherwise.
on_engines!(
    ages::a_day:
    docker_20 = DOCKER_20,
    docker_20_client = DOCKER_20_CLIENT,
    docker_26 = DOCKER_26,
    docker_26_containerd = DOCKER_26_CONTAINERD,
    podman_5 = PODMAN_5,
);

on_engines!(ages::podman_nodes: podman_5 = PODMAN_5);

// What the table in docs/engines.md says of each.
on_engines!(
    capabilities::of_the_table:
    docker = DOCKER,
    docker_containerd = DOCKER_CONTAINERD,
    podman = PODMAN,
    podman_rootless = PODMAN_ROOTLESS,
    docker_20 = DOCKER_20,
    docker_20_client = DOCKER_20_CLIENT,
    docker_26 = DOCKER_26,
    docker_26_containerd = DOCKER_26_CONTAINERD,
    podman_5 = PODMAN_5,
);

// What does not depend on how an engine is run, once for each that can do it.
on_engines!(promises::check_finds_fault: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(promises::unhealthy: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::interrupted_test: docker = DOCKER, podman = PODMAN);
on_engines!(promises::published_is_pulled: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
// `secrets::nowhere` has the others at work, and publishes without root.
on_engines!(
    publish::release: docker = DOCKER,
    docker_containerd = DOCKER_CONTAINERD,
    podman = PODMAN,
);
on_engines!(stack::smoke: docker = DOCKER, podman = PODMAN);
on_engines!(promises::two_at_once: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::cross_build: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(temporal::worker_polls: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(watch::rounds: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(publish::reproducible: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(promises::interrupted_release: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(publish::shards: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
on_engines!(publish::in_github_actions: docker = DOCKER);
on_engines!(publish::loaded: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(publish::cached: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(publish::nodes: docker = DOCKER);
on_engines!(publish::own_builder: docker = DOCKER);
on_engines!(publish::signed: docker = DOCKER);
on_engines!(publish::listed_content: docker_containerd = DOCKER_CONTAINERD);
on_engines!(secrets::nowhere: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
on_engines!(stack::smoke_finds_fault: docker = DOCKER);

// Two at once would meet on the one Temporal that runs already.
on_engines!(stack::daily_use: docker_containerd = DOCKER_CONTAINERD);
on_engines!(
    stack::whole_stack: docker = DOCKER,
    podman_rootless = PODMAN_ROOTLESS,
);

#[test]
fn docker_and_podman_publish_equal_images() {
    publish::alike();
}
