//! The runner with Temporal, a stigmer-server, a model, and an agent that writes files.

use serde_json::Value;

use crate::{
    engines::{Checkout, CommandOutput},
    ports::{free_port, free_ports},
    remote::needed,
};

/// `smoke` passes and leaves no containers or volumes.
pub fn smoke(checkout: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE"]).is_none() {
        return;
    }
    checkout.ok(&["build-image"]);
    let output = checkout.run(&["smoke", "--json"]);
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    let checks: Vec<_> = result["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["name"].as_str().unwrap(), check["ok"] == true))
        .collect();
    assert_eq!(
        checks,
        [
            ("healthy", true),
            ("an agent runs", true),
            ("it wrote its file", true),
            ("files are kept", true),
            ("a session remembers", true),
        ]
    );
    let ours = format!("name={}-smoke", checkout.container);
    let left = checkout.engine.run(&["ps", "-aq", "--filter", &ours]);
    assert_eq!(left.stdout.trim(), "");
    let left = checkout
        .engine
        .run(&["volume", "ls", "-q", "--filter", &ours]);
    assert_eq!(left.stdout.trim(), "");
    remove_server_image(checkout);
}

/// `smoke` fails for an image whose worker does not work.
pub fn smoke_fails_for_a_broken_image(checkout: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE"]).is_none() {
        return;
    }
    let activities = checkout.src().join("agent-runner/worker/activities.py");
    let text = std::fs::read_to_string(&activities).unwrap();
    let broken = text.replace(
        "@activity.defn(name=temporal.ENSURE_THREAD)",
        "@activity.defn(name=\"SomethingElse\")",
    );
    assert_ne!(text, broken);
    std::fs::write(&activities, broken).unwrap();
    checkout.ok(&["build-image"]);
    let output = checkout.run(&["smoke"]);
    assert_eq!(output.code, 1, "{}\n{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("ok   healthy"), "{}", output.stdout);
    assert!(
        output.stdout.contains("FAIL an agent runs"),
        "{}",
        output.stdout
    );
    remove_server_image(checkout);
}

pub fn remove_server_image(checkout: &Checkout) {
    let image = format!("localhost/agent-runner-devserver:{}", checkout.version);
    checkout.engine.run(&["image", "rm", &image]);
}

/// `up`, `ask` and `down` with a Temporal that is already running.
pub fn with_a_running_temporal(checkout: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE", "XTASK_E2E_TEMPORAL"]).is_none() {
        return;
    }
    day(checkout, 7233);
}

/// The same without a running Temporal: `up` starts one, and `down` removes it.
pub fn with_its_own_temporal(checkout: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE"]).is_none() {
        return;
    }
    day(checkout, free_port());
}

/// A checkout whose stack has its own ports and task queue, because engines are tested in parallel.
pub struct OwnStack<'a> {
    checkout: &'a Checkout<'a>,
    env: [(&'static str, String); 3],
}

impl<'a> OwnStack<'a> {
    /// `temporal` is the port of Temporal.
    pub fn new(checkout: &'a Checkout<'a>, temporal: u16) -> Self {
        let env = [
            ("TEMPORAL_SERVICE_ADDRESS", format!("localhost:{temporal}")),
            (
                "STIGMER_BACKEND_ENDPOINT",
                format!("localhost:{}", free_ports(2)),
            ),
            // The server must use the same queue.
            (
                "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE",
                format!("queue-{}", checkout.container),
            ),
        ];
        Self { checkout, env }
    }

    pub fn run(&self, args: &[&str]) -> CommandOutput {
        let env: Vec<_> = self
            .env
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.checkout.run_with(args, &env)
    }

    pub fn ok(&self, args: &[&str]) -> CommandOutput {
        let output = self.run(args);
        assert_eq!(
            output.code, 0,
            "{} {args:?}: {}",
            self.checkout.engine.name, output.stderr
        );
        output
    }
}

fn day(on: &Checkout, temporal: u16) {
    let checkout = OwnStack::new(on, temporal);
    let parts = ["", "-server", "-temporal"].map(|part| format!("{}{part}", on.container));
    let running = |name: &str| {
        let found = on.engine.inspect("container", name);
        found.is_some_and(|found| found["State"]["Running"] == true)
    };
    let up = checkout.ok(&["up"]);
    let found = format!("Found Temporal on localhost:{temporal}");
    let usual = temporal == 7233;
    assert_eq!(up.stderr.contains(&found), usual, "{}", up.stderr);
    assert!(running(&parts[0]) && running(&parts[1]));
    assert_eq!(running(&parts[2]), !usual);

    let asked = checkout.run(&["ask", "--session", "one", "write a haiku into haiku.txt"]);
    assert_eq!(asked.code, 0, "{}: {}", on.engine.name, asked.stderr);
    assert_eq!(asked.stdout, "I wrote haiku into haiku.txt.\n");
    let file = on.workspace().join("thread-one/haiku.txt");
    let shown = format!("file: {}\n", file.display());
    assert!(asked.stderr.contains(&shown), "{}", asked.stderr);
    assert!(file.is_file());
    let made = std::process::Command::new("find")
        .arg(on.workspace())
        .args([
            "-name",
            "haiku.txt",
            "-uid",
            &on.engine.expected_owner().to_string(),
        ])
        .output()
        .unwrap();
    let made = crate::engines::command_output(&made);
    assert_eq!(made.stdout.lines().count(), 1, "{made:?}");

    // A second `up` keeps the servers and replaces the runner. The session continues.
    let server = on.engine.inspect("container", &parts[1]).unwrap()["Id"].clone();
    checkout.ok(&["up"]);
    assert_eq!(
        on.engine.inspect("container", &parts[1]).unwrap()["Id"],
        server
    );
    let asked = checkout.run(&["ask", "--session", "one", "read haiku.txt"]);
    assert!(asked.stdout.contains("Worker wakes and polls"), "{asked:?}");

    // A server whose sources have changed is replaced.
    let script = on.src().join("agent-runner/devserver/script.py");
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, format!("{text}\n")).unwrap();
    checkout.ok(&["up"]);
    assert_ne!(
        on.engine.inspect("container", &parts[1]).unwrap()["Id"],
        server
    );

    // The runner of `run-local` continues with the scripted model, and belongs to the stack.
    let runner = checkout.ok(&["run-local"]);
    assert!(runner.stderr.contains("Model scripted"), "{runner:?}");
    let asked = checkout.run(&["ask", "hello"]);
    assert_eq!(asked.code, 0, "{asked:?}");

    // A failed execution is reported, with a nonzero exit code.
    let failed = checkout.run(&["ask", "!fail 401"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    for words in ["EXECUTION_FAILED: ", "error: the execution failed"] {
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }

    checkout.ok(&["down"]);
    assert!(
        parts
            .iter()
            .all(|name| on.engine.inspect("container", name).is_none())
    );
    let down = checkout.run(&["down"]);
    assert_eq!(down.code, 0);
    assert!(down.stderr.contains("Nothing to stop"), "{}", down.stderr);
    let lost = checkout.run(&["ask", "hello"]);
    assert_eq!(lost.code, 1);
    assert!(
        lost.stderr
            .contains("hint: start the stack: `cargo xtask up`"),
        "{}",
        lost.stderr
    );

    // `down` keeps a container that `run-local` started.
    checkout.ok(&["run-local"]);
    let down = checkout.run(&["down"]);
    assert!(
        down.stderr.contains("stays: `up` did not start it"),
        "{}",
        down.stderr
    );
    assert!(running(&parts[0]));
    remove_server_image(on);
}
