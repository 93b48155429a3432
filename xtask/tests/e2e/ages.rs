//! Engines of other ages: the oldest that Debian's stable releases have, and newer ones.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::real::{
    Checkout, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_26_CONTAINERD, PODMAN_5,
};

/// An age: what the engine says that it is, and whether its store holds several platforms.
struct Age {
    says: &'static str,
    several_platforms: bool,
}

fn age(name: &str) -> Age {
    let (says, several_platforms) = match name {
        DOCKER_20 | DOCKER_20_CLIENT => ("Docker 20.10.", false),
        DOCKER_26 => ("Docker 26.1.", false),
        DOCKER_26_CONTAINERD => ("Docker 26.1.", true),
        PODMAN_5 => ("Podman 5.", true),
        other => panic!("no age is called {other}"),
    };
    Age {
        says,
        several_platforms,
    }
}

/// The shortest day on which every command meets the engine.
pub fn a_day(it: &Checkout) {
    let age = age(it.real.name);
    is_what_it_is_called(it, &age);
    build(it);
    run_and_stop(it);
    test_image(it);
    build_multiarch(it, &age);
    clean(it);
}

fn is_what_it_is_called(it: &Checkout, age: &Age) {
    let doctor = it.ok(&["doctor"]);
    let engine = doctor.lines().find(|line| line.contains(" engine "));
    let says = format!("engine         {}", age.says);
    assert!(engine.is_some_and(|line| line.contains(&says)), "{doctor}");
}

fn build(it: &Checkout) {
    let built = it.run(&["build-image"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout, format!("{}\n", it.reference()));
}

fn run_and_stop(it: &Checkout) {
    let started = it.run(&["run-local"]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    assert!(started.stderr.contains("Healthy"), "{}", started.stderr);
    let status: Value = serde_json::from_str(&it.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(status["version"], it.version.as_str());
    let start = Instant::now();
    it.ok(&["stop"]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let state = &it.real.inspect("container", &it.container).unwrap()["State"];
    assert_eq!(state["ExitCode"], 0, "it drains on SIGTERM: {state}");
}

fn test_image(it: &Checkout) {
    let result: Value = serde_json::from_str(&it.ok(&["test-image", "--json"])).unwrap();
    assert_eq!(result["ok"], true, "{result}");
}

/// A store that holds one platform refuses to take more. The builder that xtask makes beside it is
/// no other on an old engine, and is tested with a new one.
fn build_multiarch(it: &Checkout, age: &Age) {
    if !age.several_platforms {
        let load = it.run(&["build-multiarch", "--load"]);
        assert_eq!(load.code, 2);
        let refusal = [
            "error: `--load`: the image store of ",
            age.says,
            " holds one platform under a name\nhint: leave `--load` away: the result is an archive\n",
        ];
        for part in refusal {
            assert!(load.stderr.contains(part), "{}", load.stderr);
        }
        return;
    }
    let built = it.run(&["build-multiarch", "--no-check"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    for platform in ["linux/amd64", "linux/arm64"] {
        let verified = format!("Platform {platform}: ");
        assert!(built.stderr.contains(&verified), "{}", built.stderr);
    }
}

fn clean(it: &Checkout) {
    let cleaned = it.run(&["clean", "--yes"]);
    assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
    assert_eq!(it.real.inspect("container", &it.container), None);
    assert_eq!(it.real.inspect("image", &it.reference()), None);
}
