//! `watch`: what starts a round, and what ends the command.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    commands::{signal, wait_for},
    sandbox::{
        PROJECT, Sandbox, answer, container, docker_version, image, no_container,
        no_container_at_first, no_image,
    },
};

/// A sandbox in which the second build fails.
fn sandbox() -> Sandbox {
    let mut first = answer("build", 0, "", "");
    first["times"] = 1.into();
    let mut second = answer("build", 1, "", "ERROR: dockerfile parse error on line 2\n");
    second["times"] = 1.into();
    // There is no container before `watch` starts and in its first round.
    let mut none = no_container_at_first();
    none["times"] = 2.into();
    let ok = |args: &str| answer(args, 0, "", "");
    let answers: Vec<Value> = vec![
        docker_version(),
        none,
        container("running", true),
        image(),
        first,
        second,
        json!({ "args": "build", "sleep_ms": 1000 }),
        ok("run"),
        ok("exec"),
        ok("stop"),
        ok("rm"),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    fs::write(sandbox.path("src/.dockerignore"), "*\n!app\n**/.*\n").unwrap();
    fs::create_dir(sandbox.path("src/app")).unwrap();
    save(&sandbox, "app/main.py", "1");
    save(&sandbox, "Dockerfile", "FROM x");
    sandbox
}

fn save(sandbox: &Sandbox, name: &str, text: &str) {
    fs::write(sandbox.path("src").join(name), text).unwrap();
}

fn count(sandbox: &Sandbox, call: &str) -> usize {
    let begins = |line: &&String| line.split_once("docker ").unwrap().1.starts_with(call);
    sandbox.calls().iter().filter(begins).count()
}

#[test]
fn each_change_starts_one_round() {
    let sandbox = sandbox();
    let child = sandbox.start(&["watch", "--version", "dev-me"]);
    wait_for(|| count(&sandbox, "exec") == 1);

    // Files that are not in the image start no round.
    save(&sandbox, "app/.main.py.swp", "x");
    save(&sandbox, "notes", "x");
    thread::sleep(Duration::from_millis(800));
    assert_eq!(count(&sandbox, "build"), 1);

    // The second build fails, and the container keeps running.
    save(&sandbox, "Dockerfile", "FROM x\nNONSENSE");
    wait_for(|| count(&sandbox, "build") == 2);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(count(&sandbox, "stop"), 0);

    // Several changes during the third build start a single round after it.
    save(&sandbox, "Dockerfile", "FROM x");
    wait_for(|| count(&sandbox, "build") == 3);
    for text in ["22", "333", "4444"] {
        save(&sandbox, "app/main.py", text);
        thread::sleep(Duration::from_millis(50));
    }
    wait_for(|| count(&sandbox, "exec") == 3);
    thread::sleep(Duration::from_millis(800));
    assert_eq!((count(&sandbox, "build"), count(&sandbox, "run")), (4, 3));

    // An invalid configuration is reported and starts no build.
    save(&sandbox, "xtask.toml", "schema = 1\nnonsense = 1\n");
    thread::sleep(Duration::from_millis(800));
    assert_eq!(count(&sandbox, "build"), 4);

    signal(child.id(), libc::SIGINT);
    let output = sandbox.command_output(&child.wait_with_output().unwrap());
    assert_eq!(output.code, 130, "{output:?}");
    assert_eq!(
        output.stdout, "box\nbox\nbox\n",
        "a line for each time the container becomes healthy"
    );
    let messages: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| {
            ["Changed", "Watching", "Stopped", "error:", "hint:"]
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        })
        .collect();
    let watching = "    Watching 4 files; Ctrl-C stops watching, and the container keeps running";
    assert_eq!(
        messages,
        [
            watching,
            "     Changed Dockerfile",
            "error: `docker build` failed with exit code 1",
            "hint: keep using the old container box, which is still running, or stop it: `cargo xtask stop`",
            watching,
            "     Changed Dockerfile",
            watching,
            "     Changed app/main.py",
            watching,
            "     Changed xtask.toml",
            "error: the configuration has a problem",
            "hint: keep using the old container box, which is still running, or stop it: `cargo xtask stop`",
            watching,
            "     Stopped watching; box still runs: `cargo xtask stop` ends it",
            "error: interrupted",
        ],
        "{}",
        output.stderr
    );
}

#[test]
fn errors_that_no_file_change_can_fix_end_watch() {
    let answers = [docker_version(), container("running", false)];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let output = sandbox.run(&["watch", "--version", "dev-me"]);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr
            .starts_with("error: the container `box` is not ours"),
        "{output:?}"
    );
    let output = Sandbox::new(PROJECT).run(&["watch", "--version", "dev-me"]);
    assert_eq!(output.code, 1, "no engine: {output:?}");
}

#[test]
fn watch_with_dry_run_prints_one_round() {
    let sandbox = sandbox();
    let output = sandbox.run(&[
        "watch",
        "--version",
        "dev-me",
        "--network",
        "bridge",
        "--dry-run",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<_> = output.stdout.lines().collect();
    assert!(lines[0].contains("docker build"), "{lines:?}");
    assert!(lines.last().unwrap().contains("docker run"), "{lines:?}");
    assert!(
        lines
            .last()
            .unwrap()
            .contains("--add-host host.docker.internal"),
        "{lines:?}"
    );
    assert_eq!(count(&sandbox, "build"), 0);

    let answers = [docker_version(), no_container_at_first(), no_image()];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let output = sandbox.run(&["watch", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "before the first build: {output:?}");
}

#[test]
fn a_signal_during_a_build_ends_watch() {
    let answers = [
        docker_version(),
        no_container("docker"),
        no_image(),
        json!({ "args": "build", "sleep_ms": 30_000 }),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let child = sandbox.start(&["watch", "--version", "dev-me"]);
    wait_for(|| count(&sandbox, "build") == 1);
    signal(child.id(), libc::SIGTERM);
    let output = sandbox.command_output(&child.wait_with_output().unwrap());
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (143, ""),
        "{output:?}"
    );
    let end = "     Stopped watching; box does not run\nerror: interrupted\n";
    assert!(output.stderr.ends_with(end), "{output:?}");
    assert_eq!(output.stderr.matches("error:").count(), 1, "{output:?}");
}
