//! The calls and the exit code of each command, and what it must not change.

use std::{fs, os::unix::fs::symlink, thread, time::Duration};

use serde_json::{Value, json};

use crate::sandbox::{
    PROJECT, Sandbox, answer, container, docker_version, image, image_of, no_container,
    no_container_at_first, no_image, podman_container, podman_version,
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
fn what_runs_here_is_built_for_this_platform() {
    let sandbox = docker(&[docker_version()])
        .env("XTASK_BUILD_CHECK_TARGET", "check")
        .env("XTASK_BUILD_PLATFORMS", "linux/arm64");
    let check = sandbox.run(&["check", "--dry-run"]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(
        check.stdout.contains(" --platform linux/amd64 "),
        "{check:?}"
    );
    let line = "build-image --check --dry-run --version dev-me";
    let other: Vec<_> = line
        .split(' ')
        .chain(["--platform", "linux/arm64/v8"])
        .collect();
    let output = sandbox.run(&other);
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<_> = output.stdout.lines().collect();
    assert!(lines[0].contains(" --platform linux/amd64 "), "{output:?}");
    assert!(lines[1].contains(" --platform linux/arm64 "), "{output:?}");
    let image = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(
        (image.code, image.stderr.as_str()),
        (
            2,
            "error: the image cannot be built for linux/amd64: the configuration has linux/arm64\nhint: choose one of them, which needs no emulation: `--platform linux/arm64`\n"
        )
    );
}

/// What a build with an engine runs and says, in a checkout with these files.
fn build_with(engine: &str, files: &[(&str, &str)]) -> (String, String) {
    let version = match engine {
        "docker" => docker_version(),
        _ => podman_version(),
    };
    let sandbox = Sandbox::new(PROJECT).engine(engine, &[version]);
    for (name, text) in files {
        fs::write(sandbox.path("src").join(name), text).unwrap();
    }
    let output = sandbox.run(&[
        "build-image",
        "--version",
        "dev-me",
        "--no-check",
        "--dry-run",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let root = sandbox.path("").to_string_lossy().into_owned();
    (
        output.stdout.replace(root.trim_end_matches('/'), ""),
        output.stderr,
    )
}

#[test]
fn every_engine_reads_the_same_ignore_file() {
    let dockerfile = ("Dockerfile", "FROM x\n");
    let usual = (".dockerignore", "*\n");
    for (files, option, warning) in [
        (&[dockerfile, usual][..], None, ""),
        (
            &[dockerfile, usual, (".containerignore", "target\n")],
            Some("--ignorefile /src/.dockerignore "),
            "warning: `.containerignore` is not used: builds with every engine read `.dockerignore`\n",
        ),
        (
            &[dockerfile, usual, ("Dockerfile.dockerignore", "*\n")],
            Some("--ignorefile /src/Dockerfile.dockerignore "),
            "",
        ),
        (
            &[dockerfile, (".containerignore", "target\n")],
            None,
            "warning: only Podman reads `.containerignore`, and Docker sends every file: rename it to `.dockerignore`\n",
        ),
    ] {
        let (podman, stderr) = build_with("podman", files);
        assert_eq!(stderr, warning);
        assert_eq!(
            podman.contains("--ignorefile"),
            option.is_some(),
            "{podman}"
        );
        assert!(podman.contains(option.unwrap_or_default()), "{podman}");
        let (docker, stderr) = build_with("docker", files);
        assert_eq!(stderr, warning);
        assert!(!docker.contains("ignorefile"), "{docker}");
    }
}

#[test]
fn a_build_argument_without_an_arg_is_named() {
    let sandbox = docker(&[docker_version()]).env("XTASK_BUILD_ARGS", "USED=1\nTYPO=2\nno_proxy=x");
    fs::write(sandbox.path("src/Dockerfile"), "FROM x\r\nARG USED\r\n").unwrap();
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    assert!(lines[0].contains("CR LF"), "{output:?}");
    assert!(lines[0].contains("core.autocrlf false"), "{output:?}");
    assert_eq!(
        lines[1],
        "warning: the build argument `TYPO` is not used: `Dockerfile` has no `ARG TYPO`"
    );
}

#[test]
fn a_link_out_of_the_context_is_named() {
    let sandbox = docker(&[docker_version()]);
    for folder in ["elsewhere", "src/here"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    symlink("../elsewhere", sandbox.path("src/app")).unwrap();
    symlink("here", sandbox.path("src/inside")).unwrap();
    let ignore = "*\n!app\n!inside\n!here\n!missing\n!*.py\n";
    fs::write(sandbox.path("src/.dockerignore"), ignore).unwrap();
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    assert_eq!(
        output.stderr,
        "warning: `app` is a link that leads out of the build's context, and engines do not follow it: replace the link with the files\n"
    );
}

#[test]
fn a_dockerfile_behind_a_link_is_built() {
    let sandbox = docker(&[docker_version()]);
    let elsewhere = sandbox.path("elsewhere");
    fs::write(&elsewhere, "FROM x\n").unwrap();
    symlink("../elsewhere", sandbox.path("src/Dockerfile")).unwrap();
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--dry-run"]);
    let file = fs::canonicalize(elsewhere).unwrap();
    let option = format!(" --file {} ", file.display());
    let root = sandbox.path("").to_string_lossy().into_owned();
    let option = option.replace(root.trim_end_matches('/'), "");
    assert!(output.stdout.contains(&option), "{output:?}");
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
    // What an engine calls an image's size differs between engines and their versions. `test-image` measures it.
    assert!(!output.stderr.contains("Size"), "{}", output.stderr);
    // Before the build: the engine's version and the image that has the tag. After it: the new image.
    assert_eq!(sandbox.calls().len(), 4);
    assert!(sandbox.calls()[3].ends_with("docker image inspect ghcr.io/x/y:dev-me"));
}

#[test]
fn a_build_does_not_move_the_tags_of_a_newer_version() {
    let here = json!([
        image_of("1.2.2", &["1.2.2"]),
        image_of("1.2.3", &["1.2.3", "1.2", "1", "latest"])
    ]);
    let tagged_by = |version: &str| {
        let sandbox = docker(&[
            docker_version(),
            answer("image inspect", 0, &here.to_string(), ""),
            ok("build"),
        ]);
        let line = ["build-image", "--no-check", "--version", version];
        let output = sandbox.run(&line);
        assert_eq!(output.code, 0, "{output:?}");
        let calls = sandbox.calls();
        let build = calls
            .iter()
            .find(|call| call.contains("docker build"))
            .unwrap();
        let words = build.split(' ');
        let tags: Vec<_> = words
            .filter_map(|word| word.strip_prefix("ghcr.io/x/y:"))
            .collect();
        (tags.join(" "), output.stderr)
    };
    let (tags, stderr) = tagged_by("1.2.2");
    assert_eq!(tags, "1.2.2");
    assert!(
        stderr.contains("Stays ghcr.io/x/y:latest at 1.2.3, which is newer\n"),
        "{stderr}"
    );
    for newest in ["1.2.3", "1.2.4"] {
        let (tags, stderr) = tagged_by(newest);
        assert_eq!(tags, format!("{newest} 1.2 1 latest"));
        assert!(!stderr.contains("Stays"), "{stderr}");
    }
}

/// A checkout whose Dockerfile has the stage `foundation`, with Podman.
fn podman_with_foundation(answers: &[Value]) -> Sandbox {
    let sandbox = Sandbox::new(PROJECT)
        .engine("podman", answers)
        .env("XTASK_BUILD_BASE_IMAGE_ARG", "PYTHON_IMAGE")
        .env(
            "XTASK_BUILD_BASE_IMAGE",
            "docker.io/library/python:3.11-slim",
        );
    let dockerfile = "ARG PYTHON_IMAGE\nFROM $PYTHON_IMAGE AS base\nFROM scratch AS foundation\n\
        COPY --from=base /a /a\nFROM foundation AS runtime\nCOPY b /b\n";
    fs::write(sandbox.path("src/Dockerfile"), dockerfile).unwrap();
    sandbox
}

#[test]
fn a_build_starts_from_the_layers_below_the_code_unless_the_base_image_is_newer() {
    let of = |id: &str, labels: Value| {
        let found = json!([{
            "Id": id, "Os": "linux", "Architecture": "amd64", "RepoTags": ["ghcr.io/x/y:dev-me"],
            "Config": { "Labels": labels },
        }]);
        found.to_string()
    };
    let ours = of("2", json!({ "ai.stigmer.xtask.image": "ghcr.io/x/y" }));
    let base = "image inspect docker.io/library/python:3.11-slim";
    let mut first = answer(base, 0, &of("1", json!({})), "");
    first["times"] = 1.into();
    for (later, options, builds) in [
        ("1", &[][..], 1),
        ("another", &[], 2),
        // These builds start from the base image.
        ("another", &["--pull"], 1),
        ("another", &["--no-cache"], 1),
        ("another", &["--platform", "linux/arm64"], 1),
    ] {
        let later = answer(base, 0, &of(later, json!({})), "");
        let others = answer("image inspect", 0, &ours, "");
        let answers = [
            podman_version(),
            first.clone(),
            later,
            others,
            ok("build"),
            ok("untag"),
        ];
        let sandbox = podman_with_foundation(&answers);
        let line = ["build-image", "--version", "dev-me"];
        let output = sandbox.run(&[&line, options].concat());
        assert_eq!(output.code, 0, "{output:?}");
        let again = "Building again: there is a newer base image\n";
        assert_eq!(output.stderr.contains(again), builds == 2, "{output:?}");
        let calls = sandbox.calls();
        let calls: Vec<_> = calls
            .iter()
            .filter(|call| call.contains("podman build"))
            .collect();
        assert_eq!(calls.len(), builds);
        let start = "--build-context foundation=container-image://localhost/y-foundation:";
        let starts = calls.iter().filter(|call| call.contains(start)).count();
        assert_eq!(
            starts,
            if options.is_empty() { builds } else { 0 },
            "{calls:?}"
        );
    }
}

#[test]
fn a_build_is_repeated_if_the_image_that_it_starts_from_was_removed() {
    let base = "image inspect docker.io/library/python:3.11-slim";
    let found = |tag: &str, labels: Value| {
        json!([{ "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
            "RepoTags": [tag], "Config": { "Labels": labels } }])
        .to_string()
    };
    let base = answer(
        base,
        0,
        &found("docker.io/library/python:3.11-slim", json!({})),
        "",
    );
    let ours = found(
        "localhost/y:dev-me",
        json!({ "ai.stigmer.xtask.image": "localhost/y" }),
    );
    let removed = "Error: localhost/y-foundation: image not known\n";
    // The first failure may be temporary, so the build is tried twice.
    for (is_removed, code, builds) in [(true, 0, 4), (false, 125, 2)] {
        let mut first = answer("image inspect", 0, &ours, "");
        if is_removed {
            // Asked before the build: for the tags and for the image that it starts from.
            first["times"] = 2.into();
        }
        let mut failing = answer("build", 125, "", removed);
        failing["times"] = 2.into();
        let mut answers = vec![podman_version(), base.clone(), first, failing, ok("build")];
        // Asked after the failed build and before the next one, in which both are missing; then for the result.
        if is_removed {
            let mut missing = answer("image inspect", 125, "[]\n", "Error: x: image not known\n");
            missing["times"] = 3.into();
            answers.extend([missing, answer("image inspect", 0, &ours, "")]);
        }
        let sandbox = podman_with_foundation(&answers);
        let output = sandbox.run(&["build-image", "--version", "dev-me"]);
        assert_eq!(output.code, code, "{output:?}");
        let again = "Building again: the image that the build started from was removed\n";
        assert_eq!(output.stderr.contains(again), is_removed, "{output:?}");
        let calls = sandbox.calls();
        let calls = calls.iter().filter(|call| call.contains("podman build"));
        assert_eq!(calls.count(), builds);
    }
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
        let sandbox = docker(&[docker_version()]).env("XTASK_BUILD_CHECK_TARGET", "check");
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
fn another_project_needs_no_stages_and_arguments_of_this_one() {
    let sandbox = docker(&[docker_version()]);
    let build = sandbox.run(&["build-image", "--dry-run", "--version", "1.2.3"]);
    assert_eq!(build.code, 0, "{build:?}");
    assert_eq!(build.stdout.lines().count(), 1, "no check: {build:?}");
    for option in ["--target", "--build-arg", "image.base.name"] {
        assert!(!build.stdout.contains(option), "{option}: {build:?}");
    }
    let check = sandbox.run(&["check", "--dry-run"]);
    assert_eq!(
        (check.code, check.stderr.as_str()),
        (
            2,
            "error: `build.check-target` names no stage with checks\n\
             hint: write a stage whose RUN steps fail if they find a problem, and set `build.check-target` to its name\n"
        )
    );
    let answers = [docker_version(), image()];
    // The stack of a contributor may run on the usual port.
    let elsewhere = format!("{PROJECT}env.STIGMER_BACKEND_ENDPOINT = 'localhost:1'\n");
    let sandbox = Sandbox::new(&elsewhere).engine("docker", &answers);
    let up = sandbox.run(&["up", "--dry-run", "--version", "dev-me"]);
    let missing = "error: `stack.server-target` names no stage with a development stigmer-server\n";
    assert!(up.code == 2 && up.stderr.contains(missing), "{up:?}");
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
            "docker container inspect box-server",
            "docker image inspect ghcr.io/x/y:dev-me",
            "docker info --format {{.LoggingDriver}}",
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
    let answers = [
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
    ];
    let run_with = |restart| {
        let sandbox = docker(&answers).env("XTASK_RUN_RESTART", restart);
        sandbox.run(&["run-local", "--version", "dev-me", "--quiet"])
    };
    let output = run_with("no");
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "TEMPORAL_MAX_CONCURRENCY: must be above 0\nerror: the container `box` exited with code 3 before it was healthy\nhint: read its whole log: `cargo xtask logs`\n"
    );
    let restarted = "hint: with `run.restart`, the engine starts it again and again: end that with `cargo xtask stop`\n";
    let output = run_with("on-failure");
    assert!(output.stderr.ends_with(restarted), "{}", output.stderr);
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
        let is_named = output
            .stderr
            .contains("hint: read its log: `docker logs box`\n");
        assert_eq!(is_named, line == "logs", "{}", output.stderr);
        let acted = sandbox.calls().into_iter().find(|call| {
            ![" inspect ", " version ", " info "]
                .iter()
                .any(|word| call.contains(word))
        });
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
    // With a restart policy, Docker says of a container that ends again and again that it is running.
    let mut restarting = container("restarting", true);
    let told = restarting["stdout"].as_str().unwrap();
    restarting["stdout"] = told.replace("\"Running\":false", "\"Running\":true").into();
    let other = format!("{PROJECT}[require]\nhealth-check = false\n");
    let output = Sandbox::new(&other)
        .engine("docker", &[restarting])
        .run(&flag);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stdout
            .contains("state      restarting with exit code 3\n"),
        "{}",
        output.stdout
    );
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
                "error: Podman cannot list its images: {}\nhint: a manifest list refers to an image that does not exist any more; remove the list: `podman manifest rm e90f`\n",
                broken.trim_end()
            )
        )
    );
}

#[test]
fn clean_all_removes_only_our_cache_mounts() {
    // Another project has cache mounts of another prefix, or none, and builders of another name.
    for (dockerfile, expected) in [
        ("ARG CACHE_ID=agent-runner\n", &["mine"][..]),
        ("ARG CACHE_ID=y\n", &["other"][..]),
        ("FROM scratch\n", &[]),
    ] {
        cache_mounts_of(dockerfile, expected);
    }
}

fn cache_mounts_of(dockerfile: &str, expected: &[&str]) {
    // The output is from Docker 28.5.2 with buildx 0.29.1.
    let du = "ID:           mine\nType:         exec.cachemount\nDescription:  cached mount /root/.cache/uv from exec /bin/sh -c uv with id \"/agent-runner-uv\"\n\n\
              ID:           other\nDescription:  cached mount /c from exec /bin/sh -c x with id \"/y-npm\"\n\n\
              ID:           theirs\nType:         exec.cachemount\nDescription:  cached mount /root/.npm from exec /bin/sh -c npm ci with id \"/root/.npm\"\n\nReclaimable: 1GB\n";
    let sandbox = docker(&[
        docker_version(),
        no_container("docker"),
        ok("image ls"),
        answer("buildx du", 0, du, ""),
        ok("buildx prune"),
        ok("buildx inspect"),
        ok("buildx rm"),
    ]);
    fs::write(sandbox.path("src/Dockerfile"), dockerfile).unwrap();
    let output = sandbox.run(&["clean", "--all", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    let calls = sandbox.calls();
    let prune = "docker buildx prune --builder default --force --filter id=";
    let pruned: Vec<_> = calls
        .iter()
        .filter_map(|call| call.strip_prefix(prune))
        .collect();
    assert_eq!(pruned, expected);
    let builders = calls.iter().filter(|call| call.contains("buildx rm"));
    let builders: Vec<_> = builders.filter(|call| !call.contains(" y-xtask")).collect();
    assert_eq!(builders, [""; 0], "the builders of this project only");
}

#[test]
fn clean_all_removes_the_compressed_layers() {
    let sandbox = docker(&[docker_version(), no_container("docker"), ok("image ls")]);
    symlink(which::which("rm").unwrap(), sandbox.path("bin/rm")).unwrap();
    let layers = sandbox.path("home/.cache/agent-runner/layers");
    fs::create_dir_all(&layers).unwrap();
    fs::write(layers.join("one"), "").unwrap();
    let kept = layers.with_file_name("kept");
    fs::write(&kept, "").unwrap();
    let output = sandbox.run(&["clean", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(layers.join("one").exists(), "without `--all`");
    let output = sandbox.run(&["clean", "--all", "--dry-run"]);
    let expected = "rm -rf /home/.cache/agent-runner/layers || true\n";
    assert_eq!((output.code, output.stdout.as_str()), (0, expected));
    assert!(layers.join("one").exists(), "in a dry run");
    let output = sandbox.run(&["clean", "--all", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    let said = output.stderr.contains("Removing compressed layers /home");
    assert!(said && !output.stderr.contains("Removed"), "{output:?}");
    assert!(!layers.exists() && kept.exists());
    // The link of somebody who keeps the layers somewhere else.
    symlink(kept.parent().unwrap(), &layers).unwrap();
    let output = sandbox.run(&["clean", "--all", "--yes"]);
    assert!(output.stderr.contains("nothing of ours"), "{output:?}");
    assert!(layers.is_symlink());
}

/// The answers are those of Podman 4.3.1.
#[test]
fn clean_removes_a_manifest_list_before_its_images() {
    let sandbox = || {
        Sandbox::new(PROJECT).engine(
            "podman",
            &[
                podman_version(),
                no_container("podman"),
                answer(
                    "image ls --filter reference=ghcr.io/x/y",
                    0,
                    "ghcr.io/x/y:dev-me\nghcr.io/x/y:other\nghcr.io/x/y:<none>\n",
                    "",
                ),
                answer("image ls --filter", 0, "", ""),
                answer("manifest exists ghcr.io/x/y:dev-me", 0, "", ""),
                answer("manifest exists", 1, "", ""),
                ok("manifest rm"),
                answer("image ls --no-trunc", 0, "0123456789abcdef\n", ""),
                answer(
                    "image inspect 0123456789abcdef",
                    0,
                    r#"[{"Id":"0123456789abcdef","RepoTags":[],"Config":{"Labels":{"org.opencontainers.image.version":"dev-me"}}}]"#,
                    "",
                ),
                ok("image rm"),
            ],
        )
    };
    for line in ["clean --yes --version dev-me", "clean --all --yes"] {
        let sandbox = sandbox();
        let output = sandbox.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.code, 0, "{output:?}");
        let calls = sandbox.calls();
        let removed = calls.iter().filter(|call| call.contains(" rm "));
        assert_eq!(
            removed.take(2).collect::<Vec<_>>(),
            [
                "podman manifest rm ghcr.io/x/y:dev-me",
                "podman image rm 0123456789abcdef"
            ]
        );
    }
}

#[test]
fn clean_keeps_the_images_of_a_manifest_list_that_stays() {
    let list = "ghcr.io/x/y:dev-me\nghcr.io/x/y:other\n";
    let sandbox = Sandbox::new(PROJECT).engine(
        "podman",
        &[
            podman_version(),
            no_container("podman"),
            answer("image ls --filter reference=ghcr.io/x/y", 0, list, ""),
            answer("image ls --filter", 0, "", ""),
            ok("manifest exists"),
            ok("manifest rm"),
            answer("image ls --no-trunc", 0, "0123456789abcdef\n", ""),
            answer(
                "image inspect 0123456789abcdef",
                0,
                r#"[{"Id":"0123456789abcdef","RepoTags":[],"Config":{"Labels":{"org.opencontainers.image.version":"dev-me"}}}]"#,
                "",
            ),
        ],
    );
    let output = sandbox.run(&["clean", "--version", "dev-me", "--dry-run"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "podman manifest rm ghcr.io/x/y:dev-me || true\n")
    );
}

/// The errors are those of Podman 4.3.1, and of Docker 28.5 and 29 with containerd's store, while other processes
/// built and removed images.
#[test]
fn an_engine_whose_store_changes_meanwhile_is_asked_again() {
    let once = |args: &str, code: i32, stderr: &str| {
        let mut answer = answer(args, code, "", &format!("{stderr}\n"));
        answer["times"] = 1.into();
        answer
    };
    let of_podman = [
        r#"Error: reading image "0123456789abcdef": locating image with ID "0123456789abcdef": image not known"#,
        r#"Error: reading data blob size "manifest-sha256:e501" for "0123456789abcdef": size is not known"#,
    ];
    let of_docker = [
        "Error response from daemon: NotFound: content digest sha256:0123: not found",
        "Error response from daemon: consistency error: data changed during operation, retry",
    ];
    for (engine, version, code, errors) in [
        ("podman", podman_version(), 125, of_podman),
        ("docker", docker_version(), 1, of_docker),
    ] {
        for error in errors {
            let sandbox = Sandbox::new(PROJECT).engine(
                engine,
                &[
                    version.clone(),
                    no_container(engine),
                    answer("image ls --filter", 0, "", ""),
                    once("image ls", code, error),
                    answer("image ls", 0, "sha256:0123456789abcdef\n", ""),
                    once("image inspect", code, error),
                    image(),
                ],
            );
            let output = sandbox.run(&["clean", "--version", "dev-me", "--dry-run"]);
            assert_eq!(
                (output.code, output.stdout),
                (0, format!("{engine} image rm ghcr.io/x/y:dev-me || true\n")),
                "{error}: {}",
                output.stderr
            );
        }
    }
}

#[test]
fn an_engine_whose_store_changes_all_the_time_is_not_said_to_have_no_images() {
    let error = "Error: reading image \"01\": locating image with ID \"01\": image not known\n";
    let sandbox = Sandbox::new(PROJECT).engine(
        "podman",
        &[
            podman_version(),
            no_container("podman"),
            answer("image ls --filter", 0, "", ""),
            answer("image ls", 0, "sha256:01\n", ""),
            answer("image inspect", 125, "[]\n", error),
        ],
    );
    let output = sandbox.run(&["clean", "--yes"]);
    let expected =
        format!("error: `podman` gives no answer while other programs change its images: {error}");
    assert_eq!((output.code, output.stderr), (1, expected));
    let asked = sandbox.calls();
    let asked = asked.iter().filter(|call| call.contains("image inspect"));
    assert_eq!(asked.count(), 3);
}

#[test]
fn clean_cleans_every_engine() {
    let images = answer("image ls", 0, "sha256:0123456789abcdef\n", "");
    let docker = [
        docker_version(),
        no_container("docker"),
        images,
        image(),
        ok("image rm"),
    ];
    let podman = [
        podman_version(),
        podman_container("paused"),
        answer("image ls", 0, "", ""),
        ok("unpause"),
        ok("stop"),
        ok("rm"),
    ];
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &docker)
        .engine("podman", &podman);
    let output = sandbox.run(&["clean", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(
        output.stdout,
        "docker image rm ghcr.io/x/y:dev-me || true\n\
         podman unpause box || true\n\
         podman stop -t 10 box || true\n\
         podman rm --force --time 0 box || true\n"
    );
    let output = sandbox.run(&["clean", "--version", "dev-me"]);
    assert!(
        output
            .stderr
            .contains("  image ghcr.io/x/y:dev-me of Docker\n"),
        "{}",
        output.stderr
    );
    assert!(
        output
            .stderr
            .contains("  container box (paused) of Podman\n"),
        "{}",
        output.stderr
    );
}

#[test]
fn an_image_in_the_other_engine_is_found() {
    for (line, first) in [
        (
            "run-local --version dev-me",
            "error: there is no image `ghcr.io/x/y:dev-me` here, and the channel `dev` does not publish any\n",
        ),
        (
            "test-image --version dev-me",
            "error: there is no image `ghcr.io/x/y:dev-me` here\n",
        ),
    ] {
        let sandbox = Sandbox::new(PROJECT)
            .engine("docker", &[docker_version(), no_container("docker")])
            .engine("podman", &[podman_version(), image()]);
        let output = sandbox.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.code, 1);
        assert_eq!(
            output.stderr,
            format!(
                "{first}hint: build it: `cargo xtask build-image --version dev-me`\nhint: use the engine that has this image: `--engine podman`\n"
            )
        );
    }
}

#[test]
fn clean_keeps_an_image_that_somebody_else_uses() {
    let theirs = r#"[{"Id":"c1","Name":"/stigmer-agent-runner","Image":"sha256:0123456789abcdef","Config":{"Image":"ghcr.io/x/y:dev-me","Env":["WORKSPACE_ROOT=/workspace"]}}]"#;
    let sandbox = docker(&[
        docker_version(),
        no_container("docker"),
        answer("image ls", 0, "sha256:0123456789abcdef\n", ""),
        image(),
        answer("ps --all --quiet --no-trunc", 0, "c1\n", ""),
        answer("container inspect c1", 0, theirs, ""),
        ok("buildx inspect"),
    ]);
    let warning = "warning: image ghcr.io/x/y:dev-me stays: the container `stigmer-agent-runner` uses it, created by the stigmer CLI\n";
    for line in [
        &["clean", "--all", "--dry-run"][..],
        &["clean", "--version", "dev-me", "--yes"],
    ] {
        let output = sandbox.run(line);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains(warning), "{}", output.stderr);
    }
    let removed = sandbox
        .calls()
        .into_iter()
        .find(|call| call.contains("image rm"));
    assert_eq!(removed, None);
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
        output.stderr.ends_with("Removed 0 images\n"),
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
