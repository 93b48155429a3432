//! Every command with real engines, on the real image. An engine that this machine lacks is
//! skipped, and that is said; in CI it is a failure.
//!
//! Set `XTASK_BUILD_BASE_IMAGE` where docker.io cannot be reached.
#![allow(clippy::disallowed_methods)] // tests start processes and read the environment

mod journey;
mod promises;
mod real;
mod registry;
mod temporal;

use real::{Checkout, DOCKER, DOCKER_CONTAINERD, PODMAN, PODMAN_ROOTLESS, Real};

/// A test of each engine by its name.
macro_rules! on_every_engine {
    ($($module:ident :: $test:ident),* $(,)?) => {
        $(
            mod $test {
                use super::*;

                fn on(engine: &'static str) {
                    if let Some(real) = Real::find(engine) {
                        crate::$module::$test(&Checkout::new(&real, &stringify!($test).replace('_', "-")));
                    }
                }

                #[test]
                fn docker() {
                    on(DOCKER);
                }

                #[test]
                fn docker_containerd() {
                    on(DOCKER_CONTAINERD);
                }

                #[test]
                fn podman() {
                    on(PODMAN);
                }

                #[test]
                fn podman_rootless() {
                    on(PODMAN_ROOTLESS);
                }
            }
        )*
    };
}

on_every_engine!(
    journey::whole_day,
    promises::check_finds_fault,
    promises::cross_build,
    promises::ownership,
    promises::unhealthy,
    promises::secrets,
    promises::interrupted_build,
    promises::interrupted_test,
    promises::published_is_pulled,
    registry::login,
    temporal::worker_polls,
);
