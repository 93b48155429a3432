//! Tests of all commands with real engines and the real image. A test is skipped if this machine does not
//! have its engine; in CI it fails.
//!
//! Set `XTASK_BUILD_BASE_IMAGE` if docker.io cannot be reached.
#![allow(clippy::disallowed_methods)] // tests start processes and read the environment

mod ages;
mod builds;
mod capabilities;
mod engines;
mod export;
mod faults;
mod flavours;
mod foreign;
mod journey;
mod keyless;
mod lookalikes;
mod networks;
#[path = "../ports/mod.rs"]
mod ports;
mod promises;
mod proxy;
#[path = "../publication/mod.rs"]
mod publication;
mod publish;
mod registries;
mod registry;
mod remote;
mod search;
mod secrets;
mod small;
mod stack;
mod temporal;
mod tokens;
mod watch;

use engines::{
    Checkout, DOCKER, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_26_CONTAINERD, DOCKER_29,
    DOCKER_CONTAINERD, DOCKER_ROOTLESS, PODMAN, PODMAN_5, PODMAN_6, PODMAN_ROOTLESS, RealEngine,
};

/// Declares a test for several engines, each with a name.
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

/// Declares tests for every engine.
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
    journey::daily_commands,
    lookalikes::foreign_objects,
    promises::interrupted_build,
    registry::login,
);

// Older and newer versions of the engines, and rootless Docker.
on_engines!(
    ages::all_commands:
    docker_20 = DOCKER_20,
    docker_20_client = DOCKER_20_CLIENT,
    docker_26 = DOCKER_26,
    docker_29 = DOCKER_29,
    docker_rootless = DOCKER_ROOTLESS,
    podman_5 = PODMAN_5,
    podman_6 = PODMAN_6,
);

on_engines!(ages::podman_nodes: podman_6 = PODMAN_6);

// The table in docs/engines.md.
on_engines!(
    capabilities::match_the_table:
    docker = DOCKER,
    docker_containerd = DOCKER_CONTAINERD,
    podman = PODMAN,
    podman_rootless = PODMAN_ROOTLESS,
    docker_20 = DOCKER_20,
    docker_20_client = DOCKER_20_CLIENT,
    docker_26 = DOCKER_26,
    docker_26_containerd = DOCKER_26_CONTAINERD,
    docker_29 = DOCKER_29,
    docker_rootless = DOCKER_ROOTLESS,
    podman_5 = PODMAN_5,
    podman_6 = PODMAN_6,
);

// Tests that do not depend on how an engine runs, with one engine of each kind that supports them.
on_engines!(promises::check_finds_errors: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(promises::foundation: podman = PODMAN, podman_rootless = PODMAN_ROOTLESS, podman_6 = PODMAN_6);
on_engines!(builds::build_arguments: docker = DOCKER, podman = PODMAN);
on_engines!(builds::debians_layout: docker = DOCKER);
on_engines!(builds::ignore_files: docker = DOCKER, podman = PODMAN);
on_engines!(builds::plain_build: docker = DOCKER, podman = PODMAN);
on_engines!(foreign::another_project: docker = DOCKER, docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(foreign::only_a_program: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::failing_container: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::broken_images: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::any_user: docker = DOCKER, podman = PODMAN, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::environment: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(promises::unnamed_volume: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
on_engines!(networks::of_all_kinds: docker = DOCKER, podman = PODMAN);
on_engines!(search::silent_daemon: podman = PODMAN);
on_engines!(promises::interrupted_test: docker = DOCKER, podman = PODMAN);
on_engines!(promises::published_is_pulled: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
// `secrets::not_exposed` covers publishing with the other engines.
on_engines!(
    publish::release: docker = DOCKER,
    docker_containerd = DOCKER_CONTAINERD,
    podman = PODMAN,
);
on_engines!(flavours::published_together: podman = PODMAN);
// Building the real flavour takes long, so each test has one engine.
on_engines!(flavours::flavour_runs: docker = DOCKER);
on_engines!(flavours::flavour_builds: podman = PODMAN);
on_engines!(stack::smoke: docker = DOCKER, podman = PODMAN);
on_engines!(promises::parallel_runs: docker = DOCKER, podman_rootless = PODMAN_ROOTLESS);
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
on_engines!(registries::built_archives: docker_containerd = DOCKER_CONTAINERD, podman = PODMAN);
on_engines!(secrets::not_exposed: docker_containerd = DOCKER_CONTAINERD, podman_rootless = PODMAN_ROOTLESS);
on_engines!(stack::smoke_fails_for_a_broken_image: docker = DOCKER);

on_engines!(export::compose: docker = DOCKER);
on_engines!(export::executions: docker = DOCKER, podman = PODMAN);
on_engines!(export::manifests: docker = DOCKER);
// Podman 6 has no cgroups on the machines of the CI, and then refuses to share a pod's processes.
on_engines!(export::kube_play: podman = PODMAN, podman_5 = PODMAN_5);
on_engines!(export::quadlet: podman_5 = PODMAN_5, podman_6 = PODMAN_6);

// Only one engine, because this test uses the Temporal that is already running.
on_engines!(stack::with_a_running_temporal: docker_containerd = DOCKER_CONTAINERD);
on_engines!(
    stack::with_its_own_temporal: docker = DOCKER,
    podman_rootless = PODMAN_ROOTLESS,
);

#[test]
fn docker_and_podman_publish_equal_images() {
    publish::equal_images();
}
