//! Which engine is chosen, and the error if none answers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::sandbox::{
    PROJECT, Sandbox, answer, container, docker_down, docker_version, no_container, podman_version,
};

const START: &str = "hint: start Docker: `sudo systemctl start docker` (Linux), `open -a Docker` (macOS); or use Podman: `--engine podman`\nhint: see `cargo xtask explain daemon-down`\n";
const INSTALL: &str = "hint: install Docker (https://docs.docker.com/engine/install/) or Podman (`apt-get install podman`, `dnf install podman`); if one is installed, start it: `sudo systemctl start docker`\n";

#[test]
fn stop_asks_one_question() {
    let sandbox = Sandbox::new(PROJECT).engine(
        "docker",
        &[container("running", true), answer("stop", 0, "box\n", "")],
    );
    let output = sandbox.run(&["stop", "--keep", "--quiet"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(
        sandbox.calls(),
        ["docker container inspect box", "docker stop -t 10 box"]
    );
}

#[test]
fn podman_is_used_if_dockers_daemon_is_down() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_down("container inspect box")])
        .engine("podman", &[no_container("podman")]);
    let output = sandbox.run(&["stop"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "     Nothing to stop: there is no container box\n")
    );
    assert_eq!(
        sandbox.calls(),
        [
            "docker container inspect box",
            "podman container inspect box"
        ]
    );
}

#[test]
fn podman_is_used_if_docker_hangs() {
    let hung = json!({ "args": "container inspect box", "sleep_ms": 20_000 });
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[hung])
        .engine("podman", &[no_container("podman")])
        .env("XTASK_ENGINE_TIMEOUT", "300ms");
    let start = Instant::now();
    assert_eq!(sandbox.run(&["stop"]).code, 0);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn podman_installed_as_docker_is_used_as_podman() {
    // The script `docker` of some distributions, which runs podman, prints this message on each call.
    let mut version = podman_version();
    version["stderr"] =
        "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n".into();
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[version]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(
        output.stdout.starts_with("docker build --format docker "),
        "{}",
        output.stdout
    );
    assert!(
        !output.stdout.contains("DOCKER_BUILDKIT"),
        "{}",
        output.stdout
    );
}

#[test]
fn without_an_engine_the_error_lists_each_candidate() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_down("version")])
        .engine("podman", &[answer("version", 125, "", "Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`\n")]);
    let output = sandbox.run(&["build-image", "--version", "dev-me"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        format!(
            "error: no container engine answers\n  \
             docker does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n  \
             podman does not work: Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`\n\
             {START}"
        )
    );
    let none = Sandbox::new(PROJECT).run(&["stop"]);
    assert_eq!(
        none.stderr,
        format!(
            "error: no container engine answers\n  docker is not installed (not in PATH)\n  podman is not installed (not in PATH)\n{INSTALL}"
        )
    );
}

#[test]
fn a_known_failure_has_its_own_hint() {
    let denied = answer(
        "container inspect box",
        1,
        "",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n",
    );
    let output = Sandbox::new(PROJECT)
        .engine("docker", &[denied])
        .run(&["stop"]);
    assert_eq!(
        output.stderr,
        "error: no container engine answers\n  docker does not answer: permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n  podman is not installed (not in PATH)\n\
         hint: add your user to the group: `sudo usermod -aG docker $USER`, then log in again; or use rootless Docker or Podman\nhint: see `cargo xtask explain socket-denied`\n"
    );
}

#[test]
fn a_selected_engine_is_not_replaced_by_another() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_down("container inspect box")])
        .engine("podman", &[no_container("podman")]);
    let output = sandbox.run(&["stop", "--engine", "docker"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("error: Docker was asked for and does not answer\n  docker does not answer: Cannot connect"), "{}", output.stderr);
    assert_eq!(sandbox.calls(), ["docker container inspect box"]);
}

#[test]
fn a_build_without_buildx_fails_with_a_hint() {
    // The output of Docker 28.5.2 without the plugin, and with a plugin that is not executable.
    let missing = "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component to build images with BuildKit:\n       https://docs.docker.com/go/buildx/\n";
    let sandbox = Sandbox::new(PROJECT).engine(
        "docker",
        &[docker_version(), answer("build", 1, "", missing)],
    );
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        format!(
            "{missing}error: `docker build` failed with exit code 1\nhint: install the buildx plugin: `apt-get install docker-buildx` (Debian), `docker-buildx-plugin` (Docker's own packages), `brew install docker-buildx` (macOS)\nhint: see `cargo xtask explain buildx-missing`\n"
        )
    );
    assert!(
        sandbox.calls()[2].starts_with("DOCKER_BUILDKIT=1 docker build "),
        "{:?}",
        sandbox.calls()
    );
}

#[test]
fn podman_is_used_if_dockers_client_is_on_its_socket() {
    let mut version = docker_version();
    version["stdout"] = version["stdout"]
        .as_str()
        .unwrap()
        .replace("\"Engine\"", "\"Podman Engine\"")
        .into();
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[version])
        .engine("podman", &[podman_version()]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert!(output.stdout.starts_with("podman build "), "{output:?}");
}

#[test]
fn doctor_fails_only_if_no_engine_works() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_down("version")])
        .engine("podman", &[podman_version(), answer("info", 0, "/\n", "")]);
    let output = sandbox.run(&["doctor"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output
            .stdout
            .contains("warn engine         docker does not answer: Cannot connect"),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("ok   engine         Podman 4.3.1"),
        "{}",
        output.stdout
    );

    let none = Sandbox::new(PROJECT).run(&["doctor", "--json"]);
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

    let without_buildx = Sandbox::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            answer("buildx version", 1, "", "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information\n"),
            answer("info", 0, "/\n", ""),
        ],
    );
    let output = without_buildx.run(&["doctor"]);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stdout
            .contains("FAIL builder        buildx is missing or broken"),
        "{}",
        output.stdout
    );
}
