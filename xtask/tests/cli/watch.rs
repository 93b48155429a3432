//! `watch`: rounds, what begins one, and its end.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    commands::{signal, wait_for},
    world::{
        PROJECT, World, answer, container, docker_version, image, no_container,
        no_container_at_first, no_image,
    },
};

/// A machine on which the second build fails.
fn world() -> World {
    let mut first = answer("build", 0, "", "");
    first["times"] = 1.into();
    let mut second = answer("build", 1, "", "ERROR: dockerfile parse error on line 2\n");
    second["times"] = 1.into();
    // None before it begins, and none in its first round.
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
    let world = World::new(PROJECT).engine("docker", &answers);
    fs::write(world.path("src/.dockerignore"), "*\n!app\n**/.*\n").unwrap();
    fs::create_dir(world.path("src/app")).unwrap();
    save(&world, "app/main.py", "1");
    save(&world, "Dockerfile", "FROM x");
    world
}

fn save(world: &World, name: &str, text: &str) {
    fs::write(world.path("src").join(name), text).unwrap();
}

fn count(world: &World, call: &str) -> usize {
    let begins = |line: &&String| line.split_once("docker ").unwrap().1.starts_with(call);
    world.calls().iter().filter(begins).count()
}

#[test]
fn each_change_is_one_round() {
    let world = world();
    let child = world.start(&["watch", "--version", "dev-me"]);
    wait_for(|| count(&world, "exec") == 1);

    // What the image is not made of changes nothing.
    save(&world, "app/.main.py.swp", "x");
    save(&world, "notes", "x");
    thread::sleep(Duration::from_millis(800));
    assert_eq!(count(&world, "build"), 1);

    // The second build fails: the container is left alone.
    save(&world, "Dockerfile", "FROM x\nNONSENSE");
    wait_for(|| count(&world, "build") == 2);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(count(&world, "stop"), 0);

    // Changes during the third are one more round after it, whatever their number.
    save(&world, "Dockerfile", "FROM x");
    wait_for(|| count(&world, "build") == 3);
    for text in ["22", "333", "4444"] {
        save(&world, "app/main.py", text);
        thread::sleep(Duration::from_millis(50));
    }
    wait_for(|| count(&world, "exec") == 3);
    thread::sleep(Duration::from_millis(800));
    assert_eq!((count(&world, "build"), count(&world, "run")), (4, 3));

    // A configuration that cannot be read is said, and nothing is done by it.
    save(&world, "xtask.toml", "schema = 1\nnonsense = 1\n");
    thread::sleep(Duration::from_millis(800));
    assert_eq!(count(&world, "build"), 4);

    signal(child.id(), libc::SIGINT);
    let ran = world.ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    assert_eq!(
        ran.stdout, "box\nbox\nbox\n",
        "a line each time it is healthy"
    );
    let said: Vec<_> = ran
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
        said,
        [
            watching,
            "     Changed Dockerfile",
            "error: `docker build` failed with exit code 1",
            "hint: the old container box is still running",
            watching,
            "     Changed Dockerfile",
            watching,
            "     Changed app/main.py",
            watching,
            "     Changed xtask.toml",
            "error: the configuration has a problem",
            "hint: the old container box is still running",
            watching,
            "     Stopped watching; box still runs: `cargo xtask stop` ends it",
            "error: interrupted",
        ],
        "{}",
        ran.stderr
    );
}

#[test]
fn what_no_change_of_a_file_mends_ends_it_at_once() {
    let answers = [docker_version(), container("running", false)];
    let world = World::new(PROJECT).engine("docker", &answers);
    let ran = world.run(&["watch", "--version", "dev-me"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("error: the container `box` is not ours"),
        "{ran:?}"
    );
    let ran = World::new(PROJECT).run(&["watch", "--version", "dev-me"]);
    assert_eq!(ran.code, 1, "no engine: {ran:?}");
}

#[test]
fn a_dry_run_prints_one_round() {
    let world = world();
    let ran = world.run(&[
        "watch",
        "--version",
        "dev-me",
        "--network",
        "other",
        "--dry-run",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[0].contains("docker build"), "{lines:?}");
    assert!(lines.last().unwrap().contains("docker run"), "{lines:?}");
    assert!(
        lines.last().unwrap().contains("--network other"),
        "{lines:?}"
    );
    assert_eq!(count(&world, "build"), 0);

    let answers = [docker_version(), no_container_at_first(), no_image()];
    let world = World::new(PROJECT).engine("docker", &answers);
    let ran = world.run(&["watch", "--version", "dev-me", "--dry-run"]);
    assert_eq!(ran.code, 0, "before the first build: {ran:?}");
}

#[test]
fn a_signal_during_a_build_ends_the_build_and_the_watching() {
    let answers = [
        docker_version(),
        no_container("docker"),
        no_image(),
        json!({ "args": "build", "sleep_ms": 30_000 }),
    ];
    let world = World::new(PROJECT).engine("docker", &answers);
    let child = world.start(&["watch", "--version", "dev-me"]);
    wait_for(|| count(&world, "build") == 1);
    signal(child.id(), libc::SIGTERM);
    let ran = world.ran(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (143, ""), "{ran:?}");
    let end = "     Stopped watching; box does not run\nerror: interrupted\n";
    assert!(ran.stderr.ends_with(end), "{ran:?}");
    assert_eq!(ran.stderr.matches("error:").count(), 1, "{ran:?}");
}
