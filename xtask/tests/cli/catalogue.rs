//! Replays every known failure in a command in which it occurs. A fake engine, registry or container prints the
//! output of a real one and exits with its code.
//!
//! Most of the output was recorded from Docker 20.10 to 28.5, and Podman 4.3 and 5.4. Where a failure
//! could not be reproduced (Docker 29, pull limits, SELinux, a crash of QEMU, too few ids, a registry's 5xx),
//! the output comes from the issues that the catalogue links to or from the engines' source code, and the
//! exit code is the engine's usual one. Names and digests are invented.

use std::{io::Write as _, os::unix::fs::symlink, process::Command};

use serde_json::Value;

use crate::{
    registry::fake::{Auth, FakeRegistry, Oddities},
    sandbox::{
        CommandOutput, PROJECT, Sandbox, answer, container, docker_version, hung, image,
        no_container, no_container_at_first, no_image, podman_version,
    },
};

#[allow(dead_code)] // the page's and `explain`'s
#[path = "../../core/src/catalogue/entries.rs"]
mod entries;

use entries::{ENTRIES, Entry};

/// The command in which a failure occurs, and the engine that prints it.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// While xtask looks for an engine.
    Detect(&'static str),
    /// In `build-image`.
    Build(&'static str),
    /// In `build-multiarch`, with Docker's default builder and the classic store.
    DefaultBuilder,
    /// In `build-multiarch`, while xtask creates a builder.
    CreateBuilder,
    /// In `run-local`, while the container starts.
    Run(&'static str),
    /// In `run-local`, while it pulls a release.
    Pull(&'static str),
    /// In `docker-login`.
    Login(&'static str),
    /// In `stop`.
    Stop(&'static str),
    /// In `run-local`, in the log of a container that exited.
    Log,
}

struct Replay {
    code: &'static str,
    scenario: Scenario,
    exit: i32,
    stderr: &'static str,
}

const fn replay(code: &'static str, scenario: Scenario, exit: i32, stderr: &'static str) -> Replay {
    Replay {
        code,
        scenario,
        exit,
        stderr,
    }
}

const REPLAYS: &[Replay] = &[
    replay(
        "daemon-down",
        Scenario::Detect("docker"),
        1,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    ),
    replay(
        "daemon-down",
        Scenario::Detect("docker"),
        1,
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory\n",
    ),
    replay(
        "daemon-down",
        Scenario::Stop("docker"),
        1,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    ),
    replay(
        "podman-down",
        Scenario::Detect("podman"),
        125,
        "Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`, or try `podman machine init` and `podman machine start` to manage a new Linux VM\n",
    ),
    replay(
        "socket-denied",
        Scenario::Detect("docker"),
        1,
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied\n",
    ),
    replay(
        "context-missing",
        Scenario::Detect("docker"),
        1,
        "Failed to initialize: unable to resolve docker endpoint: context \"x\": context not found\n",
    ),
    replay(
        "client-too-old",
        Scenario::Detect("docker"),
        1,
        "Error response from daemon: client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version\n",
    ),
    replay(
        "daemon-too-old",
        Scenario::Detect("docker"),
        1,
        "Error response from daemon: client version 1.52 is too new. Maximum supported API version is 1.41\n",
    ),
    replay(
        "daemon-too-old",
        Scenario::Run("docker"),
        1,
        "\"--health-start-interval\" requires API version 1.44, but the Docker daemon API version is 1.41\n",
    ),
    replay(
        "disk-full",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: failed to copy files: copy file range failed: no space left on device\n",
    ),
    replay(
        "buildx-missing",
        Scenario::Build("docker"),
        1,
        "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component to build images with BuildKit:\n       https://docs.docker.com/go/buildx/\n",
    ),
    replay(
        "buildx-missing",
        Scenario::CreateBuilder,
        1,
        "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information\n",
    ),
    replay(
        "buildx-missing",
        Scenario::CreateBuilder,
        1,
        "docker: 'buildx' is not a docker command.\nSee 'docker --help'\n",
    ),
    replay(
        "multi-platform-driver",
        Scenario::DefaultBuilder,
        1,
        "ERROR: failed to build: Multi-platform build is not supported for the docker driver.\nSwitch to a different driver, or turn on the containerd image store, and try again.\nLearn more at https://docs.docker.com/go/build-multi-platform/\n",
    ),
    replay(
        "multi-platform-driver",
        Scenario::DefaultBuilder,
        1,
        "ERROR: Multiple platforms feature is currently not supported for docker driver. Please switch to a different driver (eg. \"docker buildx create --use\")\n",
    ),
    replay(
        "multi-platform-driver",
        Scenario::DefaultBuilder,
        1,
        "ERROR: failed to build: OCI exporter is not supported for the docker driver.\nSwitch to a different driver, or turn on the containerd image store, and try again.\n",
    ),
    replay(
        "multi-platform-driver",
        Scenario::DefaultBuilder,
        1,
        "ERROR: failed to build: docker exporter does not currently support exporting manifest lists\n",
    ),
    replay(
        "emulator-crash",
        Scenario::Build("docker"),
        1,
        "#9 1.204 qemu: uncaught target signal 11 (Segmentation fault) - core dumped\nERROR: failed to build: failed to solve: process \"/bin/sh -c true\" did not complete successfully: exit code: 139\n",
    ),
    replay(
        "emulator-missing",
        Scenario::Build("podman"),
        1,
        "exec /bin/sh: exec format error\nError: building at STEP \"RUN true\": while running runtime: exit status 1\n",
    ),
    replay(
        "short-name",
        Scenario::Build("podman"),
        125,
        "Error: creating build container: short-name \"python:3.11-slim\" did not resolve to an alias and no unqualified-search registries are defined in \"/etc/containers/registries.conf\"\n",
    ),
    replay(
        "too-many-requests",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/python/manifests/sha256:0123: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.\n",
    ),
    replay(
        "too-many-requests",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit\n",
    ),
    replay(
        "proxy-ca",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: failed to do request: Head \"https://registry-1.docker.io/v2/library/python/manifests/3.11-slim\": tls: failed to verify certificate: x509: certificate signed by unknown authority\n",
    ),
    replay(
        "proxy-ca",
        Scenario::Build("podman"),
        1,
        "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1016)'))': /simple/uv/\n",
    ),
    replay(
        "proxy-ca",
        Scenario::Build("docker"),
        1,
        "#12 0.481   Caused by: invalid peer certificate: UnknownIssuer\nERROR: failed to build: failed to solve: process \"/bin/sh -c uv sync\" did not complete successfully: exit code: 2\n",
    ),
    replay(
        "proxy-unreachable",
        Scenario::Build("podman"),
        1,
        "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by 'ProxyError('Cannot connect to proxy.', NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused'))': /simple/uv/\nERROR: No matching distribution found for uv\n",
    ),
    replay(
        "proxy-unreachable",
        Scenario::Build("podman"),
        1,
        "WARNING: Retrying after connection broken by 'ProxyError('Unable to connect to proxy', NewConnectionError('Failed to resolve'))': /simple/uv/\n",
    ),
    replay(
        "proxy-unreachable",
        Scenario::Build("docker"),
        1,
        "ERROR: Could not find a version that satisfies the requirement uv (from versions: none)\nERROR: No matching distribution found for uv\n",
    ),
    replay(
        "proxy-unreachable",
        Scenario::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: pinging container registry ghcr.io: Get \"https://ghcr.io/v2/\": proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused\n",
    ),
    replay(
        "proxy-unreachable",
        Scenario::Build("docker"),
        5,
        "curl: (5) Could not resolve proxy: proxy.invalid\n",
    ),
    replay(
        "base-image-missing",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: nowhere.invalid/python:3.11-slim: failed to resolve source metadata for nowhere.invalid/python:3.11-slim: failed to do request: Head \"https://nowhere.invalid/v2/python/manifests/3.11-slim\": dial tcp: lookup nowhere.invalid: no such host\n",
    ),
    replay(
        "base-image-missing",
        Scenario::Build("podman"),
        125,
        "Error: creating build container: initializing source docker://nowhere.invalid/python:3.11-slim: pinging container registry nowhere.invalid: Get \"https://nowhere.invalid/v2/\": dial tcp: lookup nowhere.invalid: no such host\n",
    ),
    replay(
        "buildah-cache-denied",
        Scenario::Build("podman"),
        125,
        "Error: building at STEP \"RUN --mount=type=cache,id=k1,target=/c true\": resolving mountpoints for container \"0123\": open /var/tmp/buildah-cache/k1/buildah-cache-lockfile: permission denied\n",
    ),
    replay(
        "unknown-flag",
        Scenario::Build("podman"),
        125,
        "Error: unknown flag: --sbom\nSee 'podman build --help'\n",
    ),
    replay(
        "unknown-flag",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to solve: dockerfile parse error line 8: Unknown flag: start-interval\n",
    ),
    replay(
        "unknown-flag",
        Scenario::Build("podman"),
        125,
        "Error: building at STEP \"HEALTHCHECK\": flag provided but not defined: -start-interval\n",
    ),
    replay(
        "credential-helper",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: error getting credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    ),
    replay(
        "credential-helper",
        Scenario::Login("docker"),
        1,
        "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    ),
    replay(
        "plain-http",
        Scenario::Login("podman"),
        125,
        "Error: authenticating creds for \"ghcr.io\": pinging container registry ghcr.io: Get \"https://ghcr.io/v2/\": http: server gave HTTP response to HTTPS client\n",
    ),
    replay(
        "push-denied",
        Scenario::DefaultBuilder,
        1,
        "ERROR: failed to build: failed to solve: failed to push ghcr.io/x/y/cache: denied: permission_denied: write_package\n",
    ),
    replay(
        "push-denied",
        Scenario::DefaultBuilder,
        1,
        "ERROR: failed to build: failed to solve: failed to push ghcr.io/x/y/cache: denied: installation not allowed to Create organization package\n",
    ),
    replay(
        "not-signed-in",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: Head \"https://ghcr.io/v2/x/y/manifests/1.2.3\": no basic auth credentials\n",
    ),
    replay(
        "not-signed-in",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: pull access denied for ghcr.io/x/y, repository does not exist or may require 'docker login': denied: requested access to the resource is denied\n",
    ),
    replay(
        "not-signed-in",
        Scenario::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: reading manifest 1.2.3 in ghcr.io/x/y: unauthorized: authentication required\n",
    ),
    replay(
        "login-unreadable",
        Scenario::Pull("docker"),
        1,
        "WARNING: Error parsing config file (/home/me/.docker/config.json): invalid character '}' looking for beginning of object key string\nError response from daemon: Head \"https://ghcr.io/v2/x/y/manifests/1.2.3\": unauthorized\n",
    ),
    replay(
        "login-unreadable",
        Scenario::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: getting username and password: 1 error occurred:\n\t* reading JSON file \"/run/user/1000/containers/auth.json\": unmarshaling JSON at \"/run/user/1000/containers/auth.json\": unexpected end of JSON input\n",
    ),
    replay(
        "token-refused",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: unauthorized: unauthenticated: User cannot be authenticated with the token provided.\n",
    ),
    replay(
        "token-refused",
        Scenario::Login("docker"),
        1,
        "Error response from daemon: login attempt to https://ghcr.io/v2/ failed with status: 401 Unauthorized\n",
    ),
    replay(
        "token-refused",
        Scenario::Login("podman"),
        125,
        "Error: logging into \"ghcr.io\": invalid username/password\n",
    ),
    replay(
        "token-refused",
        Scenario::Login("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied\n",
    ),
    replay(
        "image-not-published",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: manifest unknown\n",
    ),
    replay(
        "image-not-published",
        Scenario::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: reading manifest 1.2.3 in ghcr.io/x/y: manifest unknown\n",
    ),
    replay(
        "registry-fails",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: received unexpected HTTP status: 503 Service Unavailable\n",
    ),
    replay(
        "registry-fails",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/python/manifests/3.11-slim: 500 Internal Server Error\n",
    ),
    replay(
        "registry-fails",
        Scenario::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/python/manifests/3.11-slim: 502 Bad Gateway\n",
    ),
    replay(
        "registry-unreachable",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    ),
    replay(
        "registry-unreachable",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp 127.0.0.1:443: connect: connection refused\n",
    ),
    replay(
        "registry-unreachable",
        Scenario::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp 192.0.2.1:443: i/o timeout\n",
    ),
    replay(
        "registry-unreachable",
        Scenario::Login("podman"),
        125,
        "Error: authenticating creds for \"ghcr.io\": pinging container registry ghcr.io: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    ),
    replay(
        "port-taken",
        Scenario::Run("docker"),
        125,
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint box (0123): failed to bind host port 127.0.0.1:7233/tcp: bind: address already in use\n",
    ),
    replay(
        "port-taken",
        Scenario::Run("docker"),
        125,
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint box (0123): Bind for 127.0.0.1:7233 failed: port is already allocated.\n",
    ),
    replay(
        "port-taken",
        Scenario::Run("podman"),
        126,
        "Error: rootlessport listen tcp 127.0.0.1:7233: bind: address already in use\n",
    ),
    replay(
        "name-taken",
        Scenario::Run("docker"),
        125,
        "docker: Error response from daemon: Conflict. The container name \"/box\" is already in use by container \"0123456789abcdef\". You have to remove (or rename) that container to be able to reuse that name.\n",
    ),
    replay(
        "name-taken",
        Scenario::Run("podman"),
        125,
        "Error: creating container storage: the container name \"box\" is already in use by 0123456789abcdef. You have to remove that container to be able to reuse that name: that name is already in use\n",
    ),
    replay(
        "init-missing",
        Scenario::Run("podman"),
        125,
        "Error: container-init binary not found on the host: stat /usr/libexec/podman/catatonit: no such file or directory\n",
    ),
    replay(
        "selinux-labels",
        Scenario::Run("podman"),
        126,
        "Error: lsetxattr(label=system_u:object_r:container_file_t:s0) /home/work: operation not permitted\n",
    ),
    replay(
        "volume-missing",
        Scenario::Run("podman"),
        125,
        "Error: statfs /home/work: no such file or directory\n",
    ),
    replay(
        "volume-missing",
        Scenario::Run("docker"),
        125,
        "docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: /home/work\n",
    ),
    replay(
        "subuid-missing",
        Scenario::Pull("podman"),
        125,
        "Error: copying system image from manifest list: writing blob: adding layer with blob \"sha256:0123\": processing tar file(potentially insufficient UIDs or GIDs available in user namespace (requested 0:42 for /etc/gshadow): Check /etc/subuid and /etc/subgid if configured locally and run \"podman system migrate\": lchown /etc/gshadow: invalid argument): exit status 1\n",
    ),
    replay(
        "workspace-denied",
        Scenario::Log,
        0,
        "PermissionError: [Errno 13] Permission denied: '/workspace/session-1'\n",
    ),
    replay(
        "read-only-root",
        Scenario::Log,
        0,
        "OSError: [Errno 30] Read-only file system: '/app/cache'\n",
    ),
];

/// Patterns (by their first text) and codes that are not in REPLAYS, and the tests that replay them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("did not answer within", "a_hung_engine_is_explained"),
    (
        "ssl certificate problem",
        "failed_requests_to_registries_are_explained",
    ),
    (
        "413 request entity too large",
        "registry::refusals_say_what_to_do",
    ),
    ("docker-media-types", "registry::refusals_say_what_to_do"),
    ("repository-missing", "registry::refusals_say_what_to_do"),
    (
        "immutable-tag",
        "registry::immutable_tags_are_not_written_again",
    ),
    (
        "no signatures found",
        "signing::an_image_is_verified_with_its_signature_and_attestations",
    ),
    (
        "no matching signatures",
        "signing::an_image_is_verified_with_its_signature_and_attestations",
    ),
    (
        "no matching attestations",
        "signing::an_image_is_verified_with_its_signature_and_attestations",
    ),
    (
        "none of the attestations matched",
        "signing::an_image_is_verified_with_its_signature_and_attestations",
    ),
    (
        "no login for",
        "credentials::a_login_that_cannot_be_read_is_told_with_the_reason",
    ),
];

fn version(engine: &str) -> Value {
    match engine {
        "podman" => podman_version(),
        _ => docker_version(),
    }
}

/// Runs the scenario's command.
fn run(scenario: Scenario, exit: i32, stderr: &str) -> CommandOutput {
    let failing = |args: &str| answer(args, exit, "", stderr);
    let classic = answer("info", 0, "overlay2 [[\"Backing Filesystem\"]]\n", "");
    let no_builder = answer("buildx inspect", 1, "", "ERROR: no builder found\n");
    let release = ["run-local", "--version", "1.2.3", "--quiet"];
    let on = |engine: &str, answers: &[Value]| Sandbox::new(PROJECT).engine(engine, answers);
    match scenario {
        Scenario::Detect(engine) => on(engine, &[failing("container")]).run(&["stop", "--quiet"]),
        Scenario::Build(engine) => on(engine, &[version(engine), failing("build")]).run(&[
            "build-image",
            "--version",
            "dev-me",
            "--quiet",
        ]),
        Scenario::DefaultBuilder => on(
            "docker",
            &[
                docker_version(),
                classic,
                no_builder,
                failing("buildx build"),
            ],
        )
        .env("XTASK_BUILD_BUILDER", "default")
        .run(&["build-multiarch", "--version", "dev-me", "--quiet"]),
        Scenario::CreateBuilder => on("docker", &[docker_version(), classic, failing("buildx")])
            .run(&["build-multiarch", "--version", "dev-me", "--quiet"]),
        Scenario::Run(engine) => on(
            engine,
            &[
                version(engine),
                no_container(engine),
                image(),
                failing("run"),
            ],
        )
        .run(&["run-local", "--version", "dev-me", "--quiet"]),
        Scenario::Pull(engine) => on(
            engine,
            &[
                version(engine),
                no_container(engine),
                no_image(),
                failing("pull"),
            ],
        )
        .run(&release),
        Scenario::Login(engine) => on(engine, &[version(engine), failing("login")])
            .env("GITHUB_ACTOR", "me")
            .env("GITHUB_TOKEN", "t")
            .run(&["docker-login", "--quiet"]),
        Scenario::Stop(engine) => {
            on(engine, &[container("running", true), failing("stop")]).run(&["stop", "--quiet"])
        }
        Scenario::Log => on(
            "docker",
            &[
                docker_version(),
                no_container_at_first(),
                container("exited", true),
                image(),
                answer("run", 0, "", ""),
                answer("exec", 1, "", "container box is not running\n"),
                failing("logs"),
            ],
        )
        .run(&["run-local", "--version", "dev-me", "--quiet"]),
    }
}

/// The error that xtask prints, with hints that are not from the catalogue.
fn error(replay: &Replay) -> String {
    let failed =
        |command: &str| format!("error: `{command}` failed with exit code {}\n", replay.exit);
    match replay.scenario {
        Scenario::Detect(engine) => {
            let line = |name: &str| {
                if name == engine {
                    format!("  {name} does not answer: {}", replay.stderr)
                } else {
                    format!("  {name} is not installed (not in PATH)\n")
                }
            };
            let lines = ["docker", "podman"].map(line).concat();
            format!("error: no container engine answers\n{lines}")
        }
        Scenario::Build(engine) => failed(&format!("{engine} build")),
        Scenario::DefaultBuilder => failed("docker buildx build"),
        Scenario::CreateBuilder => failed("docker buildx create"),
        Scenario::Run(engine) => failed(&format!("{engine} run")),
        Scenario::Pull(engine) => failed(&format!("{engine} pull ghcr.io/x/y:1.2.3")),
        Scenario::Stop(engine) => failed(&format!("{engine} stop")),
        Scenario::Login(engine) => login(replay.code, engine),
        Scenario::Log => "error: the container `box` exited with code 3 before it was healthy\nhint: read its whole log: `cargo xtask logs`\n".to_owned(),
    }
}

/// The error of `docker-login`, which names the registry and the user.
fn login(code: &str, engine: &str) -> String {
    let (error, hints) = match (code, engine) {
        ("token-refused", _) => (
            "ghcr.io refuses this token of me",
            "hint: get a token that may push: `gh auth refresh --scopes write:packages`, or https://github.com/settings/tokens with `write:packages`\nhint: set `permissions: packages: write` in GitHub Actions, and `GITHUB_TOKEN` in the step's `env`",
        ),
        ("registry-unreachable", _) => (
            "ghcr.io cannot be reached",
            "hint: check the name and the network; behind a proxy, the engine's daemon needs its address too",
        ),
        ("plain-http", "podman") => (
            "ghcr.io speaks plain HTTP, and Podman requires TLS",
            "hint: permit plain HTTP: add `[[registry]]`, `location = \"ghcr.io\"`, `insecure = true` to a file in /etc/containers/registries.conf.d/",
        ),
        ("credential-helper", _) => (
            "the credential helper does not work, so the login was not kept",
            "hint: remove `credsStore` or `credHelpers` from the engine's config.json, or install the helper it names",
        ),
        other => panic!("{other:?} has no test of docker-login"),
    };
    format!("error: {error}\n{hints}\n")
}

fn entry(code: &str) -> &'static Entry {
    let mut all = ENTRIES.iter();
    all.find(|entry| entry.code == code)
        .unwrap_or_else(|| panic!("no entry `{code}`"))
}

#[test]
fn each_failure_is_recognised_by_its_command() {
    for replay in REPLAYS {
        let output = run(replay.scenario, replay.exit, replay.stderr);
        let fix = match replay.scenario {
            Scenario::Login(_) => String::new(),
            _ => format!("hint: {}\n", entry(replay.code).fixes[0]),
        };
        let stderr = match replay.scenario {
            // The error itself contains the output.
            Scenario::Detect(_) => "",
            _ => replay.stderr,
        };
        let expected = format!(
            "{stderr}{}{fix}hint: see `cargo xtask explain {}`\n",
            error(replay),
            replay.code
        );
        assert_eq!(output.stderr, expected, "{}", replay.code);
        let code = match replay.scenario {
            Scenario::Detect(_) | Scenario::Log => 1,
            _ => replay.exit,
        };
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (code, ""),
            "{expected}"
        );
    }
}

#[test]
fn a_hung_engine_is_explained() {
    let hung = hung("container inspect box");
    let output = Sandbox::new(PROJECT)
        .engine("docker", &[hung])
        .env("XTASK_ENGINE_TIMEOUT", "300ms")
        .run(&["stop", "--quiet"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        format!(
            "error: no container engine answers\n  docker did not answer within 300ms\n  podman is not installed (not in PATH)\nhint: {}\nhint: see `cargo xtask explain engine-hung`\n",
            entry("engine-hung").fixes[0]
        )
    );
}

/// Each case has an oddity of the registry, the resulting error, and the code of the entry.
#[test]
fn failed_requests_to_registries_are_explained() {
    let answers = |status, body| Oddities {
        answers: Some((status, body)),
        ..Oddities::default()
    };
    let basic = Oddities {
        auth: Auth::Basic,
        ..Oddities::default()
    };
    let cases = [
        (
            "registry-fails",
            answers(503, ""),
            "ghcr.io fails: status 503",
        ),
        (
            "too-many-requests",
            answers(429, ""),
            "too many requests to ghcr.io: status 429",
        ),
        (
            "not-signed-in",
            answers(401, ""),
            "not signed in to ghcr.io, which is needed to read ghcr.io/x/y",
        ),
        (
            "token-refused",
            basic,
            "ghcr.io rejects the credentials from REGISTRY_TOKEN: status 401, unauthorized: authentication required",
        ),
    ];
    for (code, oddities, failure) in cases {
        let registry = FakeRegistry::start(oddities);
        let mut sandbox = registry.serve_sandbox(Sandbox::new(PROJECT));
        if code == "token-refused" {
            sandbox = sandbox
                .env("REGISTRY_TOKEN", "t")
                .env("XTASK_REGISTRY_USER", "me");
        }
        assert_request_fails(&sandbox, code, failure);
        // Only transient failures are retried, four times.
        let tries = registry.count("GET ");
        let transient = matches!(code, "registry-fails" | "too-many-requests");
        assert_eq!(tries >= 5, transient, "{code}: {tries} requests");
    }
    let sandbox = FakeRegistry::start(Oddities::default()).serve_sandbox(Sandbox::new(PROJECT));
    let stranger = FakeRegistry::start(Oddities::default());
    std::fs::write(sandbox.path("ca.pem"), stranger.authority()).unwrap();
    assert_request_fails(
        &sandbox,
        "proxy-ca",
        "ghcr.io cannot be reached: its certificate is refused: ",
    );
    let sandbox = Sandbox::new(PROJECT)
        .env("HTTPS_PROXY", "")
        .env("XTASK_IMAGE_REPOSITORY", "nowhere.invalid/x/y");
    assert_request_fails(
        &sandbox,
        "registry-unreachable",
        "nowhere.invalid cannot be reached: the name `nowhere.invalid` cannot be resolved",
    );
}

fn assert_request_fails(sandbox: &Sandbox, code: &str, failure: &str) {
    let output = sandbox.run(&["verify-image", "--version", "1.2.3"]);
    assert_eq!(output.code, 1, "{output:?}");
    let lines: Vec<_> = output
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("error: "))
        .collect();
    assert!(
        lines[0].starts_with(&format!("error: {failure}")),
        "{lines:?}"
    );
    let rest = lines[1..].iter().find(|line| !line.starts_with("  "));
    assert!(rest.unwrap().starts_with("hint: "), "{lines:?}");
    let more = format!("hint: see `cargo xtask explain {code}`");
    assert_eq!(lines.last(), Some(&more.as_str()));
}

/// A sandbox with a real program; none if this machine does not have it.
fn with_real(program: &str) -> Option<Sandbox> {
    let found = which::which(program).ok();
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: no {program}");
    }
    let sandbox = Sandbox::new(PROJECT);
    symlink(found?, sandbox.path("bin").join(program)).unwrap();
    Some(sandbox)
}

/// Checks the hints for failures of real programs that do not need a running engine.
#[test]
fn failures_of_real_programs_are_recognised() {
    let leads_to = |sandbox: Sandbox, args: &[&str], code: &str| {
        let output = sandbox.run(args);
        let entry = entry(code);
        let expected = format!(
            "hint: {}\nhint: see `cargo xtask explain {code}`\n",
            entry.fixes[0]
        );
        assert!(output.stderr.ends_with(&expected), "{code}: {output:?}");
        assert_eq!(output.code, 1, "{code}");
    };
    // `docker` may be Podman, which has no contexts.
    let docker = || {
        let sandbox = with_real("docker")?;
        let is_docker = Command::new("docker").args(["context", "ls"]).output();
        is_docker
            .is_ok_and(|output| output.status.success())
            .then_some(sandbox)
    };
    let stop = ["stop", "--engine", "docker"];
    if let Some(sandbox) = docker() {
        let sandbox = sandbox.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        leads_to(sandbox, &stop, "daemon-down");
    }
    if let Some(sandbox) = docker() {
        let sandbox = sandbox.env("DOCKER_CONTEXT", "nowhere");
        leads_to(sandbox, &stop, "context-missing");
    }
    if let Some(sandbox) = with_real("podman") {
        let sandbox = sandbox
            .env("CONTAINER_HOST", "unix:///nowhere/podman.sock")
            .env("XTASK_ENGINE_TIMEOUT", "20s");
        leads_to(sandbox, &["stop", "--engine", "podman"], "podman-down");
    }
}

#[test]
fn every_pattern_is_replayed() {
    for entry in ENTRIES {
        let replays: Vec<_> = REPLAYS
            .iter()
            .filter(|replay| replay.code == entry.code)
            .map(|replay| replay.stderr.to_lowercase())
            .collect();
        for pattern in entry.patterns {
            let replayed = replays
                .iter()
                .any(|stderr| pattern.iter().all(|text| stderr.contains(text)));
            let elsewhere = ELSEWHERE.iter().any(|(known, _)| known == &pattern[0]);
            assert!(replayed != elsewhere, "{}: {pattern:?}", entry.code);
        }
        if entry.patterns.is_empty() {
            assert!(
                ELSEWHERE.iter().any(|(known, _)| known == &entry.code),
                "{}",
                entry.code
            );
        }
    }
}
