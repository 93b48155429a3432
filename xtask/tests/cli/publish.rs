//! Publishing, up to the first build or request to a registry.

use serde_json::{Value, json};

use crate::{
    registry::fake::{Auth, FakeRegistry, Oddities},
    sandbox::{
        PROJECT, Sandbox, answer, docker_version, image, image_of, no_image, podman_version,
    },
};

const CONTAINERD: &str = "overlayfs [[\"driver-type\",\"io.containerd.snapshotter.v1\"]]\n";
const CLASSIC: &str = "overlay2 [[\"Backing Filesystem\",\"extfs\"]]\n";

fn docker(store: &str) -> Sandbox {
    Sandbox::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            answer("info", 0, store, ""),
            answer("buildx inspect", 1, "", "ERROR: no builder found\n"),
            image(),
        ],
    )
}

fn podman() -> Sandbox {
    Sandbox::new(PROJECT).engine("podman", &[podman_version()])
}

/// A sandbox with a registry that answers every request so.
fn registry(status: u16, body: &'static str) -> Sandbox {
    let registry = FakeRegistry::start(Oddities {
        answers: Some((status, body)),
        ..Oddities::default()
    });
    registry.serve_sandbox(Sandbox::new(PROJECT))
}

#[test]
fn a_dev_version_is_published_only_if_it_is_given() {
    let sandbox = docker(CONTAINERD);
    for command in ["push-image", "push-multiarch"] {
        let output = sandbox.run(&[command]);
        assert_eq!(output.code, 2);
        assert_eq!(
            output.stderr,
            "error: `dev-local` (from default) is published only if `--version` names it\n\
             hint: add `--version dev-local`\n"
        );
    }
    let output = sandbox.run(&["push-multiarch", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let last = output.stdout.lines().last().unwrap();
    assert_eq!(
        last,
        "cargo xtask push-archive --version dev-me /src/target/dist/y-dev-me.oci.tar"
    );
}

#[test]
fn a_channel_can_forbid_publishing() {
    let project =
        format!("{PROJECT}\n[[channel]]\nname = 'pr'\nmatch = ['pr-*']\ntags = ['{{version}}']\n");
    let output = Sandbox::new(&project).run(&["push-multiarch", "--version", "pr-7"]);
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.starts_with(
            "error: the channel `pr` publishes nothing, and the version `pr-7` is in it\nhint: "
        ),
        "{}",
        output.stderr
    );
}

#[test]
fn the_matrix_of_ci_jobs_is_printed_as_json() {
    let output = Sandbox::new(PROJECT).run(&["build-multiarch", "--matrix-json"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let matrix: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        matrix,
        serde_json::json!({ "include": [
            { "platform": "linux/amd64", "name": "linux-amd64", "runner": "ubuntu-24.04" },
            { "platform": "linux/arm64", "name": "linux-arm64", "runner": "ubuntu-24.04-arm" },
        ] })
    );
}

#[test]
fn a_shard_must_be_one_of_the_platforms() {
    let refused = |shard: &str, why: &str| {
        let output = docker(CONTAINERD)
            .env("XTASK_BUILD_PLATFORMS", "linux/amd64")
            .run(&["build-multiarch", "--shard", shard]);
        let message = format!("error: `--shard {shard}`{why}\n");
        assert_eq!((output.code, output.stderr), (2, message));
    };
    refused("linux/arm64", ": the image is for linux/amd64");
    refused(
        "linux/s390x",
        " must be `linux/amd64` or `linux/arm64`: the image cannot be built for another platform",
    );
}

#[test]
fn load_needs_a_multi_platform_store() {
    let output = docker(CLASSIC).run(&["build-multiarch", "--load"]);
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.starts_with(
            "error: `--load`: the image store of Docker 28.5.2 holds only one platform per name\n\
             hint: leave out `--load`: the result is an archive\nhint: "
        ),
        "{}",
        output.stderr
    );
    // Without `--load`, a builder of xtask builds all platforms.
    let output = docker(CLASSIC).run(&["build-multiarch", "--dry-run"]);
    assert!(
        output
            .stdout
            .contains("docker buildx create --name y-xtask --driver docker-container\n"),
        "{}",
        output.stdout
    );
}

#[test]
fn podman_rejects_options_that_it_does_not_support() {
    let output = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=kube-pod://x")
        .run(&["build-multiarch"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: `build.nodes`: Podman cannot reach a service at `kube-pod://x`; use an `ssh://`, `tcp://` or `unix://` address\n"
        )
    );
    let output = podman()
        .env("XTASK_BUILD_BUILDER", "big")
        .run(&["build-multiarch"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: Podman has no builders, so it cannot use `build.builder = \"big\"`\n"
        )
    );
    let output = podman()
        .env("XTASK_BUILD_BUILDER", "farm:big")
        .run(&["build-multiarch"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: `build.builder = \"farm:big\"` is not supported: `podman farm build` pushes the image \
             before it can be verified; list the farm's machines in `build.nodes` instead, such as \
             `linux/arm64=ssh://…` (`podman system connection list` shows their addresses)\n"
        )
    );
    let output = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=ssh://me@box")
        .run(&["build-multiarch", "--load"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: `--load`: images that the machines of `build.nodes` build are not in a local store\n\
             hint: leave out `--load`: the result is an archive\n"
        )
    );
}

#[test]
fn load_leaves_a_moving_tag_to_a_newer_version() {
    let here = json!([image_of("1.2.3", &["1.2.3", "latest"])]);
    let engine = [
        docker_version(),
        answer("info", 0, CONTAINERD, ""),
        answer("image inspect", 0, &here.to_string(), ""),
    ];
    let output = Sandbox::new(PROJECT).engine("docker", &engine).run(&[
        "build-multiarch",
        "--load",
        "--dry-run",
        "--version",
        "1.2.2",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!output.stdout.contains(":latest"), "{output:?}");
    let tags = output.stdout.matches(" ghcr.io/x/y:").count();
    assert_eq!(
        (tags, output.stdout.contains(":1.2.2 ")),
        (3, true),
        "{output:?}"
    );
}

/// Podman's services set `BUILDPLATFORM` themselves. A platform without a machine is built on this one.
#[test]
fn podman_builds_on_the_configured_machines() {
    let output = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=ssh://me@box")
        .run(&["build-multiarch", "--dry-run"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let lines: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| line.contains("podman "))
        .map(|line| {
            let words = line.split_whitespace().filter(|word| {
                ["CONTAINER_HOST=", "podman", "build", "save", "image", "rm"]
                    .iter()
                    .any(|one| word == one || (one.ends_with('=') && word.starts_with(one)))
                    || word.starts_with("linux/")
                    || word.starts_with("BUILDPLATFORM=")
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        lines,
        [
            "podman build linux/amd64 BUILDPLATFORM=linux/amd64",
            "podman save",
            "CONTAINER_HOST=ssh://me@box podman build linux/arm64",
            "CONTAINER_HOST=ssh://me@box podman save",
            "podman image rm",
            "CONTAINER_HOST=ssh://me@box podman image rm",
        ]
    );
}

#[test]
fn each_engine_gets_its_own_cache_options() {
    let dry = |sandbox: Sandbox, cache: &str| {
        let output = sandbox
            .env("XTASK_BUILD_CACHE", cache)
            .run(&["build-multiarch", "--dry-run"]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output
    };
    let registry = "--cache-from type=registry,ref=ghcr.io/x/y/cache --cache-to type=registry,ref=ghcr.io/x/y/cache,mode=max";
    let output = dry(docker(CONTAINERD), "registry");
    assert!(output.stdout.contains(registry), "{}", output.stdout);
    let output = dry(docker(CONTAINERD), "local");
    assert!(
        output.stdout.contains("--cache-from type=local,src=/src/target/build-cache --cache-to type=local,dest=/src/target/build-cache,mode=max"),
        "{}",
        output.stdout
    );
    let output = dry(podman(), "registry");
    assert!(
        output
            .stdout
            .contains("--cache-from ghcr.io/x/y/cache --cache-to ghcr.io/x/y/cache"),
        "{}",
        output.stdout
    );
    // GitHub's cache needs a token that a step does not have.
    let output = dry(docker(CONTAINERD), "gha");
    assert!(
        output.stderr.starts_with(
            "warning: build.cache = \"gha\" needs ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL, ACTIONS_CACHE_SERVICE_V2, "
        ),
        "{}",
        output.stderr
    );
    assert!(output.stdout.contains(registry), "{}", output.stdout);
    let output = dry(
        docker(CONTAINERD)
            .env("ACTIONS_RUNTIME_TOKEN", "marked")
            .env("ACTIONS_CACHE_SERVICE_V2", "true")
            .env("ACTIONS_RESULTS_URL", "https://results.example.com"),
        "gha",
    );
    assert_eq!(output.stderr, "");
    assert!(
        output
            .stdout
            .contains("--cache-from type=gha --cache-to type=gha,mode=max"),
        "{}",
        output.stdout
    );
    assert!(!output.stdout.contains("marked"));
    // Each shard has a separate cache.
    let output = docker(CONTAINERD)
        .env("XTASK_BUILD_CACHE", "registry")
        .run(&["build-multiarch", "--dry-run", "--shard", "linux/arm64"]);
    assert!(
        output
            .stdout
            .contains("--cache-to type=registry,ref=ghcr.io/x/y/cache/linux-arm64,mode=max"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_missing_image_cannot_be_pushed() {
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[docker_version(), no_image()]);
    let output = sandbox.run(&["push-image", "--no-build", "--version", "dev-me"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "error: there is no image `ghcr.io/x/y:dev-me` to push\n\
             hint: build it first: leave out `--no-build`\n\
             hint: build and push all platforms at once: `cargo xtask push-multiarch --version dev-me`\n"
        )
    );
}

#[test]
fn a_refused_request_has_hints() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#;
    let sandbox = registry(403, denied);
    let output = sandbox.run(&["verify-image", "--version", "1.2.3"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "error: you may not read ghcr.io/x/y: status 403, denied: permission_denied: write_package\n\
             hint: ask the repository's owner for the right to read it, or sign in as somebody who may: `cargo xtask docker-login`\n"
        )
    );
    let sandbox = registry(401, "");
    let output = sandbox.run(&["verify-image", "--version", "1.2.3"]);
    assert!(
        output.stderr.starts_with(
            "error: not signed in to ghcr.io, which is needed to read ghcr.io/x/y\n  \
             REGISTRY_TOKEN, GITHUB_TOKEN, GH_TOKEN: not set\n  \
             DOCKER_AUTH_CONFIG: not set\n  \
             /home/.docker/config.json: does not exist\n"
        ),
        "{}",
        output.stderr
    );
    let sandbox = registry(404, "");
    let output = sandbox.run(&["verify-image", "--version", "1.2.3"]);
    assert!(
        output
            .stderr
            .starts_with("error: there is no `ghcr.io/x/y:1.2.3`\n"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_token_is_not_an_argument_and_is_not_printed() {
    let registry = FakeRegistry::start(Oddities {
        auth: Auth::Basic,
        ..Oddities::default()
    });
    let sandbox = registry
        .serve_sandbox(Sandbox::new(PROJECT))
        .env("REGISTRY_TOKEN", "marked-token")
        .env("XTASK_REGISTRY_USER", "me");
    let output = sandbox.run(&["verify-image", "--version", "1.2.3", "--verbose"]);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr
            .contains("error: ghcr.io rejects the credentials from REGISTRY_TOKEN"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("marked"), "{}", output.stderr);
    let requests = registry.requests();
    assert_eq!(
        requests[1..],
        [
            "GET /v2/x/y/manifests/1.2.3 401",
            "GET /v2/x/y/manifests/1.2.3 401 auth"
        ]
    );
    assert!(sandbox.calls().is_empty(), "no other program is called");
}

#[test]
fn an_invalid_archive_is_reported() {
    let sandbox = Sandbox::new(PROJECT);
    std::fs::write(sandbox.path("src/deep/er/not.tar"), "no archive").unwrap();
    let output = sandbox.run(&["push-archive", "--version", "1.2.3", "not.tar"]);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr
            .starts_with("error: cannot read the archive `/src/deep/er/not.tar`"),
        "{}",
        output.stderr
    );
    let output = sandbox.run(&["pack-archive", "missing", "--output", "x.tar"]);
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr
            .starts_with("error: `/src/deep/er/missing` is neither an archive nor"),
        "{}",
        output.stderr
    );
    assert!(!sandbox.path("src/deep/er/x.tar").exists());
}

#[test]
fn a_tag_that_releases_move_is_no_version_to_publish() {
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[docker_version()]);
    for version in ["latest", "1", "1.2"] {
        for command in ["push-image", "push-multiarch"] {
            let output = sandbox.run(&[command, "--version", version, "--dry-run"]);
            let refusal = format!(
                "error: the version `{version}` is a tag that the channel `release` moves from release to release\n\
                 hint: publish under another version, such as `--version dev-me`\n"
            );
            assert_eq!((output.code, output.stderr), (2, refusal));
        }
    }
}

#[test]
fn a_failed_verification_is_reported_as_json_too() {
    let sandbox = Sandbox::new(PROJECT);
    let output = sandbox.run(&["verify-image", "--archive", "none.tar", "--json"]);
    assert_eq!(output.code, 1, "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["ok"], false);
    let error = report["error"].as_str().unwrap();
    assert!(error.contains("none.tar"), "{error}");
}

#[test]
fn the_labels_name_the_base_image_and_its_digest() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let name = "docker.io/library/python:3.11-slim";
    for (image, expected) in [
        (name.to_owned(), None),
        (format!("{name}@{digest}"), Some(&digest)),
    ] {
        let sandbox = docker(CONTAINERD)
            .env("XTASK_BUILD_BASE_IMAGE_ARG", "PYTHON_IMAGE")
            .env("XTASK_BUILD_BASE_IMAGE", &image);
        let output = sandbox.run(&["build-multiarch", "--version", "dev-me", "--dry-run"]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let labels = "--label org.opencontainers.image.base.";
        assert!(
            output.stdout.contains(&format!("{labels}name={name} ")),
            "{}",
            output.stdout
        );
        let label = expected.map(|digest| format!("{labels}digest={digest} "));
        match label {
            Some(label) => assert!(output.stdout.contains(&label), "{}", output.stdout),
            None => assert!(!output.stdout.contains("base.digest"), "{}", output.stdout),
        }
        // The builder gets the digest too.
        let argument = format!("--build-arg PYTHON_IMAGE={image} ");
        assert!(output.stdout.contains(&argument), "{}", output.stdout);
    }
}
