//! What may be published, decided before the first request to a registry.

use serde_json::Value;

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, answer, docker_version, image, podman_version, skipped,
};

const SHA: &str = "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c";

/// A checkout with this state of git, and Podman.
fn checkout(refs: &str, status: &str) -> Sandbox {
    let head = format!("{SHA}\n1700000000\n{refs}\n");
    let git = [answer("status", 0, status, ""), answer("log", 0, &head, "")];
    Sandbox::new(PROJECT)
        .engine("git", &git)
        .engine("podman", &[podman_version()])
}

fn refused(output: &CommandOutput, code: i32, stderr: &str) {
    assert_eq!((output.code, output.stderr.as_str()), (code, stderr));
}

const DIRTY: &str = "not fit to publish: the channel `release` requires a clean and tagged work tree, and there are uncommitted changes\n\
    hint: commit them, then tag the commit: `git tag v1.2.3` (`work-tree` of the channel `release` in xtask.toml requires it)\n\
    hint: publish them without a commit: pass `--allow-dirty`\n";

#[test]
fn uncommitted_changes_are_not_skipped_with_the_preflight() {
    let sandbox = checkout("HEAD, tag: refs/tags/v1.2.3", " M x\n")
        .engine("docker", &[docker_version(), image()]);
    for more in [&[][..], &["--no-preflight"]] {
        let line = ["push-image", "--no-build", "--version", "1.2.3"];
        let output = sandbox.run(&[&line, more].concat());
        refused(&output, 1, &format!("error: {DIRTY}"));
    }
    let calls = sandbox.calls().join("\n");
    assert!(!calls.contains("docker save"), "{calls}");
}

#[test]
fn a_dry_run_says_that_the_work_tree_is_refused() {
    let dry = |sandbox: &Sandbox, more: &[&str]| {
        let line = [
            "push-multiarch",
            "--no-check",
            "--version",
            "1.2.3",
            "--dry-run",
        ];
        let output = sandbox.run(&[&line, more].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        let last = output.stdout.lines().last().unwrap().to_owned();
        (last, output.stderr)
    };
    let push = "cargo xtask push-archive --version 1.2.3";
    let archive = "/src/target/dist/y-1.2.3.oci.tar";
    let sandbox = checkout("HEAD, tag: refs/tags/v1.2.3", " M x\n");
    assert_eq!(
        dry(&sandbox, &[]),
        (
            format!("{push} {archive}"),
            format!("warning: without `--dry-run` this is refused: {DIRTY}")
        )
    );
    assert_eq!(
        dry(&sandbox, &["--allow-dirty"]),
        (format!("{push} --allow-dirty {archive}"), String::new())
    );
    // The tag is required in any case.
    let (_, stderr) = dry(&checkout("HEAD", " M x\n"), &["--allow-dirty"]);
    assert!(stderr.contains("HEAD has no tag `v1.2.3`"), "{stderr}");
}

#[test]
fn another_repository_gets_the_same_image() {
    let sandbox = checkout("HEAD", "").engine("docker", &[docker_version(), image()]);
    let mirror = "mirror.example.com/a/b";
    for line in [
        &["push-multiarch"][..],
        &["push-image", "--no-build"],
        &["push-multiarch", "--engine", "podman"],
    ] {
        let more = ["--version", "dev-me", "--dry-run", "--repository", mirror];
        let output = sandbox.run(&[line, &more].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        let mut lines = output.stdout.lines();
        let push = lines.find(|line| line.starts_with("cargo xtask push-archive "));
        let option = format!(" --repository {mirror} ");
        assert!(push.unwrap().contains(&option), "{}", output.stdout);
        // The labels and the local tags stay.
        assert_eq!(
            output.stdout.matches(mirror).count(),
            1,
            "{}",
            output.stdout
        );
    }
    let output = sandbox.run(&["ci-check", "--dry-run", "--repository", mirror]);
    assert!(
        output
            .stdout
            .contains(&format!("# ask whether {mirror} may be pushed to")),
        "{}",
        output.stdout
    );
    let bad = ["push-image", "--version", "dev-me", "--repository", "a/b"];
    let output = sandbox.run(&bad);
    assert!(
        output
            .stderr
            .starts_with("error: `--repository a/b` must begin with the registry's host"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_platform_has_one_name_and_is_checked_when_it_is_read() {
    let matrix = |platforms: &str| {
        let output = Sandbox::new(PROJECT)
            .env("XTASK_BUILD_PLATFORMS", platforms)
            .run(&["build-multiarch", "--matrix-json"]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let matrix: Value = serde_json::from_str(&output.stdout).unwrap();
        let jobs = matrix["include"].as_array().unwrap().clone();
        jobs.iter()
            .map(|job| {
                format!(
                    "{} {}",
                    job["platform"].as_str().unwrap(),
                    job["name"].as_str().unwrap()
                )
            })
            .collect::<Vec<_>>()
    };
    let usual = ["linux/amd64 linux-amd64", "linux/arm64 linux-arm64"];
    for same in [
        "linux/amd64,linux/arm64/v8",
        "linux/x86_64,linux/aarch64",
        "linux/amd64/v1,linux/arm64",
    ] {
        assert_eq!(matrix(same), usual, "{same}");
    }
    let file = |line: &str| {
        let project = format!("{PROJECT}[build]\n{line}\n");
        Sandbox::new(&project).run(&["config"])
    };
    let output = file("platforms = ['linux/amd64', 'linux/arm/v7']");
    assert_eq!(output.code, 2);
    let why = "`linux/arm/v7` in `build.platforms` must be `linux/amd64` or `linux/arm64`: the image cannot be built for another platform";
    assert!(output.stderr.contains(why), "{}", output.stderr);
    assert!(output.stderr.contains("xtask.toml:8"), "{}", output.stderr);
    let output = file("platforms = ['linux/arm64', 'linux/arm64/v8']");
    refused(
        &output,
        2,
        "error: `build.platforms` (from xtask.toml:8) names the platform linux/arm64 twice\n\
         hint: remove one of the two; `arm64/v8` and `aarch64` are other names of `arm64`, `x86_64` of `amd64`\n",
    );
    let output = file("nodes = ['linux/s390x=tcp://a:1']");
    let why = "names the platform `linux/s390x`, which must be `linux/amd64` or `linux/arm64`";
    assert!(output.stderr.contains(why), "{}", output.stderr);
}

#[test]
fn the_tag_of_a_project_in_a_larger_repository_gets_a_hint() {
    let output = Sandbox::new(PROJECT)
        .env("GITHUB_REF_TYPE", "tag")
        .env("GITHUB_REF_NAME", "agent-runner/v1.2.3")
        .run(&["config"]);
    refused(
        &output,
        2,
        "error: the version `agent-runner/v1.2.3` (from environment GITHUB_REF_NAME) cannot be an image's tag: it contains '/'; a tag can contain only letters, digits, `_`, `.` and `-`\n\
         hint: set the version without the name before the `/`: `VERSION=1.2.3` or `--version 1.2.3` (in GitHub Actions `VERSION=${GITHUB_REF_NAME##*/}`)\n",
    );
}

#[test]
fn a_version_that_is_not_what_its_form_says_is_refused() {
    let sandbox = checkout("HEAD", "");
    for (version, why) in [
        ("1.3.0+b1", "has build metadata (`+b1`)"),
        (
            "v1.2.3-4-g0a1b2c3",
            "is what `git describe` prints for changes after 1.2.3",
        ),
        (
            "v1.2.3-dirty",
            "is what `git describe` prints for changes after 1.2.3",
        ),
        ("2026.01.05", "looks like a release"),
    ] {
        for command in ["push-image", "push-multiarch"] {
            let output = sandbox.run(&[command, "--version", version, "--dry-run"]);
            assert_eq!(output.code, 2, "{output:?}");
            assert!(output.stderr.contains(why), "{}", output.stderr);
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn a_checkout_of_another_user_is_recognised() {
    let stderr = "fatal: detected dubious ownership in repository at '/src'\n\
        To add an exception for this directory, call:\n\n\tgit config --global --add safe.directory /src\n";
    let sandbox = Sandbox::new(PROJECT)
        .engine(
            "git",
            &["status", "log"].map(|args| answer(args, 128, "", stderr)),
        )
        .engine("docker", &[docker_version(), image()]);
    let output = sandbox.run(&["push-image", "--no-build", "--version", "1.2.3"]);
    assert_eq!(output.code, 1);
    let why = "and git does not trust the checkout, which belongs to the user with the id ";
    assert!(output.stderr.contains(why), "{}", output.stderr);
    let fix = "let git trust it: `git config --global --add safe.directory /src`\n";
    assert!(output.stderr.ends_with(fix), "{}", output.stderr);
    let output = sandbox.run(&["doctor"]);
    assert!(output.stdout.contains(fix.trim()), "{}", output.stdout);
}

/// Git sets these variables for a hook, such as one of another repository that builds this image.
#[test]
fn the_variables_of_another_repositorys_hook_do_not_matter() {
    let Ok(git) = which::which("git") else {
        skipped("git");
        return;
    };
    let project =
        format!("{PROJECT}[[channel]]\nname = 'dev'\nmatch = ['*']\ntags = ['{{git.sha}}']\n");
    let sandbox = Sandbox::new(&project);
    std::os::unix::fs::symlink(git, sandbox.path("bin/git")).unwrap();
    std::fs::create_dir(sandbox.path("other")).unwrap();
    let git = |folder: &str, args: &[&str]| {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
        let output = std::process::Command::new("git")
            .args(who)
            .args(args)
            .current_dir(sandbox.path(folder))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for folder in ["src", "other"] {
        git(folder, &["init", "--quiet"]);
        git(
            folder,
            &["commit", "--quiet", "--allow-empty", "-m", folder],
        );
    }
    let sha = git("src", &["rev-parse", "HEAD"]);
    assert_ne!(sha, git("other", &["rev-parse", "HEAD"]));
    let at = |path: &str| sandbox.path(path).to_str().unwrap().to_owned();
    let mut command = sandbox.command(&["config"]);
    command
        .env("GIT_DIR", at("other/.git"))
        .env("GIT_WORK_TREE", at("other"))
        .env("GIT_INDEX_FILE", at("other/.git/index"));
    let output = sandbox.command_output(&command.output().unwrap());
    let tags = format!("tags = [\"{sha}\"]");
    assert!(output.stdout.contains(&tags), "{output:?}");
}
