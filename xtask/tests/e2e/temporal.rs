//! The worker in the container polls a real Temporal server.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    engines::{Checkout, PODMAN_ROOTLESS, command_output, var},
    ports::free_port,
};

/// A Temporal dev server on a free port. It is stopped at the end of the test.
struct Server {
    program: String,
    address: String,
    process: Child,
}

impl Server {
    fn start(program: String) -> Self {
        let port = free_port().to_string();
        let process = Command::new(&program)
            .args([
                "server",
                "start-dev",
                "--headless",
                "--ip",
                "127.0.0.1",
                "--port",
                &port,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            program,
            address: format!("localhost:{port}"),
            process,
        }
    }

    /// The pollers of the runner's task queue.
    fn pollers(&self) -> String {
        let asked = Command::new(&self.program)
            .args([
                "task-queue",
                "describe",
                "--task-queue",
                "agent_execution_runner",
                "--address",
                &self.address,
            ])
            .output()
            .unwrap();
        command_output(&asked).stdout
    }

    fn wait_for_poller(&self) {
        for _ in 0..150 {
            if self.pollers().contains("agent-runner-") {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!("no worker polls: {}", self.pollers());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The worker waits for a server that is not running, polls it after its start, and drains on SIGTERM.
pub fn worker_polls(checkout: &Checkout) {
    let Some(program) = var("XTASK_E2E_TEMPORAL") else {
        assert!(
            var("XTASK_E2E_REQUIRE").is_none(),
            "temporal is required, and XTASK_E2E_TEMPORAL is not set"
        );
        let _ = writeln!(std::io::stderr(), "skipped: no temporal");
        return;
    };
    checkout.ok(&["build-image"]);
    let nobody = format!("localhost:{}", free_port());
    let waiting = checkout.run_with(&["run-local"], &[("TEMPORAL_SERVICE_ADDRESS", &nobody)]);
    assert_eq!(waiting.code, 0, "healthy without a server: {waiting:?}");
    let warning = format!(
        "warning: nothing listens at {nobody} (TEMPORAL_SERVICE_ADDRESS)\nhint: start Temporal: `temporal server start-dev`"
    );
    assert!(waiting.stderr.contains(&warning), "{}", waiting.stderr);

    let server = Server::start(program);
    let env = [("TEMPORAL_SERVICE_ADDRESS", server.address.as_str())];
    // On a bridge network, only rootless Podman reaches the host's loopback.
    let networks: &[&str] = if checkout.engine.name == PODMAN_ROOTLESS {
        &["host", "bridge"]
    } else {
        &["host"]
    };
    for network in networks {
        let started = checkout.run_with(&["run-local", "--network", network], &env);
        assert_eq!(started.code, 0, "{started:?}");
        server.wait_for_poller();
        checkout.ok(&["stop", "--keep"]);
        let state = &checkout
            .engine
            .inspect("container", &checkout.container)
            .unwrap()["State"];
        assert_eq!(state["ExitCode"], 0, "{state}");
    }
}
