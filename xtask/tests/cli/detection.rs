//! Which engine is chosen, and what is said where none is.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{
    PROJECT, World, answer, container, docker_down, docker_version, no_container, podman_version,
};

const START: &str = "hint: start Docker: `sudo systemctl start docker` (Linux), `open -a Docker` (macOS); or use Podman: `--engine podman`\nhint: see `cargo xtask explain daemon-down`\n";
const INSTALL: &str = "hint: install Docker (https://docs.docker.com/engine/install/) or Podman (`apt-get install podman`, `dnf install podman`); if one is installed, start it: `sudo systemctl start docker`\n";

#[test]
fn the_usual_case_asks_one_process_before_it_acts() {
    let world = World::new(PROJECT).engine(
        "docker",
        &[container("running", true), answer("stop", 0, "box\n", "")],
    );
    let ran = world.run(&["stop", "--keep", "--quiet"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(
        world.calls(),
        ["docker container inspect box", "docker stop -t 10 box"]
    );
}

#[test]
fn a_dead_docker_is_passed_over_for_a_living_podman() {
    let world = World::new(PROJECT)
        .engine("docker", &[docker_down("container inspect box")])
        .engine("podman", &[no_container("podman")]);
    let ran = world.run(&["stop"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "     Nothing to stop: there is no container box\n")
    );
    assert_eq!(
        world.calls(),
        [
            "docker container inspect box",
            "podman container inspect box"
        ]
    );
}

#[test]
fn a_hung_docker_is_passed_over_in_time() {
    let hung = json!({ "args": "container inspect box", "sleep_ms": 20_000 });
    let world = World::new(PROJECT)
        .engine("docker", &[hung])
        .engine("podman", &[no_container("podman")])
        .env("XTASK_ENGINE_TIMEOUT", "300ms");
    let start = Instant::now();
    assert_eq!(world.run(&["stop"]).code, 0);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn podman_posing_as_docker_is_used_as_podman() {
    // The script that some distributions ship says so on standard error, each time.
    let mut version = podman_version();
    version["stderr"] =
        "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n".into();
    let world = World::new(PROJECT).engine("docker", &[version]);
    let ran = world.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("docker build --format docker "),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("DOCKER_BUILDKIT"), "{}", ran.stdout);
}

#[test]
fn where_none_answers_each_candidate_has_its_line() {
    let world = World::new(PROJECT)
        .engine("docker", &[docker_down("version")])
        .engine("podman", &[answer("version", 125, "", "Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`\n")]);
    let ran = world.run(&["build-image", "--version", "dev-me"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        format!(
            "error: no container engine answers\n  \
             docker does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n  \
             podman does not work: Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`\n\
             {START}"
        )
    );
    let none = World::new(PROJECT).run(&["stop"]);
    assert_eq!(
        none.stderr,
        format!(
            "error: no container engine answers\n  docker is not installed (not in PATH)\n  podman is not installed (not in PATH)\n{INSTALL}"
        )
    );
}

#[test]
fn what_is_known_to_mend_it_is_told_instead_of_installing() {
    let denied = answer(
        "container inspect box",
        1,
        "",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n",
    );
    let ran = World::new(PROJECT)
        .engine("docker", &[denied])
        .run(&["stop"]);
    assert_eq!(
        ran.stderr,
        "error: no container engine answers\n  docker does not answer: permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n  podman is not installed (not in PATH)\n\
         hint: add your user to the group: `sudo usermod -aG docker $USER`, then log in again; or use rootless Docker or Podman\nhint: see `cargo xtask explain socket-denied`\n"
    );
}

#[test]
fn an_engine_that_was_asked_for_is_not_replaced() {
    let world = World::new(PROJECT)
        .engine("docker", &[docker_down("container inspect box")])
        .engine("podman", &[no_container("podman")]);
    let ran = world.run(&["stop", "--engine", "docker"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("error: Docker was asked for and does not answer\n  docker does not answer: Cannot connect"), "{}", ran.stderr);
    assert_eq!(world.calls(), ["docker container inspect box"]);
}

#[test]
fn a_build_without_buildx_fails_aloud_with_the_fix() {
    // Docker 28.5.2 without its plugin, and with one that is not executable.
    let missing = "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component to build images with BuildKit:\n       https://docs.docker.com/go/buildx/\n";
    let world = World::new(PROJECT).engine(
        "docker",
        &[docker_version(), answer("build", 1, "", missing)],
    );
    let ran = world.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        format!(
            "{missing}error: `docker build` failed with exit code 1\nhint: install the buildx plugin: `apt-get install docker-buildx` (Debian), `docker-buildx-plugin` (Docker's own packages), `brew install docker-buildx` (macOS)\nhint: see `cargo xtask explain buildx-missing`\n"
        )
    );
    assert!(
        world.calls()[2].starts_with("DOCKER_BUILDKIT=1 docker build "),
        "{:?}",
        world.calls()
    );
}

#[test]
fn a_client_on_podmans_socket_gives_way_to_podman() {
    let mut version = docker_version();
    version["stdout"] = version["stdout"]
        .as_str()
        .unwrap()
        .replace("\"Engine\"", "\"Podman Engine\"")
        .into();
    let world = World::new(PROJECT)
        .engine("docker", &[version])
        .engine("podman", &[podman_version()]);
    let ran = world.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert!(ran.stdout.starts_with("podman build "), "{ran:?}");
}

#[test]
fn doctor_explains_and_fails_only_where_the_engine_cannot_work() {
    let world = World::new(PROJECT)
        .engine("docker", &[docker_down("version")])
        .engine("podman", &[podman_version(), answer("info", 0, "/\n", "")]);
    let ran = world.run(&["doctor"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout
            .contains("warn engine         docker does not answer: Cannot connect"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("ok   engine         Podman 4.3.1"),
        "{}",
        ran.stdout
    );

    let none = World::new(PROJECT).run(&["doctor", "--json"]);
    assert_eq!(none.code, 1);
    let report: serde_json::Value = serde_json::from_str(&none.stdout).unwrap();
    assert_eq!(
        (&report["schema"], &report["ok"]),
        (&json!(1), &json!(false))
    );
    let engine = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["what"] == "engine")
        .unwrap();
    assert_eq!(engine["level"], "failure");

    let without_buildx = World::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            answer("buildx version", 1, "", "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information\n"),
            answer("info", 0, "/\n", ""),
        ],
    );
    let ran = without_buildx.run(&["doctor"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout
            .contains("FAIL builder        buildx is missing or broken"),
        "{}",
        ran.stdout
    );
}
