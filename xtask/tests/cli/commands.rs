//! Each command: its calls in their order, its exit code, and what it leaves alone.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::world::{
    PROJECT, World, answer, container, docker_version, has, image, no_container,
    no_container_at_first, no_image, podman_version,
};

fn ok(args: &str) -> Value {
    answer(args, 0, "", "")
}

fn docker(answers: &[Value]) -> World {
    World::new(PROJECT).engine("docker", answers)
}

#[test]
fn an_engines_exit_code_is_passed_on_with_its_words() {
    let world = docker(&[
        docker_version(),
        answer("build", 17, "", "ERROR: something of its own\n"),
    ]);
    let ran = world.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 17);
    assert_eq!(
        ran.stderr,
        "ERROR: something of its own\nerror: `docker build` failed with exit code 17\n"
    );
    assert_eq!(ran.stdout, "", "no result");
}

#[test]
fn a_build_prints_the_reference_and_nothing_else_on_stdout() {
    let world = docker(&[
        docker_version(),
        answer("build", 0, "progress\n", "more\n"),
        image(),
    ]);
    let ran = world.run(&["build-image", "--version", "dev-me"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ghcr.io/x/y:dev-me\n"));
    assert!(
        ran.stderr
            .contains("Size 98.0 MB unpacked, within the budget of 105.0 MB\n"),
        "{}",
        ran.stderr
    );
    // Before: who answers, and whose the tag is. After: what was built.
    assert_eq!(world.calls().len(), 4);
    assert!(world.calls()[3].ends_with("docker image inspect ghcr.io/x/y:dev-me"));
}

#[test]
fn a_build_takes_no_tag_from_an_image_of_somebody_elses() {
    let mut theirs = image();
    theirs["stdout"] = theirs["stdout"]
        .as_str()
        .unwrap()
        .replace("ai.stigmer.xtask.image", "com.example.theirs")
        .into();
    let world = docker(&[docker_version(), theirs]);
    let ran = world.run(&["build-image", "--version", "dev-me"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "error: `ghcr.io/x/y:dev-me` exists already, and xtask did not build it: it has no label `ai.stigmer.xtask.image`\n\
         hint: keep it under another name: `docker tag ghcr.io/x/y:dev-me localhost/kept:dev-me && docker image rm ghcr.io/x/y:dev-me`\n\
         hint: or build another version: `--version dev-other`\n"
    );
    assert_eq!(world.calls().len(), 2, "{:?}", world.calls());
}

#[test]
fn a_build_that_says_it_worked_but_left_no_image_failed() {
    // Podman 4.3.1 exits with 0 when a SIGTERM ends its build.
    let world = docker(&[docker_version(), ok("build"), no_image()]);
    let ran = world.run(&["build-image", "--version", "dev-me", "--quiet"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: the build ended, but there is no image `ghcr.io/x/y:dev-me`\n"
        )
    );
}

#[test]
fn a_release_is_checked_first_unless_told_otherwise() {
    let targets = |args: &[&str]| {
        let world = docker(&[docker_version()]);
        let ran = world.run(&[&["build-image", "--dry-run", "--version"], args].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
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
fn a_dry_run_asks_and_does_nothing() {
    let world = docker(&[docker_version(), container("running", true), image()]);
    let ran = world.run(&["run-local", "--version", "dev-me", "--dry-run"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    // Run as root, the test's folder is handed to the container's user.
    let lines: Vec<_> = ran
        .stdout
        .lines()
        .filter(|line| !line.starts_with("chown "))
        .collect();
    assert_eq!(
        lines[..3],
        [
            "mkdir -p /home/work",
            "docker stop -t 10 box",
            "docker rm --force --volumes box"
        ]
    );
    assert!(lines[3].starts_with("docker run --detach --name box "));
    assert!(!has(&world.path("home/work")), "nothing is created");
    let mut calls = world.calls();
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
fn run_local_waits_until_the_check_passes() {
    let not_yet = json!({ "args": "exec box probe", "code": 1, "stdout": "not yet\n", "times": 2 });
    let world = docker(&[
        docker_version(),
        no_container_at_first(),
        container("running", true),
        image(),
        ok("run"),
        not_yet,
        ok("exec box probe"),
    ]);
    let ran = world.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "box\n"), "{ran:?}");
    assert!(has(&world.path("home/work")), "the workspace is created");
    let checks = world
        .calls()
        .iter()
        .filter(|call| call.ends_with("exec box probe"))
        .count();
    assert_eq!(checks, 3);
}

#[test]
fn run_local_shows_the_log_of_a_container_that_died() {
    let world = docker(&[
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
    let ran = world.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "TEMPORAL_MAX_CONCURRENCY: must be above 0\nerror: the container `box` exited with code 3 before it was healthy\nhint: its whole log: `cargo xtask logs`\n"
    );
}

#[test]
fn run_local_gives_up_when_the_budget_is_over_and_leaves_the_container() {
    let world = docker(&[
        docker_version(),
        no_container_at_first(),
        container("running", true),
        image(),
        ok("run"),
        answer("exec box probe", 1, "heartbeat 30 s ago\n", ""),
        ok("logs"),
    ])
    .env("XTASK_HEALTH_BUDGET", "400ms");
    let ran = world.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with(
            "error: the container `box` was not healthy within 0.4 s: heartbeat 30 s ago\n"
        ),
        "{}",
        ran.stderr
    );
    assert!(
        !world
            .calls()
            .iter()
            .any(|call| call.contains(" rm ") || call.contains(" stop ")),
        "it can be looked at"
    );
}

/// A `run` that fails with these words, and a container of ours that never ran after it.
fn run_that_fails(id: &str, words: &str) -> World {
    docker(&[
        docker_version(),
        no_container_at_first(),
        container("created", true),
        image(),
        answer("run", 125, id, words),
        ok("rm"),
    ])
}

#[test]
fn run_local_removes_what_a_failed_run_left() {
    let world = run_that_fails(
        "0123456789abcdef\n",
        "docker: Error response from daemon: driver failed programming external connectivity: bind: address already in use.\n",
    );
    let ran = world.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 125);
    assert!(
        ran.stderr
            .contains("hint: stop the program that uses the port"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        world.calls().last().unwrap(),
        "docker rm --force --volumes box"
    );
}

/// Of two at once the slower one must not take away what the other is just starting.
#[test]
fn run_local_leaves_alone_what_took_its_name_meanwhile() {
    let world = run_that_fails(
        "",
        "docker: Error response from daemon: Conflict. The container name \"/box\" is already in use by container \"0123456789abcdef\". You have to remove (or rename) that container to be able to reuse that name.\n",
    );
    let ran = world.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(ran.code, 125);
    let hint = "hint: run the same command again: another run has just used the container's name";
    assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    assert!(!world.calls().iter().any(|call| call.contains(" rm ")));
}

#[test]
fn a_foreign_container_is_left_alone_by_every_command() {
    for line in ["stop", "logs", "shell", "run-local --version dev-me"] {
        let world = docker(&[docker_version(), container("running", false), image()]);
        let ran = world.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, 1, "{line}");
        assert!(
            ran.stderr.contains("error: the container `box` is not ours: it runs `ghcr.io/x/y:dev-me`, created by Docker Compose, project `shop` (running, created 2026-01-02T03:04:05)\nhint: give ours another name"),
            "{line}: {}",
            ran.stderr
        );
        let acted = world
            .calls()
            .into_iter()
            .find(|call| !call.contains(" inspect ") && !call.contains(" version "));
        assert_eq!(acted, None, "{line}");
    }
    let world = docker(&[
        docker_version(),
        container("running", false),
        answer("image ls", 0, "", ""),
    ]);
    let ran = world.run(&["clean", "--yes"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr
            .starts_with("warning: the container `box` stays: it is not ours"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_missing_dev_image_says_how_to_build_it_and_a_release_is_pulled() {
    let answers = [docker_version(), no_container("docker"), no_image()];
    let ran = docker(&answers).run(&["run-local", "--version", "dev-me"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "error: there is no image `ghcr.io/x/y:dev-me` here, and the channel `dev` does not publish any\nhint: build it: `cargo xtask build-image --version dev-me`\n"
    );
    let ran = docker(&answers).run(&["run-local", "--version", "1.2.3", "--dry-run"]);
    assert!(
        ran.stdout.starts_with("docker pull ghcr.io/x/y:1.2.3\n"),
        "{ran:?}"
    );
}

#[test]
fn logs_and_shell_hand_over_the_process_and_its_exit_code() {
    let world = docker(&[
        container("running", true),
        answer("logs", 4, "a line\n", "an error\n"),
    ]);
    let ran = world.run(&["logs"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (4, "a line\n", "an error\n")
    );
    let world = docker(&[container("running", true), answer("exec", 42, "", "")]);
    assert_eq!(world.run(&["shell", "false", "-x"]).code, 42);
    assert_eq!(world.calls()[1], "docker exec --interactive box false -x");
    assert_eq!(world.run(&["shell", "--", "false", "-x"]).code, 42);
    assert_eq!(world.calls()[3], "docker exec --interactive box false -x");
}

#[test]
fn stop_succeeds_where_there_is_nothing_to_stop() {
    let world = docker(&[container("exited", true)]);
    let ran = world.run(&["stop", "--keep"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "     Nothing to stop: box does not run\n")
    );
    assert_eq!(world.calls().len(), 1);
}

#[test]
fn stop_removes_the_container_unless_it_is_kept() {
    let calls = |status: &str, line: &[&str]| {
        let answers = [
            container(status, true),
            answer("stop", 0, "box\n", ""),
            answer("rm", 0, "box\n", ""),
        ];
        let world = docker(&answers);
        assert_eq!(world.run(line).code, 0, "{line:?}");
        world.calls().split_off(1)
    };
    let (stop, remove) = ("docker stop -t 10 box", "docker rm --force --volumes box");
    assert_eq!(calls("running", &["stop"]), [stop, remove]);
    assert_eq!(calls("exited", &["stop"]), [remove]);
    assert_eq!(calls("running", &["stop", "--keep"]), [stop]);
    let foreign = docker(&[container("running", false)]);
    assert_eq!(foreign.run(&["stop"]).code, 1);
    assert_eq!(foreign.calls().len(), 1, "it is not ours");
}

#[test]
fn status_can_fail() {
    let code = |answers: &[Value], line: &[&str]| docker(answers).run(line).code;
    let flag = ["status", "--exit-code"];
    assert_eq!(code(&[no_container("docker")], &["status"]), 0);
    assert_eq!(code(&[no_container("docker")], &flag), 1);
    assert_eq!(code(&[container("exited", true)], &flag), 1);
    let health = "[health]\ncommand = ['probe']\n";
    for (exit, expected) in [(0, 0), (1, 1)] {
        let answers = [container("running", true), answer("exec", exit, "", "")];
        let world = World::new(&format!("{PROJECT}{health}")).engine("docker", &answers);
        assert_eq!(world.run(&flag).code, expected);
        assert_eq!(world.run(&["status"]).code, 0);
    }
}

#[test]
fn logs_of_the_servers() {
    let world = docker(&[answer(
        "container inspect box-server",
        1,
        "[]\n",
        "Error: No such container: box-server\n",
    )]);
    let ran = world.run(&["logs", "server"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: there is no container `box-server`\nhint: start it: `cargo xtask up`\n"
        )
    );
}

#[test]
fn status_tells_in_words_and_in_json() {
    let ran = docker(&[no_container("docker")]).run(&["status", "--json"]);
    assert_eq!(ran.code, 0);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (
            &status["schema"],
            &status["state"],
            &status["engine"]["kind"]
        ),
        (&json!(1), &json!("missing"), &json!("docker"))
    );
    let ran = docker(&[container("exited", true)]).run(&["status"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "hint: start it: `cargo xtask run-local`\n")
    );
    assert!(
        ran.stdout.contains("state      exited with exit code 3\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn clean_asks_or_wants_yes_and_never_forces() {
    let image_ls = answer(
        "image ls",
        0,
        "ghcr.io/x/y:dev-me sha256:0123456789abcdef\nelsewhere/z:1 sha256:0123456789abcdef\n",
        "",
    );
    // After its removal it is gone.
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
    let world = docker(&answers);
    let ran = world.run(&["clean", "--version", "dev-me"]);
    assert_eq!(ran.code, 2, "nobody to ask");
    assert!(ran.stderr.ends_with("error: standard input is not a terminal; pass `--yes`\nhint: `--dry-run` shows what would be removed\n"), "{}", ran.stderr);
    assert!(!world.calls().iter().any(|call| call.contains(" rm ")));

    let world = docker(&answers);
    let ran = world.run(&["clean", "--version", "dev-me", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let acted: Vec<_> = world
        .calls()
        .into_iter()
        .filter(|call| call.contains(" rm ") || call.contains(" stop "))
        .collect();
    assert_eq!(
        acted,
        [
            "docker stop -t 10 box",
            "docker rm --force --volumes box",
            "docker image rm ghcr.io/x/y:dev-me",
            // It is there still: perhaps only until its container is whole gone.
            "docker image rm ghcr.io/x/y:dev-me",
        ]
    );
}

/// Podman 4.3.1, after `podman image prune` took the images of a list.
#[test]
fn images_that_cannot_be_listed_are_not_said_to_be_none() {
    let broken = "Error: reading manifest for image instance \"sha256:44c7\": locating item named \"manifest-sha256:44c7\" for image with ID \"e90f\" (consider removing the image to resolve the issue): file does not exist\n";
    let world = World::new(PROJECT).engine(
        "podman",
        &[
            podman_version(),
            no_container("podman"),
            answer("image ls", 125, "", broken),
        ],
    );
    let ran = world.run(&["clean", "--yes"]);
    assert_eq!(
        (ran.code, ran.stderr),
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
fn clean_all_removes_our_cache_mounts_and_nobody_elses() {
    // Docker 28.5.2 with buildx 0.29.1.
    let du = "ID:           mine\nType:         exec.cachemount\nDescription:  cached mount /root/.cache/uv from exec /bin/sh -c uv with id \"/agent-runner-uv\"\n\n\
              ID:           theirs\nType:         exec.cachemount\nDescription:  cached mount /root/.npm from exec /bin/sh -c npm ci with id \"/root/.npm\"\n\nReclaimable: 1GB\n";
    let world = docker(&[
        docker_version(),
        no_container("docker"),
        ok("image ls"),
        answer("buildx du", 0, du, ""),
        ok("builder prune"),
    ]);
    let ran = world.run(&["clean", "--all", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let pruned: Vec<_> = world
        .calls()
        .into_iter()
        .filter(|call| call.contains("prune"))
        .collect();
    assert_eq!(pruned, ["docker builder prune --force --filter id=mine"]);
}

#[test]
fn an_image_that_a_container_uses_stays_and_that_is_said() {
    let in_use = answer(
        "image rm",
        1,
        "",
        "Error response from daemon: conflict: unable to delete ghcr.io/x/y:dev-me (must be forced) - container 0123 is using its referenced image\n",
    );
    let image_ls = answer(
        "image ls",
        0,
        "ghcr.io/x/y:dev-me sha256:0123456789abcdef\n",
        "",
    );
    let world = docker(&[
        docker_version(),
        no_container("docker"),
        image_ls,
        image(),
        in_use,
    ]);
    let ran = world.run(&["clean", "--version", "dev-me", "--yes"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr
            .contains("warning: image ghcr.io/x/y:dev-me stays: a container uses it\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.ends_with("Reclaimed 0 B of 0 images\n"),
        "{}",
        ran.stderr
    );
}

pub fn signal(pid: u32, signal: i32) {
    #[allow(unsafe_code)]
    // SAFETY: takes two numbers and touches no memory; the child is ours and not waited for.
    unsafe {
        libc::kill(libc::pid_t::try_from(pid).unwrap(), signal)
    };
}

#[test]
fn a_signal_ends_the_child_and_gives_its_exit_code() {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let world = docker(&[
            docker_version(),
            json!({ "args": "build", "sleep_ms": 30_000 }),
        ]);
        let child = world.start(&["build-image", "--version", "dev-me"]);
        wait_for(|| world.calls().iter().any(|call| call.contains(" build ")));
        signal(child.id(), number);
        let ran = world.ran(&child.wait_with_output().unwrap());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.ends_with("error: interrupted\n"), "{ran:?}");
    }
}

#[test]
fn test_image_cleans_up_after_a_signal() {
    let world = docker(&[
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
    let child = world.start(&["test-image", "--version", "dev-me"]);
    wait_for(|| world.calls().iter().any(|call| call.contains(" exec ")));
    signal(child.id(), libc::SIGINT);
    let name = format!("box-test-{}", child.id());
    let ran = world.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    assert_eq!(
        world.calls().last().unwrap(),
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
    panic!("it did not come to that within 5 s");
}
