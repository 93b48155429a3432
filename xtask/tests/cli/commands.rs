//! The calls and the exit code of each command, and what it must not change.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::sandbox::{
    PROJECT, Sandbox, answer, container, docker_version, image, no_container,
    no_container_at_first, no_image, podman_version,
};

fn ok(args: &str) -> Value {
    answer(args, 0, "", "")
}

fn docker(answers: &[Value]) -> Sandbox {
    Sandbox::new(PROJECT).engine("docker", answers)
}

#[test]
fn an_engines_exit_code_and_output_are_passed_through() {
    let sandbox = docker(&[
        docker_version(),
        answer("build", 17, "", "ERROR: something of its own\n"),
    ]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 17);
    assert_eq!(
        output.stderr,
        "ERROR: something of its own\nerror: `docker build` failed with exit code 17\n"
    );
    assert_eq!(output.stdout, "");
}

#[test]
fn a_build_prints_only_the_reference_to_standard_output() {
    let sandbox = docker(&[
        docker_version(),
        answer("build", 0, "progress\n", "more\n"),
        image(),
    ]);
    let output = sandbox.run(&["build-image", "--version", "dev-me"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "ghcr.io/x/y:dev-me\n")
    );
    assert!(
        output
            .stderr
            .contains("Size 98.0 MB unpacked, within the budget of 105.0 MB\n"),
        "{}",
        output.stderr
    );
    // Before the build: the engine's version and the image that has the tag. After it: the new image.
    assert_eq!(sandbox.calls().len(), 4);
    assert!(sandbox.calls()[3].ends_with("docker image inspect ghcr.io/x/y:dev-me"));
}

#[test]
fn a_build_does_not_move_the_tag_of_a_foreign_image() {
    let mut theirs = image();
    theirs["stdout"] = theirs["stdout"]
        .as_str()
        .unwrap()
        .replace("ai.stigmer.xtask.image", "com.example.theirs")
        .into();
    let sandbox = docker(&[docker_version(), theirs]);
    let output = sandbox.run(&["build-image", "--version", "dev-me"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "error: `ghcr.io/x/y:dev-me` exists already, and xtask did not build it: it has no label `ai.stigmer.xtask.image`\n\
         hint: keep it under another name: `docker tag ghcr.io/x/y:dev-me localhost/kept:dev-me && docker image rm ghcr.io/x/y:dev-me`\n\
         hint: build another version: `--version dev-other`\n"
    );
    assert_eq!(sandbox.calls().len(), 2, "{:?}", sandbox.calls());
}

#[test]
fn a_build_that_leaves_no_image_is_a_failure() {
    // Podman 4.3.1 exits with 0 if SIGTERM stops its build.
    let sandbox = docker(&[docker_version(), ok("build"), no_image()]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "error: the build ended, but there is no image `ghcr.io/x/y:dev-me`\n"
        )
    );
}

#[test]
fn check_runs_before_a_release_is_built() {
    let targets = |args: &[&str]| {
        let sandbox = docker(&[docker_version()]);
        let output = sandbox.run(&[&["build-image", "--dry-run", "--version"], args].concat());
        assert_eq!(output.code, 0, "{output:?}");
        output
            .stdout
            .lines()
            .map(|line| {
                if line.contains("--target check") {
                    "check"
                } else {
                    "build"
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(targets(&["1.2.3"]), ["check", "build"]);
    assert_eq!(targets(&["1.2.3", "--no-check"]), ["build"]);
    assert_eq!(targets(&["dev-me"]), ["build"]);
    assert_eq!(targets(&["dev-me", "--check"]), ["check", "build"]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let sandbox = docker(&[docker_version(), container("running", true), image()]);
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--dry-run"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    // If the test runs as root, the plan also changes the folder's owner.
    let lines: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| !line.starts_with("chown "))
        .collect();
    assert_eq!(
        lines[..3],
        [
            "mkdir -p /home/work",
            "docker stop -t 10 box",
            "docker rm --force box"
        ]
    );
    assert!(lines[3].starts_with("docker run --detach --name box "));
    assert!(!sandbox.path("home/work").exists(), "a folder was created");
    let mut calls = sandbox.calls();
    calls.sort();
    assert_eq!(
        calls,
        [
            "docker container inspect box",
            "docker image inspect ghcr.io/x/y:dev-me",
            "docker version --format {{json .}}"
        ]
    );
}

#[test]
fn run_local_waits_until_the_health_check_passes() {
    let not_yet = json!({ "args": "exec box probe", "code": 1, "stdout": "not yet\n", "times": 2 });
    let sandbox = docker(&[
        docker_version(),
        no_container_at_first(),
        container("running", true),
        image(),
        ok("run"),
        not_yet,
        ok("exec box probe"),
    ]);
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "box\n"),
        "{output:?}"
    );
    assert!(
        sandbox.path("home/work").exists(),
        "the workspace was not created"
    );
    let checks = sandbox
        .calls()
        .iter()
        .filter(|call| call.ends_with("exec box probe"))
        .count();
    assert_eq!(checks, 3);
}

#[test]
fn run_local_shows_the_log_of_a_container_that_exited() {
    let sandbox = docker(&[
        docker_version(),
        no_container_at_first(),
        container("exited", true),
        image(),
        ok("run"),
        answer(
            "exec",
            1,
            "",
            "Error response from daemon: container box is not running\n",
        ),
        answer(
            "logs --tail 20 box",
            0,
            "",
            "TEMPORAL_MAX_CONCURRENCY: must be above 0\n",
        ),
    ]);
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "TEMPORAL_MAX_CONCURRENCY: must be above 0\nerror: the container `box` exited with code 3 before it was healthy\nhint: read its whole log: `cargo xtask logs`\n"
    );
}

#[test]
fn run_local_keeps_a_container_that_does_not_become_healthy() {
    let sandbox = docker(&[
        docker_version(),
        no_container_at_first(),
        container("running", true),
        image(),
        ok("run"),
        answer("exec box probe", 1, "heartbeat 30 s ago\n", ""),
        ok("logs"),
    ])
    .env("XTASK_HEALTH_BUDGET", "400ms");
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.starts_with(
            "error: the container `box` was not healthy within 0.4 s: heartbeat 30 s ago\n"
        ),
        "{}",
        output.stderr
    );
    assert!(
        !sandbox
            .calls()
            .iter()
            .any(|call| call.contains(" rm ") || call.contains(" stop ")),
        "the container was stopped or removed"
    );
}

/// A sandbox in which `run` fails with this output. Afterwards a container of xtask exists that was never
/// started.
fn failing_run(id: &str, stderr: &str) -> Sandbox {
    docker(&[
        docker_version(),
        no_container_at_first(),
        container("created", true),
        image(),
        answer("run", 125, id, stderr),
        ok("rm"),
    ])
}

#[test]
fn run_local_removes_the_container_of_a_failed_start() {
    let sandbox = failing_run(
        "0123456789abcdef\n",
        "docker: Error response from daemon: driver failed programming external connectivity: bind: address already in use.\n",
    );
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 125);
    assert!(
        output
            .stderr
            .contains("hint: stop the program that uses the port"),
        "{}",
        output.stderr
    );
    assert_eq!(sandbox.calls().last().unwrap(), "docker rm --force box");
}

/// Of two parallel runs, the slower one must not remove the container that the other one is starting.
#[test]
fn run_local_keeps_a_container_that_another_run_started() {
    let sandbox = failing_run(
        "",
        "docker: Error response from daemon: Conflict. The container name \"/box\" is already in use by container \"0123456789abcdef\". You have to remove (or rename) that container to be able to reuse that name.\n",
    );
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(output.code, 125);
    let hint = "hint: run the same command again: another run has just used the container's name";
    assert!(output.stderr.contains(hint), "{}", output.stderr);
    assert!(!sandbox.calls().iter().any(|call| call.contains(" rm ")));
}

#[test]
fn no_command_changes_a_foreign_container() {
    for line in ["stop", "logs", "shell", "run-local --version dev-me"] {
        let sandbox = docker(&[docker_version(), container("running", false), image()]);
        let output = sandbox.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.code, 1, "{line}");
        assert!(
            output.stderr.contains("error: the container `box` is not ours: it runs `ghcr.io/x/y:dev-me`, created by Docker Compose, project `shop` (running, created 2026-01-02T03:04:05)\nhint: give ours another name"),
            "{line}: {}",
            output.stderr
        );
        let acted = sandbox
            .calls()
            .into_iter()
            .find(|call| !call.contains(" inspect ") && !call.contains(" version "));
        assert_eq!(acted, None, "{line}");
    }
    let sandbox = docker(&[
        docker_version(),
        container("running", false),
        answer("image ls", 0, "", ""),
    ]);
    let output = sandbox.run(&["clean", "--yes"]);
    assert_eq!(output.code, 0);
    assert!(
        output
            .stderr
            .starts_with("warning: the container `box` stays: it is not ours"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_missing_release_is_pulled_and_a_missing_dev_image_is_an_error() {
    let answers = [docker_version(), no_container("docker"), no_image()];
    let output = docker(&answers).run(&["run-local", "--version", "dev-me"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "error: there is no image `ghcr.io/x/y:dev-me` here, and the channel `dev` does not publish any\nhint: build it: `cargo xtask build-image --version dev-me`\n"
    );
    let output = docker(&answers).run(&["run-local", "--version", "1.2.3", "--dry-run"]);
    assert!(
        output.stdout.starts_with("docker pull ghcr.io/x/y:1.2.3\n"),
        "{output:?}"
    );
}

#[test]
fn logs_and_shell_exit_with_the_engines_code() {
    let sandbox = docker(&[
        container("running", true),
        answer("logs", 4, "a line\n", "an error\n"),
    ]);
    let output = sandbox.run(&["logs"]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (4, "a line\n", "an error\n")
    );
    let sandbox = docker(&[container("running", true), answer("exec", 42, "", "")]);
    assert_eq!(sandbox.run(&["shell", "false", "-x"]).code, 42);
    assert_eq!(sandbox.calls()[1], "docker exec --interactive box false -x");
    assert_eq!(sandbox.run(&["shell", "--", "false", "-x"]).code, 42);
    assert_eq!(sandbox.calls()[3], "docker exec --interactive box false -x");
}

#[test]
fn stop_succeeds_if_the_container_is_not_running() {
    let sandbox = docker(&[container("exited", true)]);
    let output = sandbox.run(&["stop", "--keep"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "     Nothing to stop: box does not run\n")
    );
    assert_eq!(sandbox.calls().len(), 1);
}

#[test]
fn stop_removes_the_container_unless_keep_is_given() {
    let calls = |status: &str, line: &[&str]| {
        let answers = [
            container(status, true),
            answer("stop", 0, "box\n", ""),
            answer("rm", 0, "box\n", ""),
        ];
        let sandbox = docker(&answers);
        assert_eq!(sandbox.run(line).code, 0, "{line:?}");
        sandbox.calls().split_off(1)
    };
    let (stop, remove) = ("docker stop -t 10 box", "docker rm --force box");
    assert_eq!(calls("running", &["stop"]), [stop, remove]);
    assert_eq!(calls("exited", &["stop"]), [remove]);
    assert_eq!(calls("running", &["stop", "--keep"]), [stop]);
    let foreign = docker(&[container("running", false)]);
    assert_eq!(foreign.run(&["stop"]).code, 1);
    assert_eq!(foreign.calls().len(), 1, "a foreign container is changed");
}

#[test]
fn status_with_exit_code_fails_if_the_runner_is_unhealthy() {
    let code = |answers: &[Value], line: &[&str]| docker(answers).run(line).code;
    let flag = ["status", "--exit-code"];
    assert_eq!(code(&[no_container("docker")], &["status"]), 0);
    assert_eq!(code(&[no_container("docker")], &flag), 1);
    assert_eq!(code(&[container("exited", true)], &flag), 1);
    let health = "[health]\ncommand = ['probe']\n";
    for (exit, expected) in [(0, 0), (1, 1)] {
        let answers = [container("running", true), answer("exec", exit, "", "")];
        let sandbox = Sandbox::new(&format!("{PROJECT}{health}")).engine("docker", &answers);
        assert_eq!(sandbox.run(&flag).code, expected);
        assert_eq!(sandbox.run(&["status"]).code, 0);
    }
}

#[test]
fn logs_of_a_missing_server() {
    let sandbox = docker(&[answer(
        "container inspect box-server",
        1,
        "[]\n",
        "Error: No such container: box-server\n",
    )]);
    let output = sandbox.run(&["logs", "server"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "error: there is no container `box-server`\nhint: start it: `cargo xtask up`\n"
        )
    );
}

#[test]
fn status_prints_text_and_json() {
    let output = docker(&[docker_version(), no_container("docker")]).run(&["status", "--json"]);
    assert_eq!(output.code, 0, "{output:?}");
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (
            &status["schema"],
            &status["state"],
            &status["engine"]["kind"],
            &status["engine"]["rootless"],
        ),
        (
            &json!(1),
            &json!("missing"),
            &json!("docker"),
            &json!(false)
        )
    );
    let output = docker(&[container("exited", true)]).run(&["status"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (0, "hint: start it: `cargo xtask run-local`\n")
    );
    assert!(
        output
            .stdout
            .contains("state      exited with exit code 3\n"),
        "{}",
        output.stdout
    );
}

#[test]
fn clean_requires_confirmation_and_never_forces() {
    let image_ls = answer(
        "image ls",
        0,
        "sha256:0123456789abcdef\nsha256:0123456789abcdef\n",
        "",
    );
    // The container is missing after its removal.
    let mut there = container("running", true);
    there["times"] = 1.into();
    let answers = [
        docker_version(),
        there,
        image_ls,
        image(),
        ok("stop"),
        ok("rm"),
        ok("image rm"),
    ];
    let sandbox = docker(&answers);
    let output = sandbox.run(&["clean", "--version", "dev-me"]);
    assert_eq!(output.code, 2, "without a terminal");
    assert!(output.stderr.ends_with("error: standard input is not a terminal; pass `--yes`\nhint: see what would be removed: `--dry-run`\n"), "{}", output.stderr);
    assert!(!sandbox.calls().iter().any(|call| call.contains(" rm ")));

    let sandbox = docker(&answers);
    let output = sandbox.run(&["clean", "--version", "dev-me", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    let acted: Vec<_> = sandbox
        .calls()
        .into_iter()
        .filter(|call| call.contains(" rm ") || call.contains(" stop "))
        .collect();
    assert_eq!(
        acted,
        [
            "docker stop -t 10 box",
            "docker rm --force box",
            "docker image rm ghcr.io/x/y:dev-me",
            // The image still exists, maybe because the removal of its container is not finished yet.
            "docker image rm ghcr.io/x/y:dev-me",
        ]
    );
}

/// The output is from Podman 4.3.1, after `podman image prune` removed the images of a manifest list.
#[test]
fn an_error_of_image_ls_is_reported() {
    let broken = "Error: reading manifest for image instance \"sha256:44c7\": locating item named \"manifest-sha256:44c7\" for image with ID \"e90f\" (consider removing the image to resolve the issue): file does not exist\n";
    let sandbox = Sandbox::new(PROJECT).engine(
        "podman",
        &[
            podman_version(),
            no_container("podman"),
            answer("image ls", 125, "", broken),
        ],
    );
    let output = sandbox.run(&["clean", "--yes"]);
    assert_eq!(
        (output.code, output.stderr),
        (
            1,
            format!(
                "error: Podman cannot list its images: {}\nhint: the images of a manifest list were pruned; remove the list: `podman manifest rm e90f`\n",
                broken.trim_end()
            )
        )
    );
}

#[test]
fn clean_all_removes_only_our_cache_mounts() {
    // The output is from Docker 28.5.2 with buildx 0.29.1.
    let du = "ID:           mine\nType:         exec.cachemount\nDescription:  cached mount /root/.cache/uv from exec /bin/sh -c uv with id \"/agent-runner-uv\"\n\n\
              ID:           theirs\nType:         exec.cachemount\nDescription:  cached mount /root/.npm from exec /bin/sh -c npm ci with id \"/root/.npm\"\n\nReclaimable: 1GB\n";
    let sandbox = docker(&[
        docker_version(),
        no_container("docker"),
        ok("image ls"),
        answer("buildx du", 0, du, ""),
        ok("builder prune"),
    ]);
    let output = sandbox.run(&["clean", "--all", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    let pruned: Vec<_> = sandbox
        .calls()
        .into_iter()
        .filter(|call| call.contains("prune"))
        .collect();
    assert_eq!(pruned, ["docker builder prune --force --filter id=mine"]);
}

#[test]
fn clean_warns_about_an_image_that_is_in_use() {
    let in_use = answer(
        "image rm",
        1,
        "",
        "Error response from daemon: conflict: unable to delete ghcr.io/x/y:dev-me (must be forced) - container 0123 is using its referenced image\n",
    );
    let image_ls = answer("image ls", 0, "sha256:0123456789abcdef\n", "");
    let sandbox = docker(&[
        docker_version(),
        no_container("docker"),
        image_ls,
        image(),
        in_use,
    ]);
    let output = sandbox.run(&["clean", "--version", "dev-me", "--yes"]);
    assert_eq!(output.code, 0);
    assert!(
        output
            .stderr
            .contains("warning: image ghcr.io/x/y:dev-me stays: a container uses it\n"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.ends_with("Reclaimed 0 B of 0 images\n"),
        "{}",
        output.stderr
    );
}

pub fn signal(pid: u32, signal: i32) {
    #[allow(unsafe_code)]
    // SAFETY: the function accesses no memory. The process is a child that has not been waited for, so its
    // id is still valid.
    unsafe {
        libc::kill(libc::pid_t::try_from(pid).unwrap(), signal)
    };
}

#[test]
fn a_signal_stops_the_child_and_determines_the_exit_code() {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let sandbox = docker(&[
            docker_version(),
            json!({ "args": "build", "sleep_ms": 30_000 }),
        ]);
        let child = sandbox.start(&["build-image", "--version", "dev-me"]);
        wait_for(|| sandbox.calls().iter().any(|call| call.contains(" build ")));
        signal(child.id(), number);
        let output = sandbox.command_output(&child.wait_with_output().unwrap());
        assert_eq!(output.code, code, "{output:?}");
        assert!(
            output.stderr.ends_with("error: interrupted\n"),
            "{output:?}"
        );
    }
}

#[test]
fn test_image_removes_its_container_after_a_signal() {
    let sandbox = docker(&[
        docker_version(),
        image(),
        ok("run"),
        answer("exec", 1, "not yet\n", ""),
        answer(
            "container inspect",
            0,
            r#"[{"Id":"1","State":{"Status":"running","Running":true}}]"#,
            "",
        ),
        ok("rm"),
    ]);
    let child = sandbox.start(&["test-image", "--version", "dev-me"]);
    wait_for(|| sandbox.calls().iter().any(|call| call.contains(" exec ")));
    signal(child.id(), libc::SIGINT);
    let name = format!("box-test-{}", child.id());
    let output = sandbox.command_output(&child.wait_with_output().unwrap());
    assert_eq!(output.code, 130, "{output:?}");
    assert_eq!(
        sandbox.calls().last().unwrap(),
        &format!("docker rm --force --volumes {name}")
    );
}

pub fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("the condition was not met within 5 s");
}
