//! The commands of a contributor's day: build, run, inspect, stop, test, clean.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::engines::{Checkout, DOCKER, PODMAN_ROOTLESS, command_output};

pub fn daily_commands(checkout: &Checkout) {
    checkout.restore_budgets();
    without_an_image(checkout);
    build(checkout);
    run_and_inspect(checkout);
    replace_and_stop(checkout);
    paused_container(checkout);
    test_image(checkout);
    clean(checkout);
}

fn without_an_image(checkout: &Checkout) {
    let missing = checkout.run(&["run-local"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing
            .stderr
            .contains("hint: build it: `cargo xtask build-image --version dev-e2e-"),
        "{}",
        missing.stderr
    );
    assert!(checkout.ok(&["status"]).contains("state      missing\n"));
    let again = checkout.run(&["stop", "--keep"]);
    assert!(again.stderr.contains("Nothing to stop"), "{again:?}");
    checkout.ok(&["stop"]);
    let container = checkout.engine.inspect("container", &checkout.container);
    assert!(container.is_none());
    assert!(checkout.run(&["stop"]).stderr.contains("Nothing to stop"));
    assert_eq!(checkout.run(&["doctor"]).code, 0);
}

fn build(checkout: &Checkout) {
    // A large file that must not be in the build context.
    fs::create_dir_all(checkout.src().join("target")).unwrap();
    let junk = fs::File::create(checkout.src().join("target/junk")).unwrap();
    junk.set_len(200_000_000).unwrap();
    let clean = checkout.git(&["status", "--porcelain"]);
    assert_eq!(clean.stdout, "", "{clean:?}");

    let built = checkout.run(&["build-image", "--progress", "plain"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout, format!("{}\n", checkout.reference()));
    if let Some(sent) = context_bytes(&built.stderr) {
        assert!(sent < 2_000_000, "{sent} bytes of context were sent");
    }

    let image = checkout
        .engine
        .inspect("image", &checkout.reference())
        .unwrap();
    let label = |name: &str| {
        image["Config"]["Labels"][format!("org.opencontainers.image.{name}")]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(label("version"), checkout.version);
    assert_eq!(
        label("revision"),
        checkout.git(&["rev-parse", "HEAD"]).stdout.trim()
    );
    assert!(label("created").ends_with('Z'));
    assert!(label("source").starts_with("https://"));
    let health = if image["Healthcheck"].is_null() {
        &image["Config"]["Healthcheck"]
    } else {
        &image["Healthcheck"]
    };
    assert_eq!(
        health["Interval"], 30_000_000_000_u64,
        "the health check is kept: {health}"
    );

    let image = build_unchanged(checkout);

    // After a change, only the last layer is new, and the label marks the uncommitted change.
    let main = checkout.src().join("agent-runner/main.py");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}\n# changed\n")).unwrap();
    checkout.ok(&["build-image"]);
    let changed = checkout
        .engine
        .inspect("image", &checkout.reference())
        .unwrap();
    let revision = changed["Config"]["Labels"]["org.opencontainers.image.revision"]
        .as_str()
        .unwrap();
    assert!(revision.ends_with("-dirty"), "{revision}");
    let layers = |image: &Value| image["RootFS"]["Layers"].as_array().unwrap().clone();
    let (before, after) = (layers(&image), layers(&changed));
    assert_eq!(before.len(), after.len());
    assert_eq!(
        before[..before.len() - 1],
        after[..after.len() - 1],
        "only the last layer is new"
    );
    fs::write(&main, text).unwrap();
}

/// Builds twice, without a change: both builds make the same image.
fn build_unchanged(checkout: &Checkout) -> Value {
    let build = || {
        checkout.ok(&["build-image"]);
        let found = checkout.engine.inspect("image", &checkout.reference());
        found.unwrap()
    };
    // Other tests with the same Podman can replace the image that builds start from: see foundation.rs.
    let foundation = "localhost/agent-runner-foundation";
    let list = ["images", "--no-trunc", "--format", "{{.ID}}", foundation];
    for _ in 0..5 {
        let before = checkout.engine.run(&list).stdout;
        let (first, again) = (build(), build());
        if checkout.engine.run(&list).stdout == before {
            assert_eq!(
                again["RootFS"], first["RootFS"],
                "unchanged sources make unchanged layers"
            );
            assert_eq!(again["Id"], first["Id"], "and the same image");
            return again;
        }
    }
    panic!("other tests replaced the image that builds start from five times");
}

/// The size of the build context that BuildKit was sent; none for Buildah, which reads the folder directly.
fn context_bytes(progress: &str) -> Option<u64> {
    let line = progress
        .lines()
        .rfind(|line| line.contains("transferring context: "))?;
    let size = line
        .split("transferring context: ")
        .nth(1)?
        .split_whitespace()
        .next()?;
    let digits = size.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = size[..digits].parse().ok()?;
    let factor = match &size[digits..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        _ => 1e9,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((number * factor) as u64)
}

fn run_and_inspect(checkout: &Checkout) {
    let started = checkout.run(&["run-local"]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    assert_eq!(started.stdout, format!("{}\n", checkout.container));
    assert!(started.stderr.contains("Healthy"), "{}", started.stderr);
    assert!(
        started
            .stderr
            .contains("warning: nothing listens at localhost:7234"),
        "{}",
        started.stderr
    );

    let status: Value = serde_json::from_str(&checkout.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(status["version"], checkout.version.as_str());
    assert_eq!(status["image"], checkout.reference());
    assert!(
        status["uptime_seconds"]
            .as_u64()
            .is_some_and(|uptime| uptime < 60),
        "{status}"
    );

    // A file that the container writes belongs to the person on the host.
    assert_eq!(checkout.inside("echo hello > /workspace/file").code, 0);
    let file = checkout.workspace().join("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello\n");
    assert_eq!(
        fs::metadata(&file).unwrap().uid(),
        checkout.engine.expected_owner()
    );

    // The container is hardened.
    let proc = checkout.inside("grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo tmp; cat /proc/1/comm; id -u").stdout;
    assert!(proc.contains("CapEff:\t0000000000000000"), "{proc}");
    assert!(proc.contains("NoNewPrivs:\t1"), "{proc}");
    assert!(proc.contains("read-only\ntmp\n"), "{proc}");
    assert!(!proc.contains("python\n"), "an init is process 1: {proc}");
    assert!(!proc.ends_with("\n0\n"), "not root: {proc}");

    if checkout.engine.name == DOCKER {
        shell_on_a_terminal(checkout);
    }
    assert!(
        checkout.ok(&["logs", "--no-follow"]).len()
            + checkout
                .run(&["logs", "--no-follow", "--tail", "5"])
                .stderr
                .len()
            > 0
    );
}

/// On a terminal, `shell` shows a prompt and exits with the shell's code.
fn shell_on_a_terminal(checkout: &Checkout) {
    let mut script = checkout.on_terminal("shell").spawn().unwrap();
    let typed = b"echo $((40+2))\nexit 7\n";
    script.stdin.take().unwrap().write_all(typed).unwrap();
    let seen = command_output(&script.wait_with_output().unwrap());
    assert_eq!(seen.code, 7, "{seen:?}");
    assert!(seen.stdout.contains("$ "), "a prompt: {seen:?}");
    assert!(
        seen.stdout.contains("\r42\r\n"),
        "the output, not the echo of the input: {seen:?}"
    );
}

fn replace_and_stop(checkout: &Checkout) {
    let id = || {
        checkout
            .engine
            .inspect("container", &checkout.container)
            .unwrap()["Id"]
            .clone()
    };
    let first = id();
    checkout.ok(&["run-local"]);
    assert_ne!(id(), first, "our earlier container is replaced");
    assert_eq!(
        fs::read_to_string(checkout.workspace().join("file")).unwrap(),
        "hello\n",
        "the workspace changed"
    );

    let start = Instant::now();
    checkout.ok(&["stop", "--keep"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let state = &checkout
        .engine
        .inspect("container", &checkout.container)
        .unwrap()["State"];
    assert_eq!(state["ExitCode"], 0, "it does not drain: {state}");
    let again = checkout.run(&["stop", "--keep"]);
    assert!(again.stderr.contains("Nothing to stop"), "{again:?}");
    checkout.ok(&["stop"]);
    let container = checkout.engine.inspect("container", &checkout.container);
    assert!(container.is_none());
    assert!(checkout.run(&["stop"]).stderr.contains("Nothing to stop"));
    assert_eq!(checkout.run(&["shell", "--", "true"]).code, 1);
}

/// Commands report that a container is paused, `run-local` replaces it, and `stop` removes it.
fn paused_container(checkout: &Checkout) {
    let engine = &checkout.engine;
    // With cgroups v1, runc sometimes cannot pause a container on a busy machine.
    let pause = || {
        let mut tries = (0..10).map(|_| engine.run(&["pause", &checkout.container]));
        let done = tries.find(|done| !done.stderr.contains("unable to freeze"));
        done.expect("one of ten tries pauses the container")
    };
    checkout.ok(&["run-local"]);
    let paused = pause();
    if engine.name == PODMAN_ROOTLESS && paused.code != 0 {
        assert!(paused.stderr.contains("cgroup"), "{paused:?}");
        checkout.ok(&["stop"]);
        return;
    }
    assert_eq!(paused.code, 0, "{paused:?}");
    let status: Value = serde_json::from_str(&checkout.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["state"], "paused", "{status}");
    let shell = checkout.run(&["shell", "--", "true"]);
    assert_eq!(shell.code, 1);
    for words in ["is paused", " unpause "] {
        assert!(shell.stderr.contains(words), "{words}: {shell:?}");
    }
    checkout.ok(&["run-local"]);
    let again = pause();
    assert_eq!(again.code, 0, "{again:?}");
    checkout.ok(&["stop"]);
    assert!(engine.inspect("container", &checkout.container).is_none());
}

fn test_image(checkout: &Checkout) {
    let result: Value = serde_json::from_str(&checkout.ok(&["test-image", "--json"])).unwrap();
    assert_eq!(result["ok"], true, "{result}");
    let names: Vec<_> = result["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "health check",
            "user",
            "volumes",
            "read-only root",
            "stops on SIGTERM",
            "labels",
            "no secrets",
            "architecture",
            "size compressed",
            "size unpacked"
        ]
    );
    let compressed = result["checks"][8]["detail"].as_str().unwrap();
    assert!(compressed.contains(" MB of "), "{compressed}");
    let tests = checkout.engine.run(&[
        "ps",
        "-aq",
        "--filter",
        &format!("name={}-test", checkout.container),
    ]);
    assert_eq!(tests.stdout.trim(), "", "test-image left a container");
}

fn clean(checkout: &Checkout) {
    let cleaned = checkout.run(&["clean"]);
    assert_eq!(cleaned.code, 2, "without a terminal");
    let cleaned = checkout.run(&["clean", "--yes"]);
    assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
    assert!(cleaned.stderr.contains("Removed"), "{}", cleaned.stderr);
    assert_eq!(
        checkout.engine.inspect("container", &checkout.container),
        None
    );
    assert_eq!(
        checkout.engine.inspect("image", &checkout.reference()),
        None
    );
    assert_eq!(
        fs::read_to_string(checkout.workspace().join("file")).unwrap(),
        "hello\n",
        "clean changed the workspace"
    );
    assert!(
        checkout
            .run(&["clean", "--yes"])
            .stderr
            .contains("nothing of ours to remove")
    );
}
