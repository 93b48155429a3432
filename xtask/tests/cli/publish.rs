//! Publishing, as far as it is decided before a registry or a build: who may, what, and how.

use serde_json::Value;

use crate::world::{PROJECT, World, answer, docker_version, image, no_image, podman_version};

const CONTAINERD: &str = "overlayfs [[\"driver-type\",\"io.containerd.snapshotter.v1\"]]\n";
const CLASSIC: &str = "overlay2 [[\"Backing Filesystem\",\"extfs\"]]\n";

fn docker(store: &str) -> World {
    World::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            answer("info", 0, store, ""),
            answer("buildx inspect", 1, "", "ERROR: no builder found\n"),
            image(),
        ],
    )
}

fn podman() -> World {
    World::new(PROJECT).engine("podman", &[podman_version()])
}

/// A registry that always answers so: curl's words.
fn registry(world: World, head: &str, body: &str) -> World {
    let said = format!("{head}\r\n\r\n{body}");
    world.engine("curl", &[answer("--silent", 0, &said, "")])
}

#[test]
fn a_dev_version_is_published_only_by_its_name() {
    let world = docker(CONTAINERD);
    for command in ["push-image", "push-multiarch"] {
        let ran = world.run(&[command]);
        assert_eq!(ran.code, 2);
        assert_eq!(
            ran.stderr,
            "error: `dev-local` (from default) is published only if `--version` names it\n\
             hint: add `--version dev-local`\n"
        );
    }
    let ran = world.run(&["push-multiarch", "--version", "dev-me", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let last = ran.stdout.lines().last().unwrap();
    assert_eq!(
        last,
        "cargo xtask push-archive --version dev-me /src/target/dist/y-dev-me.oci.tar"
    );
}

#[test]
fn a_channel_can_forbid_publishing() {
    let project =
        format!("{PROJECT}\n[[channel]]\nname = 'pr'\nmatch = ['pr-*']\ntags = ['{{version}}']\n");
    let ran = World::new(&project).run(&["push-multiarch", "--version", "pr-7"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.starts_with(
            "error: the channel `pr` publishes nothing, and the version `pr-7` is in it\nhint: "
        ),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_jobs_of_a_ci_are_printed_as_json() {
    let ran = World::new(PROJECT).run(&["build-multiarch", "--matrix-json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let matrix: Value = serde_json::from_str(&ran.stdout).unwrap();
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
    let ran = docker(CONTAINERD).run(&["build-multiarch", "--shard", "linux/s390x"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: `--shard linux/s390x`: the image is for linux/amd64 and linux/arm64\n"
        )
    );
}

#[test]
fn the_classic_store_holds_one_platform() {
    let ran = docker(CLASSIC).run(&["build-multiarch", "--load"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.starts_with(
            "error: `--load`: the image store of Docker 28.5.2 holds one platform under a name\n\
             hint: leave out `--load`: the result is an archive\nhint: "
        ),
        "{}",
        ran.stderr
    );
    // Without it a builder of ours does it.
    let ran = docker(CLASSIC).run(&["build-multiarch", "--dry-run"]);
    assert!(
        ran.stdout
            .contains("docker buildx create --name agent-runner-xtask --driver docker-container\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn podman_says_what_it_has_no_use_for() {
    let ran = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=kube-pod://x")
        .run(&["build-multiarch"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: `build.nodes`: Podman cannot reach a service at `kube-pod://x`; use an `ssh://`, `tcp://` or `unix://` address\n"
        )
    );
    let ran = podman()
        .env("XTASK_BUILD_BUILDER", "big")
        .run(&["build-multiarch"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: Podman has no builders, so it cannot use `build.builder = \"big\"`\n"
        )
    );
    let ran = podman()
        .env("XTASK_BUILD_BUILDER", "farm:big")
        .run(&["build-multiarch"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: `build.builder = \"farm:big\"` is not supported: `podman farm build` pushes the image \
             before it can be verified; list the farm's machines in `build.nodes` instead, such as \
             `linux/arm64=ssh://…` (`podman system connection list` shows their addresses)\n"
        )
    );
    let ran = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=ssh://me@box")
        .run(&["build-multiarch", "--load"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: `--load`: images that the machines of `build.nodes` build are not in a local store\n\
             hint: leave out `--load`: the result is an archive\n"
        )
    );
}

/// A machine knows by itself what it runs on; what has no machine is built here.
#[test]
fn podmans_machines_build_and_hand_over() {
    let ran = podman()
        .env("XTASK_BUILD_NODES", "linux/arm64=ssh://me@box")
        .run(&["build-multiarch", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<_> = ran
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
fn caches_are_named_in_each_engines_words() {
    let dry = |world: World, cache: &str| {
        let ran = world
            .env("XTASK_BUILD_CACHE", cache)
            .run(&["build-multiarch", "--dry-run"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran
    };
    let registry = "--cache-from type=registry,ref=ghcr.io/x/y/cache --cache-to type=registry,ref=ghcr.io/x/y/cache,mode=max";
    let ran = dry(docker(CONTAINERD), "registry");
    assert!(ran.stdout.contains(registry), "{}", ran.stdout);
    let ran = dry(docker(CONTAINERD), "local");
    assert!(
        ran.stdout.contains("--cache-from type=local,src=/src/target/build-cache --cache-to type=local,dest=/src/target/build-cache,mode=max"),
        "{}",
        ran.stdout
    );
    let ran = dry(podman(), "registry");
    assert!(
        ran.stdout
            .contains("--cache-from ghcr.io/x/y/cache --cache-to ghcr.io/x/y/cache"),
        "{}",
        ran.stdout
    );
    // GitHub's wants a token that a step is not given.
    let ran = dry(docker(CONTAINERD), "gha");
    assert!(
        ran.stderr.starts_with(
            "warning: build.cache = \"gha\" needs ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL, ACTIONS_CACHE_SERVICE_V2, "
        ),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains(registry), "{}", ran.stdout);
    let ran = dry(
        docker(CONTAINERD)
            .env("ACTIONS_RUNTIME_TOKEN", "marked")
            .env("ACTIONS_CACHE_SERVICE_V2", "true")
            .env("ACTIONS_RESULTS_URL", "https://results.example.com"),
        "gha",
    );
    assert_eq!(ran.stderr, "");
    assert!(
        ran.stdout
            .contains("--cache-from type=gha --cache-to type=gha,mode=max"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("marked"));
    // What shards keep is each its own.
    let ran = docker(CONTAINERD)
        .env("XTASK_BUILD_CACHE", "registry")
        .run(&["build-multiarch", "--dry-run", "--shard", "linux/arm64"]);
    assert!(
        ran.stdout
            .contains("--cache-to type=registry,ref=ghcr.io/x/y/cache/linux-arm64,mode=max"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_image_must_be_there_to_be_pushed() {
    let world = World::new(PROJECT).engine("docker", &[docker_version(), no_image()]);
    let ran = world.run(&["push-image", "--no-build", "--version", "dev-me"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: there is no image `ghcr.io/x/y:dev-me` to push\n\
             hint: build it first: leave out `--no-build`\n\
             hint: or build and push all platforms at once: `cargo xtask push-multiarch`\n"
        )
    );
}

#[test]
fn without_curl_that_is_said() {
    let ran = World::new(PROJECT).run(&["verify-image", "--version", "1.2.3"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: ghcr.io cannot be reached: curl is not installed\n\
             hint: install curl: `apt-get install curl`, `dnf install curl` or `brew install curl`\n\
             hint: see `cargo xtask explain curl-missing`\n"
        )
    );
}

#[test]
fn a_refusal_is_told_with_what_helps() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#;
    let world = registry(World::new(PROJECT), "HTTP/2 403", denied);
    let ran = world.run(&["verify-image", "--version", "1.2.3"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: you may not read ghcr.io/x/y: status 403, denied: permission_denied: write_package\n\
             hint: a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`\n\
             hint: in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access)\n\
             hint: see `cargo xtask explain push-denied`\n"
        )
    );
    let world = registry(World::new(PROJECT), "HTTP/2 401", "");
    let ran = world.run(&["verify-image", "--version", "1.2.3"]);
    assert!(
        ran.stderr.starts_with(
            "error: not signed in to ghcr.io, which is needed to read ghcr.io/x/y\nhint: "
        ),
        "{}",
        ran.stderr
    );
    let world = registry(World::new(PROJECT), "HTTP/1.1 404 Not Found", "");
    let ran = world.run(&["verify-image", "--version", "1.2.3"]);
    assert!(
        ran.stderr
            .starts_with("error: there is no `ghcr.io/x/y:1.2.3`\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_secret_is_no_argument_and_is_not_shown() {
    let world = registry(
        World::new(PROJECT),
        "HTTP/2 401\r\nWWW-Authenticate: Basic realm=\"x\"",
        "",
    )
    .env("REGISTRY_TOKEN", "marked-token")
    .env("XTASK_REGISTRY_USER", "me");
    let ran = world.run(&["verify-image", "--version", "1.2.3", "--verbose"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("error: ghcr.io rejects the credentials from REGISTRY_TOKEN"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("marked"), "{}", ran.stderr);
    let calls = world.calls();
    assert!(calls.len() >= 2, "asked, refused, asked as `me`: {calls:?}");
    assert!(!calls.join("\n").contains("marked"), "{calls:?}");
}

#[test]
fn what_cannot_be_an_archive_is_told() {
    let world = World::new(PROJECT);
    std::fs::write(world.path("src/deep/er/not.tar"), "no archive").unwrap();
    let ran = world.run(&["push-archive", "--version", "1.2.3", "not.tar"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("error: cannot read the archive `/src/deep/er/not.tar`"),
        "{}",
        ran.stderr
    );
    let ran = world.run(&["pack-archive", "missing", "--output", "x.tar"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("error: `/src/deep/er/missing` is neither an archive nor"),
        "{}",
        ran.stderr
    );
    assert!(!world.path("src/deep/er/x.tar").exists());
}
