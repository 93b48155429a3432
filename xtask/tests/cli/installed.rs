//! xtask as an installed binary, in another folder and under another name.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, XTASK, docker_version, no_container, no_image,
};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const HINT: &str = "hint: update this xtask, which was built from other sources than the checkout's: \
    `cargo install --locked --path xtask`\n";

/// A sandbox, and a link to xtask with another name.
fn sandbox() -> (Sandbox, PathBuf) {
    let answers = [docker_version(), no_container("docker"), no_image()];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let copy = sandbox.path("home/my-xtask");
    // A link, because starting a newly written file can fail with `Text file busy`.
    symlink(XTASK, &copy).unwrap();
    (sandbox, copy)
}

fn run(sandbox: &Sandbox, copy: &Path, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
    let mut command = sandbox.command_of(copy, args);
    command
        .env_remove("CARGO_PKG_NAME")
        .envs(env.iter().copied());
    sandbox.command_output(&command.output().unwrap())
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
fn messages_have_the_command_that_was_used() {
    let (sandbox, copy) = sandbox();
    let output = run(&sandbox, &copy, &["run-local", "--version", "dev-me"], &[]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
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
        let output = run(&sandbox, &copy, args, &[]);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        assert!(
            !output.stdout.contains("cargo xtask"),
            "{args:?}: {}",
            output.stdout
        );
    }
    let output = run(&sandbox, &copy, &["ci-check"], &[]);
    assert!(output.stdout.contains("xtask docker-login"), "{output:?}");
    assert!(!output.stdout.contains("cargo xtask"), "{output:?}");
    for args in [&["doctor", "--json"][..], &["ci-check", "--json"]] {
        let output = run(&sandbox, &copy, args, &[]);
        assert!(output.stdout.contains("xtask explain"), "{output:?}");
        assert!(!output.stdout.contains("cargo xtask"), "{output:?}");
    }
    let output = run(&sandbox, &copy, &["stop", "--nope"], &[]);
    assert!(output.stderr.contains("Usage: xtask stop"), "{output:?}");
    let output = sandbox.run(&["stop", "--nope"]);
    assert!(
        output.stderr.contains("Usage: cargo xtask stop"),
        "{output:?}"
    );
}

#[test]
fn an_outdated_binary_is_reported_once_a_day() {
    let (sandbox, copy) = sandbox();
    let package = sandbox.path("src/xtask");
    for folder in ["src", "core/src"] {
        copy_folder(&Path::new(PACKAGE).join(folder), &package.join(folder));
    }
    for file in ["Cargo.toml", "core/Cargo.toml"] {
        fs::copy(Path::new(PACKAGE).join(file), package.join(file)).unwrap();
    }
    let status = |env: &[(&str, &str)]| run(&sandbox, &copy, &["status"], env).stderr;
    let without_hint = status(&[]);
    assert!(
        !without_hint.contains("hint: update this xtask"),
        "{without_hint}"
    );

    fs::write(package.join("src/new.rs"), "").unwrap();
    // If the cache folder is not writable, the hint is printed each time.
    let nowhere = [("XDG_CACHE_HOME", "/dev/null/x")];
    let with_hint = format!("{HINT}{without_hint}");
    assert_eq!(status(&nowhere), with_hint);
    assert_eq!(status(&nowhere), with_hint);
    assert_eq!(status(&[]), with_hint);
    assert_eq!(status(&[]), without_hint, "the hint was printed today");

    let marker = sandbox.path("home/.cache/agent-runner/outdated-hint-shown");
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    fs::File::options()
        .write(true)
        .open(marker)
        .unwrap()
        .set_modified(yesterday)
        .unwrap();
    let by_cargo = run(&sandbox, &copy, &["status"], &[("CARGO_PKG_NAME", "xtask")]);
    assert!(
        !by_cargo.stderr.contains("hint: update this xtask"),
        "Cargo has just built xtask"
    );
    assert_eq!(status(&[]), with_hint, "on the next day");
}

/// `cargo install` installs every binary of a package.
#[test]
fn cargo_install_installs_only_xtask() {
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
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|one| one["name"] == "xtask").unwrap();
    let targets = package["targets"].as_array().unwrap();
    let programs: Vec<_> = targets
        .iter()
        .filter(|target| target["kind"] == serde_json::json!(["bin"]))
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(programs, ["xtask"]);
}
