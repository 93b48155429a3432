//! Older and newer versions of the engines: the oldest ones of Debian's stable releases, and recent ones.

use std::{
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    engines::{
        Checkout, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_29, DOCKER_ROOTLESS, PODMAN_5,
        PODMAN_6, RealEngine,
    },
    publish::Publisher,
    remote::Remote,
    small,
};

/// A timestamp that no other file or build step has.
const EPOCH: &str = "1234567890";
const AT_EPOCH: &str = "2009-02-13T23:31:30Z";

/// An engine version: the start of its description, and whether its store supports several platforms.
struct Age {
    says: &'static str,
    several_platforms: bool,
}

fn age(name: &str) -> Age {
    let (says, several_platforms) = match name {
        DOCKER_20 | DOCKER_20_CLIENT => ("Docker 20.10.", false),
        DOCKER_26 => ("Docker 26.1.", false),
        DOCKER_29 => ("Docker 29.", true),
        DOCKER_ROOTLESS => ("Docker 28.", false),
        PODMAN_5 => ("Podman 5.", true),
        PODMAN_6 => ("Podman 6.", true),
        other => panic!("unknown engine version {other}"),
    };
    Age {
        says,
        several_platforms,
    }
}

/// Two clients share this daemon, and each removes the images of this test.
static DOCKER_20_DAEMON: Mutex<()> = Mutex::new(());

/// Runs the commands that use the engine.
pub fn all_commands(checkout: &Checkout) {
    let age = age(checkout.engine.name);
    let _alone = [DOCKER_20, DOCKER_20_CLIENT]
        .contains(&checkout.engine.name)
        .then(|| {
            DOCKER_20_DAEMON
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        });
    version_is_detected(checkout, &age);
    build(checkout);
    run_and_stop(checkout);
    test_image(checkout);
    build_multiarch(checkout, &age);
    clean(checkout);
}

fn version_is_detected(checkout: &Checkout, age: &Age) {
    let doctor = checkout.ok(&["doctor"]);
    let engine = doctor.lines().find(|line| line.contains(" engine "));
    let says = format!("engine         {}", age.says);
    assert!(engine.is_some_and(|line| line.contains(&says)), "{doctor}");
}

fn build(checkout: &Checkout) {
    let built = checkout.run(&["build-image"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout, format!("{}\n", checkout.reference()));
}

fn run_and_stop(checkout: &Checkout) {
    let started = checkout.run(&["run-local"]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    assert!(started.stderr.contains("Healthy"), "{}", started.stderr);
    let status: Value = serde_json::from_str(&checkout.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(status["version"], checkout.version.as_str());
    assert_eq!(
        checkout.ok(&["shell", "echo", "from inside"]),
        "from inside\n"
    );
    let log = checkout.run(&["logs", "--no-follow"]);
    assert_eq!(log.code, 0, "{}", log.stderr);
    let lines = format!("{}{}", log.stdout, log.stderr);
    assert!(lines.contains("Temporal"), "{lines}");
    let start = Instant::now();
    checkout.ok(&["stop", "--keep"]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let state = &checkout
        .engine
        .inspect("container", &checkout.container)
        .unwrap()["State"];
    assert_eq!(state["ExitCode"], 0, "it does not drain: {state}");
    checkout.ok(&["stop"]);
    let container = checkout.engine.inspect("container", &checkout.container);
    assert!(container.is_none());
}

fn test_image(checkout: &Checkout) {
    let tested = checkout.run(&["test-image", "--json"]);
    assert_eq!(tested.code, 0, "{tested:?}");
    let result: Value = serde_json::from_str(&tested.stdout).unwrap();
    assert_eq!(result["ok"], true, "{result}");
}

/// A single-platform store rejects `--load`. Builds with the builder that xtask creates do not depend on the
/// engine's version, so another test runs them with a new engine.
fn build_multiarch(checkout: &Checkout, age: &Age) {
    if !age.several_platforms {
        let load = checkout.run(&["build-multiarch", "--load"]);
        assert_eq!(load.code, 2);
        let refusal = [
            "error: `--load`: the image store of ",
            age.says,
            " holds only one platform per name\nhint: leave out `--load`: the result is an archive\n",
        ];
        for part in refusal {
            assert!(load.stderr.contains(part), "{}", load.stderr);
        }
        return;
    }
    // Podman 5.8 reads the variable too, as one of its options.
    let time = [("SOURCE_DATE_EPOCH", EPOCH)];
    let built = checkout.run_with(&["build-multiarch", "--no-check"], &time);
    assert_eq!(built.code, 0, "{}", built.stderr);
    for platform in ["linux/amd64", "linux/arm64"] {
        let verified = format!("Platform {platform}: ");
        assert!(built.stderr.contains(&verified), "{}", built.stderr);
    }
    // This includes the steps that `build-image` has left in the cache.
    for config in configurations(built.stdout.trim()) {
        let history = config["history"].as_array().unwrap();
        let steps = history.iter().map(|step| &step["created"]);
        for created in steps.chain([&config["created"]]) {
            assert_eq!(created, AT_EPOCH, "{config}");
        }
    }
}

/// The image configurations of all platforms in an archive.
fn configurations(archive: &str) -> Vec<Value> {
    let read = |name: &str| -> Value {
        let file = Command::new("tar").args(["-xOf", archive, name]).output();
        serde_json::from_slice(&file.unwrap().stdout).unwrap()
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        read(&format!("blobs/{}", digest.replace(':', "/")))
    };
    let index = blob(&read("index.json")["manifests"][0]);
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "{index}");
    manifests
        .iter()
        .map(|one| blob(&blob(one)["config"]))
        .collect()
}

fn clean(checkout: &Checkout) {
    let cleaned = checkout.run(&["clean", "--yes"]);
    assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
    assert_eq!(
        checkout.engine.inspect("container", &checkout.container),
        None
    );
    assert_eq!(
        checkout.engine.inspect("image", &checkout.reference()),
        None
    );
}

/// A Podman service with its own image store, like one on another machine.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    /// Starts the service. Its socket is in a folder of the engine, because the engine may not see our
    /// folders.
    fn start(engine: &RealEngine, name: &str) -> Self {
        let address = format!("unix:///run/xtask-e2e-{name}.sock");
        let child = engine
            .command(&[
                "--root",
                &format!("/var/lib/containers/xtask-e2e-{name}"),
                "--runroot",
                &format!("/run/xtask-e2e-{name}"),
                "system",
                "service",
                "--time=0",
                &address,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while service.ask(engine, &["version"]) != 0 {
            assert!(
                Instant::now() < deadline,
                "{address} does not answer",
                address = service.address
            );
            thread::sleep(Duration::from_millis(100));
        }
        service
    }

    fn ask(&self, engine: &RealEngine, args: &[&str]) -> i32 {
        engine.run(&[&["--url", &self.address], args].concat()).code
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each machine builds for its platform and keeps no image. The images are published as one release.
pub fn podman_nodes(checkout: &Checkout) {
    let Some(remote) = Remote::open("podman-nodes") else {
        return;
    };
    small::project(checkout);
    let nodes = ["amd64", "arm64"].map(|arch| (arch, Service::start(checkout.engine, arch)));
    let words: Vec<_> = nodes
        .iter()
        .map(|(arch, node)| format!("linux/{arch}={}", node.address))
        .collect();
    let words = words.join(",");
    let release = Publisher::new(checkout, remote);
    let args = [
        "push-multiarch",
        "--no-check",
        "--version",
        &checkout.version,
    ];
    let pushed = release.run_with(&args, &[("XTASK_BUILD_NODES", &words)]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    for (arch, node) in &nodes {
        let built = format!(
            "Building for linux/{arch} with Podman at {}\n",
            node.address
        );
        assert!(pushed.stderr.contains(&built), "{}", pushed.stderr);
        let kept = format!(
            "reference=localhost/agent-runner-xtask-release:{}-*",
            checkout.version
        );
        let line = [
            "--url",
            &node.address,
            "images",
            "--quiet",
            "--filter",
            &kept,
        ];
        let found = checkout.engine.run(&line);
        assert_eq!((found.code, found.stdout.as_str()), (0, ""), "{arch}");
    }
    // This also verifies the registry's content: both platforms, with their health checks.
    let verified = release.run(&["verify-image", "--version", &checkout.version]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
}
