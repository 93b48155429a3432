//! xtask without Cargo: a binary that was built before, at another place and by another name.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::{PROJECT, Ran, World, XTASK, docker_version, no_container, no_image};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const HINT: &str = "hint: update this xtask, which was built from other sources than the checkout's: \
    `cargo install --locked --path xtask`\n";

/// A machine with a binary of another name.
fn world() -> (World, PathBuf) {
    let answers = [docker_version(), no_container("docker"), no_image()];
    let world = World::new(PROJECT).engine("docker", &answers);
    let copy = world.path("home/my-xtask");
    // A program that was just written can be busy for an instant.
    symlink(XTASK, &copy).unwrap();
    (world, copy)
}

fn run(world: &World, copy: &Path, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = world.command_of(copy, args);
    command
        .env_remove("CARGO_PKG_NAME")
        .envs(env.iter().copied());
    world.ran(&command.output().unwrap())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn it_names_itself_as_it_was_called() {
    let (world, copy) = world();
    let ran = run(&world, &copy, &["run-local", "--version", "dev-me"], &[]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: there is no image `ghcr.io/x/y:dev-me` here, and the channel `dev` does not publish any\n\
             hint: build it: `xtask build-image --version dev-me`\n"
        )
    );
    for args in [
        &["help"][..],
        &["--help"],
        &["help", "stop"],
        &["stop", "--help"],
        &["explain"],
        &["--version"],
        &["pack-archive", "a.tar", "--output", "b.tar", "--dry-run"],
    ] {
        let ran = run(&world, &copy, args, &[]);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        assert!(
            !ran.stdout.contains("cargo xtask"),
            "{args:?}: {}",
            ran.stdout
        );
    }
    let ran = run(&world, &copy, &["ci-check"], &[]);
    assert!(ran.stdout.contains("xtask docker-login"), "{ran:?}");
    assert!(!ran.stdout.contains("cargo xtask"), "{ran:?}");
    let ran = run(&world, &copy, &["stop", "--nope"], &[]);
    assert!(ran.stderr.contains("Usage: xtask stop"), "{ran:?}");
    let ran = world.run(&["stop", "--nope"]);
    assert!(ran.stderr.contains("Usage: cargo xtask stop"), "{ran:?}");
}

#[test]
fn it_says_once_a_day_that_the_checkout_has_other_sources() {
    let (world, copy) = world();
    let package = world.path("src/xtask");
    copy_folder(&Path::new(PACKAGE).join("src"), &package.join("src"));
    fs::copy(
        Path::new(PACKAGE).join("Cargo.toml"),
        package.join("Cargo.toml"),
    )
    .unwrap();
    let status = |env: &[(&str, &str)]| run(&world, &copy, &["status"], env).stderr;
    let without_hint = status(&[]);
    assert!(
        !without_hint.contains("hint: update this xtask"),
        "{without_hint}"
    );

    fs::write(package.join("src/new.rs"), "").unwrap();
    // Where nothing can be written it is said each time, and all else is as it was.
    let nowhere = [("XDG_CACHE_HOME", "/dev/null/x")];
    let with_hint = format!("{HINT}{without_hint}");
    assert_eq!(status(&nowhere), with_hint);
    assert_eq!(status(&nowhere), with_hint);
    assert_eq!(status(&[]), with_hint);
    assert_eq!(status(&[]), without_hint, "it was said today");

    let said = world.path("home/.cache/agent-runner/outdated-hint-shown");
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    fs::File::options()
        .write(true)
        .open(said)
        .unwrap()
        .set_modified(yesterday)
        .unwrap();
    let by_cargo = run(&world, &copy, &["status"], &[("CARGO_PKG_NAME", "xtask")]);
    assert!(
        !by_cargo.stderr.contains("hint: update this xtask"),
        "Cargo has just built it"
    );
    assert_eq!(status(&[]), with_hint, "another day");
}

/// `cargo install` takes every program of a package.
#[test]
fn nothing_but_xtask_is_installed() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(PACKAGE)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    let programs: Vec<_> = targets
        .iter()
        .filter(|target| target["kind"] == serde_json::json!(["bin"]))
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(programs, ["xtask"]);
}
