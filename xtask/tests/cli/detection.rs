//! Which engine is chosen, and the error if none answers.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::sandbox::{
    PROJECT, Sandbox, answer, container, docker_down, docker_version, hung, image, no_container,
    podman_container, podman_version,
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
fn a_daemon_that_does_not_run_has_no_container() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_down("container inspect box")])
        .engine("podman", &[no_container("podman")]);
    let output = sandbox.run(&["stop"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "     Nothing to stop: there is no container box\n")
    );
    let mut calls = sandbox.calls();
    calls.sort();
    assert_eq!(
        calls,
        [
            "docker container inspect box",
            "podman container inspect box"
        ]
    );
}

/// Docker is installed for other users. A user who may not use it has no container there.
#[test]
fn an_engine_that_the_user_may_not_use_has_no_container_of_theirs() {
    let denied = "permission denied while trying to connect to the Docker daemon socket at \
                  unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied\n";
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[answer("container inspect", 1, "", denied)])
        .engine("podman", &[no_container("podman")]);
    let output = sandbox.run(&["stop"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "     Nothing to stop: there is no container box\n")
    );
}

/// A Docker that sleeps, and a Podman without the container.
fn asleep() -> Sandbox {
    Sandbox::new(PROJECT)
        .engine("docker", &[hung("container inspect"), hung("version")])
        .engine("podman", &[no_container("podman"), podman_version()])
        .env("XTASK_ENGINE_TIMEOUT", "300ms")
}

#[test]
fn an_engine_that_does_not_answer_may_have_the_container() {
    for command in ["stop", "logs", "shell", "clean --yes"] {
        let start = Instant::now();
        let output = asleep().run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(output.code, 1, "{command}: {output:?}");
        let why = "`docker` did not answer within 300ms";
        assert!(output.stderr.contains(why), "{command}: {}", output.stderr);
        let hint = "`--engine podman`";
        assert!(output.stderr.contains(hint), "{command}: {}", output.stderr);
        assert!(!output.stderr.contains("Nothing"), "{}", output.stderr);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{command}: {took:?}");
    }
    let output = asleep().run(&["status"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("state      unknown"), "{output:?}");
    assert_eq!(
        output.stderr,
        "warning: `docker` did not answer within 300ms; it may have a container `box` too\n"
    );
    assert_eq!(asleep().run(&["status", "--exit-code"]).code, 1);
    let json = asleep().run(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["state"], "unknown");
    assert_eq!(
        report["no_answer"],
        json!(["docker did not answer within 300ms"])
    );
    // With `--engine`, no other engine is asked.
    let podman = asleep().run(&["stop", "--engine", "podman"]);
    assert_eq!(podman.code, 0, "{podman:?}");
}

#[test]
fn a_container_is_found_in_the_engine_that_has_it() {
    let sandbox = |status: &str| {
        Sandbox::new(PROJECT)
            .engine("docker", &[no_container("docker")])
            .engine(
                "podman",
                &[
                    podman_container(status),
                    answer("stop", 0, "box\n", ""),
                    answer("unpause", 0, "box\n", ""),
                    answer("rm", 0, "box\n", ""),
                    answer("logs", 0, "a line\n", ""),
                    answer("exec", 0, "", ""),
                ],
            )
    };
    let running = sandbox("running");
    let output = running.run(&["stop", "--quiet"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(
        running.calls()[2..],
        ["podman stop -t 10 box", "podman rm --force --time 0 box"]
    );
    assert_eq!(sandbox("running").run(&["logs"]).stdout, "a line\n");
    assert_eq!(sandbox("running").run(&["shell", "true"]).code, 0);
    let status = sandbox("running").run(&["status"]).stdout;
    assert!(status.contains("engine     Podman"), "{status}");
}

/// The container runs in Podman; the settings prefer Docker.
fn started_in_podman() -> Sandbox {
    let podman = [
        podman_container("running"),
        podman_version(),
        answer("stop", 0, "", ""),
        answer("rm", 0, "", ""),
        answer("logs", 0, "a line\n", ""),
        answer("exec", 0, "", ""),
    ];
    Sandbox::new(PROJECT)
        .engine("docker", &[no_container("docker"), docker_version()])
        .engine("podman", &podman)
}

#[test]
fn a_container_is_found_in_an_engine_that_the_settings_do_not_prefer() {
    let preferred = || started_in_podman().env("XTASK_ENGINE", "docker");
    let configured = || {
        let sandbox = started_in_podman();
        let local = sandbox.path("src/xtask.local.toml");
        fs::write(local, "schema = 1\n[engine]\nprefer = 'docker'\n").unwrap();
        sandbox
    };
    for sandbox in [preferred(), configured()] {
        let output = sandbox.run(&["stop"]);
        let done = "     Stopped and removed box in ";
        assert!(output.stderr.contains(done), "{output:?}");
        let calls = sandbox.calls();
        assert!(
            calls.contains(&"podman stop -t 10 box".to_owned()),
            "{calls:?}"
        );
    }
    assert_eq!(preferred().run(&["logs"]).stdout, "a line\n");
    assert_eq!(preferred().run(&["shell", "true"]).code, 0);
    let status = preferred().run(&["status"]).stdout;
    assert!(status.contains("engine     Podman"), "{status}");
    let down = preferred().run(&["down"]);
    let warning = "warning: `box` in Podman stays: `up` did not start it\n";
    assert!(down.stderr.starts_with(warning), "{down:?}");
}

#[test]
fn only_a_typed_engine_leaves_the_others_out_of_the_search() {
    let sandbox = started_in_podman();
    let output = sandbox.run(&["stop", "--engine", "docker"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "     Nothing to stop: there is no container box\n")
    );
    assert_eq!(sandbox.calls(), ["docker container inspect box"]);
}

/// The settings prefer an engine that does not run, so the other one is described.
#[test]
fn status_describes_an_engine_that_answered() {
    let output = Sandbox::new(PROJECT)
        .engine(
            "docker",
            &[docker_down("container inspect"), docker_down("version")],
        )
        .engine("podman", &[no_container("podman"), podman_version()])
        .env("XTASK_ENGINE", "docker")
        .run(&["status", "--json"]);
    assert_eq!(output.code, 0, "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "missing");
    assert_eq!(report["engine"]["kind"], "podman", "{report}");
}

#[test]
fn a_container_of_the_same_name_in_the_other_engine_is_named() {
    let both = || {
        let ends = [answer("stop", 0, "", ""), answer("rm", 0, "", "")];
        let mut docker = vec![container("exited", true), answer("logs", 0, "docker\n", "")];
        docker.extend(ends.clone());
        let mut podman = vec![
            podman_container("running"),
            answer("logs", 0, "podman\n", ""),
        ];
        podman.extend(ends);
        Sandbox::new(PROJECT)
            .engine("docker", &docker)
            .engine("podman", &podman)
    };
    let output = both().run(&["logs"]);
    assert_eq!(output.stdout, "podman\n", "the one that runs: {output:?}");
    assert_eq!(
        output.stderr,
        "warning: there is another container `box` (exited) in Docker: `--engine docker` selects it\n"
    );
    let sandbox = both();
    let output = sandbox.run(&["stop"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("and removed box in Podman in"));
    assert!(output.stderr.contains("Removed box in Docker, which was"));
    assert!(
        sandbox
            .calls()
            .contains(&"docker rm --force box".to_owned())
    );
}

#[test]
fn run_local_says_that_our_container_runs_in_the_other_engine() {
    for (state, ours, warns) in [
        ("running", true, true),
        ("exited", true, false),
        ("running", false, false),
    ] {
        let podman = if ours {
            podman_container(state)
        } else {
            container(state, false)
        };
        let docker = [
            docker_version(),
            image(),
            no_container("docker"),
            answer("run", 0, "", ""),
        ];
        let sandbox = Sandbox::new(PROJECT)
            .engine("docker", &docker)
            .engine("podman", &[podman_version(), podman]);
        let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
        assert_eq!(output.code, 0, "{output:?}");
        let warning = "warning: a container `box` that xtask started also runs in Podman\n\
            hint: stop that one: `cargo xtask stop --engine podman`\n";
        assert_eq!(output.stderr.contains(warning), warns, "{output:?}");
    }
}

#[test]
fn a_client_of_the_same_engine_does_not_show_its_container_twice() {
    let answers = [podman_container("running"), answer("logs", 0, "once\n", "")];
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &answers)
        .engine("podman", &answers);
    let output = sandbox.run(&["logs"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("once\n", "")
    );
}

#[test]
fn a_paused_container_is_told_from_a_stopped_one() {
    for engine in ["docker", "podman"] {
        let paused = match engine {
            "docker" => {
                let mut paused = container("paused", true);
                // Docker calls it running.
                let text = paused["stdout"].as_str().unwrap();
                paused["stdout"] = text.replace("\"Running\":false", "\"Running\":true").into();
                paused
            }
            _ => podman_container("paused"),
        };
        let done = |args: &str| answer(args, 0, "box\n", "");
        let sandbox = Sandbox::new(PROJECT)
            .engine(engine, &[paused, done("unpause"), done("stop"), done("rm")]);
        let output = sandbox.run(&["shell"]);
        assert_eq!(output.code, 1);
        assert_eq!(
            output.stderr,
            format!(
                "error: the container `box` is paused\nhint: let it run again: `{engine} unpause box`; or end it: `cargo xtask stop`\n"
            )
        );
        let output = sandbox.run(&["status"]);
        assert!(output.stdout.contains("state      paused\n"), "{output:?}");
        assert!(output.stdout.contains("health     -\n"), "{output:?}");
        assert!(output.stderr.contains("unpause box"), "{output:?}");
        assert_eq!(sandbox.run(&["status", "--exit-code"]).code, 1);
        let before = sandbox.calls().len();
        let output = sandbox.run(&["stop", "--quiet"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let calls = sandbox.calls();
        assert_eq!(calls[before + 1], format!("{engine} unpause box"));
        assert_eq!(calls[before + 2], format!("{engine} stop -t 10 box"));
    }
}

#[test]
fn an_engine_that_replaces_a_late_one_is_named() {
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[hung("version"), hung("image inspect")])
        .engine("podman", &[podman_version()])
        .env("XTASK_ENGINE_TIMEOUT", "300ms");
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.starts_with("podman build "), "{output:?}");
    assert_eq!(
        output.stderr,
        "warning: `docker` did not answer within 300ms, so `podman` is used instead; the next command may use `docker` again\n\
         hint: stay with one engine: `--engine podman` or `XTASK_ENGINE=podman`; give `docker` more time: `XTASK_ENGINE_TIMEOUT=30s`\n"
    );
    // A daemon that does not run is passed over without a word.
    let down = Sandbox::new(PROJECT)
        .engine(
            "docker",
            &[docker_down("version"), docker_down("image inspect")],
        )
        .engine("podman", &[podman_version()]);
    let output = down.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
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
        sandbox.calls()[2].starts_with("DOCKER_BUILDKIT=1 BUILDX_BUILDER=default docker build "),
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

#[test]
fn doctor_names_a_proxy_at_which_nothing_answers() {
    let sandbox = || Sandbox::new(PROJECT).engine("docker", &[docker_version()]);
    let dead = sandbox().run(&["doctor"]).stdout;
    assert!(
        dead.contains(
            "warn proxy and CA   HTTPS_PROXY=http://127.0.0.1:1: nothing answers there\n"
        ),
        "{dead}"
    );
    assert!(
        dead.contains("cargo xtask explain proxy-unreachable"),
        "{dead}"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let alive = sandbox()
        .env("HTTPS_PROXY", &address)
        .run(&["doctor"])
        .stdout;
    assert!(
        alive.contains(&format!("ok   proxy and CA   HTTPS_PROXY={address};")),
        "{alive}"
    );
    let one_dead = sandbox()
        .env("HTTPS_PROXY", &address)
        .env("http_proxy", "http://127.0.0.1:1")
        .run(&["doctor"])
        .stdout;
    assert!(
        one_dead.contains("http_proxy=http://127.0.0.1:1: nothing answers there\n"),
        "{one_dead}"
    );
}

#[test]
fn doctor_has_a_line_for_a_question_without_an_answer() {
    let sandbox = Sandbox::new(PROJECT).engine(
        "docker",
        &[docker_version(), hung("buildx version"), hung("info")],
    );
    let sandbox = sandbox.env("XTASK_ENGINE_TIMEOUT", "1s");
    let report = sandbox.run(&["doctor"]);
    for line in [
        "warn builder        `docker buildx version` did not answer within 1s\n",
        "warn disk           `docker info` did not answer within 1s\n",
    ] {
        assert!(report.stdout.contains(line), "{report:?}");
    }
}

#[test]
fn a_container_without_a_log_is_named() {
    for (engine, mut there, setting) in [
        ("docker", container("running", true), "daemon.json"),
        ("podman", podman_container("running"), "containers.conf"),
    ] {
        let text = there["stdout"].as_str().unwrap();
        let text = text.replacen(
            '{',
            "{\"HostConfig\":{\"LogConfig\":{\"Type\":\"none\"}},",
            1,
        );
        there["stdout"] = text.into();
        let output = Sandbox::new(PROJECT)
            .engine(engine, &[there])
            .run(&["logs"]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output
                .stderr
                .starts_with("error: the container `box` keeps no log"),
            "{output:?}"
        );
        assert!(output.stderr.contains(setting), "{output:?}");
    }
}

#[test]
fn hints_keep_the_engine_that_was_typed() {
    let sandbox = Sandbox::new(PROJECT).engine("podman", &[no_container("podman")]);
    let output = sandbox.run(&["status", "--engine", "podman"]);
    assert_eq!(
        output.stderr,
        "hint: start it: `cargo xtask run-local --engine podman`\n"
    );
    let output = sandbox.env("XTASK_ENGINE", "podman").run(&["status"]);
    assert_eq!(output.stderr, "hint: start it: `cargo xtask run-local`\n");
}
