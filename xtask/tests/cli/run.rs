//! What `run-local` gives the container: mounts, environment, network and user, and what it leaves.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, answer, container, docker_version, image, no_container,
    podman_version,
};

fn ok(args: &str) -> Value {
    answer(args, 0, "", "")
}

/// A checkout with more lines in `[run]` and with an engine that has the image.
fn sandbox(engine: &str, more: &str) -> Sandbox {
    let version = if engine == "docker" {
        docker_version()
    } else {
        podman_version()
    };
    Sandbox::new(&format!("{PROJECT}{more}")).engine(engine, &[version, image()])
}

fn local(sandbox: &Sandbox, text: &str) {
    let file = sandbox.path("src/xtask.local.toml");
    fs::write(file, format!("schema = 1\n{text}")).unwrap();
}

fn dry_run(sandbox: &Sandbox, more: &[&str]) -> CommandOutput {
    let run = ["run-local", "--version", "dev-me", "--dry-run"];
    sandbox.run(&[&run, more].concat())
}

/// The values of an option of the engine's `run`, such as `--volume`.
fn values(output: &CommandOutput, option: &str) -> Vec<String> {
    assert_eq!(output.code, 0, "{output:?}");
    let line = output.stdout.lines().find(|line| line.contains(" run "));
    let mut words = line.unwrap().split(' ');
    let mut found = Vec::new();
    while words.any(|word| word == option) {
        found.extend(words.next().map(str::to_owned));
    }
    found
}

#[test]
fn a_personal_volume_does_not_take_the_place_of_the_workspace() {
    let sandbox = sandbox("docker", "volumes = ['~/a:/a']\n");
    local(&sandbox, "[run]\nvolumes = ['~/extra:/extra']\n");
    let output = dry_run(&sandbox, &["-v", "/tmp:/c"]);
    assert_eq!(
        values(&output, "--volume"),
        [
            "/home/work:/workspace",
            "/home/a:/a",
            "/home/extra:/extra",
            "/tmp:/c"
        ]
    );
    let output = sandbox.run(&["config"]);
    let volumes =
        "run.volumes = [\"~/a:/a\", \"~/extra:/extra\"]  # xtask.toml:7, xtask.local.toml:3\n";
    assert!(output.stdout.contains(volumes), "{}", output.stdout);
}

#[test]
fn the_old_form_of_the_workspace_is_refused_with_the_new_one() {
    let sandbox = sandbox("docker", "");
    local(&sandbox, "[run]\nvolumes = ['~/mine:/workspace']\n");
    let output = dry_run(&sandbox, &[]);
    assert_eq!(output.code, 2, "{output:?}");
    assert_eq!(
        output.stderr,
        "error: the container's folder `/workspace` has two mounts: `run.workspace` (from xtask.toml:6) and `~/mine:/workspace` in `run.volumes` (from xtask.local.toml:3)\n\
         hint: for another workspace write `run.workspace = \"~/mine\"` or set `XTASK_RUN_WORKSPACE`, and remove the volume\n"
    );
    assert!(sandbox.calls().is_empty(), "{:?}", sandbox.calls());
}

#[test]
fn a_project_without_a_workspace_mounts_none() {
    let project = "schema = 1\n[image]\nrepository = 'ghcr.io/x/y'\n";
    let sandbox = Sandbox::new(project).engine("docker", &[docker_version(), image()]);
    assert!(values(&dry_run(&sandbox, &[]), "--volume").is_empty());
}

/// A container of an image with a volume for which nothing is mounted has an unnamed volume. It can hold
/// files of the user.
#[test]
fn a_replaced_or_stopped_container_leaves_its_unnamed_volumes() {
    for engine in ["docker", "podman"] {
        let version = if engine == "docker" {
            docker_version()
        } else {
            podman_version()
        };
        let answers = [version, container("running", true), image()];
        let sandbox = Sandbox::new(PROJECT).engine(
            engine,
            &[&answers[..], &[ok("stop"), ok("rm"), ok("run")]].concat(),
        );
        for line in [
            &["run-local", "--version", "dev-me", "--no-wait"][..],
            &["stop"],
        ] {
            let output = sandbox.run(line);
            assert_eq!(output.code, 0, "{output:?}");
        }
        let calls = sandbox.calls();
        let removals: Vec<_> = calls.iter().filter(|call| call.contains(" rm ")).collect();
        assert_eq!(removals.len(), 2, "{calls:?}");
        for call in removals {
            let removes_volumes = call.contains(" -v") || call.contains("--volumes");
            assert!(!removes_volumes, "{call}");
        }
    }
}

/// An image that declares the volumes `/workspace` and `/data`.
fn image_with_volumes() -> Value {
    let found = json!([{
        "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
        "Config": { "Volumes": { "/workspace": {}, "/data": {} } },
    }]);
    answer("image inspect", 0, &found.to_string(), "")
}

#[test]
fn files_that_an_unnamed_volume_would_hold_are_announced() {
    let answers = [
        docker_version(),
        no_container("docker"),
        image_with_volumes(),
        ok("run"),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let warning = "warning: nothing is mounted at `/data`, a volume of the image: the next container does not have its files\n\
         hint: mount a folder: `run.volumes = [\"~/FOLDER:/data\"]` in `xtask.local.toml`\n";
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    assert!(!output.stderr.contains("`/workspace`"), "{}", output.stderr);
    let output = sandbox.run(&[
        "run-local",
        "--version",
        "dev-me",
        "--no-wait",
        "-v",
        "data:/data",
    ]);
    assert!(!output.stderr.contains("/data"), "{}", output.stderr);
}
