//! The runner at work: Temporal, a stigmer-server, a model, an agent that writes files.

use serde_json::Value;

use crate::{
    real::{Checkout, DOCKER, DOCKER_CONTAINERD, PODMAN, PODMAN_ROOTLESS, Real},
    remote::needed,
};

/// The release's proof of an image holds, and leaves nothing.
pub fn smoke(it: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE"]).is_none() {
        return;
    }
    it.ok(&["build-image"]);
    let told = it.run(&["smoke", "--json"]);
    assert_eq!(told.code, 0, "{}\n{}", told.stdout, told.stderr);
    let result: Value = serde_json::from_str(&told.stdout).unwrap();
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
    let ours = format!("name={}-smoke", it.container);
    let left = it.real.ask(&["ps", "-aq", "--filter", &ours]);
    assert_eq!(left.stdout.trim(), "");
    let left = it.real.ask(&["volume", "ls", "-q", "--filter", &ours]);
    assert_eq!(left.stdout.trim(), "");
    remove_server_image(it);
}

/// An image whose worker cannot work fails the proof.
pub fn smoke_finds_fault(it: &Checkout) {
    if needed(["XTASK_STACK_TEMPORAL_IMAGE"]).is_none() {
        return;
    }
    let activities = it.src().join("agent-runner/worker/activities.py");
    let text = std::fs::read_to_string(&activities).unwrap();
    let broken = text.replace(
        "@activity.defn(name=temporal.ENSURE_THREAD)",
        "@activity.defn(name=\"SomethingElse\")",
    );
    assert_ne!(text, broken);
    std::fs::write(&activities, broken).unwrap();
    it.ok(&["build-image"]);
    let told = it.run(&["smoke"]);
    assert_eq!(told.code, 1, "{}\n{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("ok   healthy"), "{}", told.stdout);
    assert!(
        told.stdout.contains("FAIL an agent runs"),
        "{}",
        told.stdout
    );
    remove_server_image(it);
}

fn remove_server_image(it: &Checkout) {
    let image = format!("localhost/agent-runner-devserver:{}", it.version);
    it.real.ask(&["image", "rm", &image]);
}

/// A day with `up`, `ask` and `down`, with one engine after the other: there is one port 7234.
pub fn daily_use() {
    for engine in [DOCKER, DOCKER_CONTAINERD, PODMAN, PODMAN_ROOTLESS] {
        let Some(real) = Real::find(engine) else {
            continue;
        };
        if needed(["XTASK_STACK_TEMPORAL_IMAGE", "XTASK_E2E_TEMPORAL"]).is_none() {
            return;
        }
        day(&Checkout::new(&real, "daily-use"));
    }
}

fn day(it: &Checkout) {
    let parts = ["", "-server", "-temporal"].map(|part| format!("{}{part}", it.container));
    let running = |name: &str| {
        let found = it.real.inspect("container", name);
        found.is_some_and(|found| found["State"]["Running"] == true)
    };
    // CI's Temporal answers, and is used as it is.
    let up = it.run(&["up"]);
    assert_eq!(up.code, 0, "{}: {}", it.real.name, up.stderr);
    assert!(
        up.stderr.contains("Found Temporal on localhost:7233"),
        "{}",
        up.stderr
    );
    assert!(running(&parts[0]) && running(&parts[1]) && !running(&parts[2]));

    let asked = it.run(&["ask", "--session", "one", "write a haiku into haiku.txt"]);
    assert_eq!(asked.code, 0, "{}: {}", it.real.name, asked.stderr);
    assert_eq!(asked.stdout, "I wrote haiku into haiku.txt.\n");
    assert!(
        asked.stderr.contains("file: haiku.txt\n"),
        "{}",
        asked.stderr
    );
    let made = std::process::Command::new("find")
        .arg(it.workspace())
        .args([
            "-name",
            "haiku.txt",
            "-uid",
            &it.real.expected_owner().to_string(),
        ])
        .output()
        .unwrap();
    let made = crate::real::ran(&made);
    assert_eq!(made.stdout.lines().count(), 1, "{made:?}");

    // Again: what is there stays, and the runner is the newest build's; the session goes on.
    let server = it.real.inspect("container", &parts[1]).unwrap()["Id"].clone();
    it.ok(&["up"]);
    assert_eq!(
        it.real.inspect("container", &parts[1]).unwrap()["Id"],
        server
    );
    let asked = it.run(&["ask", "--session", "one", "read haiku.txt"]);
    assert!(asked.stdout.contains("Worker wakes and polls"), "{asked:?}");

    // An execution that fails says why, and has an exit code.
    let failed = it.run(&["ask", "!fail 401"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("EXECUTION_FAILED: "),
        "{}",
        failed.stderr
    );

    it.ok(&["down"]);
    assert!(
        parts
            .iter()
            .all(|name| it.real.inspect("container", name).is_none())
    );
    let down = it.run(&["down"]);
    assert_eq!(down.code, 0);
    assert!(
        down.stderr.contains("nothing to take down"),
        "{}",
        down.stderr
    );
    let lost = it.run(&["ask", "hello"]);
    assert_eq!(lost.code, 1);
    assert!(
        lost.stderr
            .contains("hint: start one, with all that belongs to it: `cargo xtask up`"),
        "{}",
        lost.stderr
    );

    // What `run-local` started is not `down`'s to remove.
    it.ok(&["run-local"]);
    let down = it.run(&["down"]);
    assert!(
        down.stderr.contains("stays: `up` did not start it"),
        "{}",
        down.stderr
    );
    assert!(running(&parts[0]));
    remove_server_image(it);
}
