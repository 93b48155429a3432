//! Every known failure, replayed: a fake engine, curl or container prints what a real one printed
//! and exits as it did, in the command in which people meet it.
//!
//! The telling words are the engines' own: recorded from Docker 20.10 to 28.5, Podman 4.3 and 5.4
//! and curl where those could be brought to it; else as users gave them in the threads that the
//! catalogue links to, or as the engines' sources have them (Docker 29, pull limits, SELinux, a crash
//! of QEMU, too few ids, a registry's 5xx). Names and digests are made up. Exit codes that were not
//! recorded are those that the engine has for failures of the kind.

use std::{io::Write as _, os::unix::fs::symlink, process::Command};

use serde_json::{Value, json};

use crate::world::{
    PROJECT, Ran, World, answer, container, docker_version, image, no_container,
    no_container_at_first, no_image, podman_version,
};

#[allow(dead_code)] // the page's and `explain`'s
#[path = "../../src/catalogue/entries.rs"]
mod entries;

use entries::{ENTRIES, Entry};

/// Where it is met: who prints it, in which command.
#[derive(Clone, Copy, Debug)]
enum Met {
    /// While an engine is looked for.
    Looking(&'static str),
    /// In `build-image`.
    Build(&'static str),
    /// In `build-multiarch`, with Docker's own builder and its classic store.
    OwnBuilder,
    /// The same, where our builder is made.
    MakeBuilder,
    /// In `run-local`, by `run`.
    Run(&'static str),
    /// In `run-local`, by `pull` of a release.
    Pull(&'static str),
    /// In `docker-login`.
    Login(&'static str),
    /// In `stop`.
    Stop(&'static str),
    /// In the log of a container that ended, in `run-local`.
    Log,
}

struct Replay {
    code: &'static str,
    met: Met,
    exit: i32,
    said: &'static str,
}

const fn replay(code: &'static str, met: Met, exit: i32, said: &'static str) -> Replay {
    Replay {
        code,
        met,
        exit,
        said,
    }
}

const REPLAYS: &[Replay] = &[
    replay(
        "daemon-down",
        Met::Looking("docker"),
        1,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    ),
    replay(
        "daemon-down",
        Met::Looking("docker"),
        1,
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory\n",
    ),
    replay(
        "daemon-down",
        Met::Stop("docker"),
        1,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    ),
    replay(
        "podman-down",
        Met::Looking("podman"),
        125,
        "Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`, or try `podman machine init` and `podman machine start` to manage a new Linux VM\n",
    ),
    replay(
        "socket-denied",
        Met::Looking("docker"),
        1,
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied\n",
    ),
    replay(
        "context-missing",
        Met::Looking("docker"),
        1,
        "Failed to initialize: unable to resolve docker endpoint: context \"x\": context not found\n",
    ),
    replay(
        "client-too-old",
        Met::Looking("docker"),
        1,
        "Error response from daemon: client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version\n",
    ),
    replay(
        "daemon-too-old",
        Met::Looking("docker"),
        1,
        "Error response from daemon: client version 1.52 is too new. Maximum supported API version is 1.41\n",
    ),
    replay(
        "daemon-too-old",
        Met::Run("docker"),
        1,
        "\"--health-start-interval\" requires API version 1.44, but the Docker daemon API version is 1.41\n",
    ),
    replay(
        "disk-full",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: failed to copy files: copy file range failed: no space left on device\n",
    ),
    replay(
        "buildx-missing",
        Met::Build("docker"),
        1,
        "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component to build images with BuildKit:\n       https://docs.docker.com/go/buildx/\n",
    ),
    replay(
        "buildx-missing",
        Met::MakeBuilder,
        1,
        "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information\n",
    ),
    replay(
        "buildx-missing",
        Met::MakeBuilder,
        1,
        "docker: 'buildx' is not a docker command.\nSee 'docker --help'\n",
    ),
    replay(
        "multi-platform-driver",
        Met::OwnBuilder,
        1,
        "ERROR: failed to build: Multi-platform build is not supported for the docker driver.\nSwitch to a different driver, or turn on the containerd image store, and try again.\nLearn more at https://docs.docker.com/go/build-multi-platform/\n",
    ),
    replay(
        "multi-platform-driver",
        Met::OwnBuilder,
        1,
        "ERROR: Multiple platforms feature is currently not supported for docker driver. Please switch to a different driver (eg. \"docker buildx create --use\")\n",
    ),
    replay(
        "multi-platform-driver",
        Met::OwnBuilder,
        1,
        "ERROR: failed to build: OCI exporter is not supported for the docker driver.\nSwitch to a different driver, or turn on the containerd image store, and try again.\n",
    ),
    replay(
        "multi-platform-driver",
        Met::OwnBuilder,
        1,
        "ERROR: failed to build: docker exporter does not currently support exporting manifest lists\n",
    ),
    replay(
        "emulator-crash",
        Met::Build("docker"),
        1,
        "#9 1.204 qemu: uncaught target signal 11 (Segmentation fault) - core dumped\nERROR: failed to build: failed to solve: process \"/bin/sh -c true\" did not complete successfully: exit code: 139\n",
    ),
    replay(
        "emulator-missing",
        Met::Build("podman"),
        1,
        "exec /bin/sh: exec format error\nError: building at STEP \"RUN true\": while running runtime: exit status 1\n",
    ),
    replay(
        "short-name",
        Met::Build("podman"),
        125,
        "Error: creating build container: short-name \"python:3.11-slim\" did not resolve to an alias and no unqualified-search registries are defined in \"/etc/containers/registries.conf\"\n",
    ),
    replay(
        "too-many-requests",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/python/manifests/sha256:0123: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.\n",
    ),
    replay(
        "too-many-requests",
        Met::Pull("docker"),
        1,
        "Error response from daemon: toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit\n",
    ),
    replay(
        "proxy-ca",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: failed to do request: Head \"https://registry-1.docker.io/v2/library/python/manifests/3.11-slim\": tls: failed to verify certificate: x509: certificate signed by unknown authority\n",
    ),
    replay(
        "proxy-ca",
        Met::Build("podman"),
        1,
        "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1016)'))': /simple/uv/\n",
    ),
    replay(
        "proxy-ca",
        Met::Build("docker"),
        1,
        "#12 0.481   Caused by: invalid peer certificate: UnknownIssuer\nERROR: failed to build: failed to solve: process \"/bin/sh -c uv sync\" did not complete successfully: exit code: 2\n",
    ),
    replay(
        "base-image-missing",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: nowhere.invalid/python:3.11-slim: failed to resolve source metadata for nowhere.invalid/python:3.11-slim: failed to do request: Head \"https://nowhere.invalid/v2/python/manifests/3.11-slim\": dial tcp: lookup nowhere.invalid: no such host\n",
    ),
    replay(
        "base-image-missing",
        Met::Build("podman"),
        125,
        "Error: creating build container: initializing source docker://nowhere.invalid/python:3.11-slim: pinging container registry nowhere.invalid: Get \"https://nowhere.invalid/v2/\": dial tcp: lookup nowhere.invalid: no such host\n",
    ),
    replay(
        "buildah-cache-denied",
        Met::Build("podman"),
        125,
        "Error: building at STEP \"RUN --mount=type=cache,id=k1,target=/c true\": resolving mountpoints for container \"0123\": open /var/tmp/buildah-cache/k1/buildah-cache-lockfile: permission denied\n",
    ),
    replay(
        "unknown-flag",
        Met::Build("podman"),
        125,
        "Error: unknown flag: --sbom\nSee 'podman build --help'\n",
    ),
    replay(
        "unknown-flag",
        Met::Build("docker"),
        1,
        "ERROR: failed to solve: dockerfile parse error line 8: Unknown flag: start-interval\n",
    ),
    replay(
        "unknown-flag",
        Met::Build("podman"),
        125,
        "Error: building at STEP \"HEALTHCHECK\": flag provided but not defined: -start-interval\n",
    ),
    replay(
        "credential-helper",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: error getting credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    ),
    replay(
        "credential-helper",
        Met::Login("docker"),
        1,
        "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    ),
    replay(
        "plain-http",
        Met::Login("podman"),
        125,
        "Error: authenticating creds for \"ghcr.io\": pinging container registry ghcr.io: Get \"https://ghcr.io/v2/\": http: server gave HTTP response to HTTPS client\n",
    ),
    replay(
        "push-denied",
        Met::OwnBuilder,
        1,
        "ERROR: failed to build: failed to solve: failed to push ghcr.io/x/y/cache: denied: permission_denied: write_package\n",
    ),
    replay(
        "push-denied",
        Met::OwnBuilder,
        1,
        "ERROR: failed to build: failed to solve: failed to push ghcr.io/x/y/cache: denied: installation not allowed to Create organization package\n",
    ),
    replay(
        "not-signed-in",
        Met::Pull("docker"),
        1,
        "Error response from daemon: Head \"https://ghcr.io/v2/x/y/manifests/1.2.3\": no basic auth credentials\n",
    ),
    replay(
        "not-signed-in",
        Met::Pull("docker"),
        1,
        "Error response from daemon: pull access denied for ghcr.io/x/y, repository does not exist or may require 'docker login': denied: requested access to the resource is denied\n",
    ),
    replay(
        "not-signed-in",
        Met::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: reading manifest 1.2.3 in ghcr.io/x/y: unauthorized: authentication required\n",
    ),
    replay(
        "token-refused",
        Met::Pull("docker"),
        1,
        "Error response from daemon: unauthorized: unauthenticated: User cannot be authenticated with the token provided.\n",
    ),
    replay(
        "token-refused",
        Met::Login("docker"),
        1,
        "Error response from daemon: login attempt to https://ghcr.io/v2/ failed with status: 401 Unauthorized\n",
    ),
    replay(
        "token-refused",
        Met::Login("podman"),
        125,
        "Error: logging into \"ghcr.io\": invalid username/password\n",
    ),
    replay(
        "token-refused",
        Met::Login("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied\n",
    ),
    replay(
        "image-not-published",
        Met::Pull("docker"),
        1,
        "Error response from daemon: manifest unknown\n",
    ),
    replay(
        "image-not-published",
        Met::Pull("podman"),
        125,
        "Error: initializing source docker://ghcr.io/x/y:1.2.3: reading manifest 1.2.3 in ghcr.io/x/y: manifest unknown\n",
    ),
    replay(
        "registry-fails",
        Met::Pull("docker"),
        1,
        "Error response from daemon: received unexpected HTTP status: 503 Service Unavailable\n",
    ),
    replay(
        "registry-fails",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/python/manifests/3.11-slim: 500 Internal Server Error\n",
    ),
    replay(
        "registry-fails",
        Met::Build("docker"),
        1,
        "ERROR: failed to build: failed to solve: docker.io/library/python:3.11-slim: failed to resolve source metadata for docker.io/library/python:3.11-slim: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/python/manifests/3.11-slim: 502 Bad Gateway\n",
    ),
    replay(
        "registry-unreachable",
        Met::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    ),
    replay(
        "registry-unreachable",
        Met::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp 127.0.0.1:443: connect: connection refused\n",
    ),
    replay(
        "registry-unreachable",
        Met::Pull("docker"),
        1,
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp 192.0.2.1:443: i/o timeout\n",
    ),
    replay(
        "registry-unreachable",
        Met::Login("podman"),
        125,
        "Error: authenticating creds for \"ghcr.io\": pinging container registry ghcr.io: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    ),
    replay(
        "port-taken",
        Met::Run("docker"),
        125,
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint box (0123): failed to bind host port 127.0.0.1:7233/tcp: bind: address already in use\n",
    ),
    replay(
        "port-taken",
        Met::Run("docker"),
        125,
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint box (0123): Bind for 127.0.0.1:7233 failed: port is already allocated.\n",
    ),
    replay(
        "port-taken",
        Met::Run("podman"),
        126,
        "Error: rootlessport listen tcp 127.0.0.1:7233: bind: address already in use\n",
    ),
    replay(
        "name-taken",
        Met::Run("docker"),
        125,
        "docker: Error response from daemon: Conflict. The container name \"/box\" is already in use by container \"0123456789abcdef\". You have to remove (or rename) that container to be able to reuse that name.\n",
    ),
    replay(
        "name-taken",
        Met::Run("podman"),
        125,
        "Error: creating container storage: the container name \"box\" is already in use by 0123456789abcdef. You have to remove that container to be able to reuse that name: that name is already in use\n",
    ),
    replay(
        "init-missing",
        Met::Run("podman"),
        125,
        "Error: container-init binary not found on the host: stat /usr/libexec/podman/catatonit: no such file or directory\n",
    ),
    replay(
        "selinux-labels",
        Met::Run("podman"),
        126,
        "Error: lsetxattr(label=system_u:object_r:container_file_t:s0) /home/work: operation not permitted\n",
    ),
    replay(
        "volume-missing",
        Met::Run("podman"),
        125,
        "Error: statfs /home/work: no such file or directory\n",
    ),
    replay(
        "volume-missing",
        Met::Run("docker"),
        125,
        "docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: /home/work\n",
    ),
    replay(
        "subuid-missing",
        Met::Pull("podman"),
        125,
        "Error: copying system image from manifest list: writing blob: adding layer with blob \"sha256:0123\": processing tar file(potentially insufficient UIDs or GIDs available in user namespace (requested 0:42 for /etc/gshadow): Check /etc/subuid and /etc/subgid if configured locally and run \"podman system migrate\": lchown /etc/gshadow: invalid argument): exit status 1\n",
    ),
    replay(
        "workspace-denied",
        Met::Log,
        0,
        "PermissionError: [Errno 13] Permission denied: '/workspace/session-1'\n",
    ),
    replay(
        "read-only-root",
        Met::Log,
        0,
        "OSError: [Errno 30] Read-only file system: '/app/cache'\n",
    ),
];

/// What is not in REPLAYS, by its first words or its code, and the test that shows it instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("did not answer within", "a_hung_engine_is_explained"),
    (
        "ssl certificate problem",
        "what_registries_answer_to_us_is_explained",
    ),
    ("curl-missing", "publish::without_curl_that_is_said"),
];

fn version(engine: &str) -> Value {
    match engine {
        "podman" => podman_version(),
        _ => docker_version(),
    }
}

/// Runs the command in which it is met.
fn run(met: Met, exit: i32, said: &str) -> Ran {
    let says = |args: &str| answer(args, exit, "", said);
    let classic = answer("info", 0, "overlay2 [[\"Backing Filesystem\"]]\n", "");
    let no_builder = answer("buildx inspect", 1, "", "ERROR: no builder found\n");
    let release = ["run-local", "--version", "1.2.3", "--quiet"];
    let on = |engine: &str, answers: &[Value]| World::new(PROJECT).engine(engine, answers);
    match met {
        Met::Looking(engine) => on(engine, &[says("container")]).run(&["stop", "--quiet"]),
        Met::Build(engine) => on(engine, &[version(engine), says("build")]).run(&[
            "build-image",
            "--version",
            "dev-me",
            "--quiet",
        ]),
        Met::OwnBuilder => on(
            "docker",
            &[docker_version(), classic, no_builder, says("buildx build")],
        )
        .env("XTASK_BUILD_BUILDER", "default")
        .run(&["build-multiarch", "--version", "dev-me", "--quiet"]),
        Met::MakeBuilder => on("docker", &[docker_version(), classic, says("buildx")]).run(&[
            "build-multiarch",
            "--version",
            "dev-me",
            "--quiet",
        ]),
        Met::Run(engine) => on(
            engine,
            &[version(engine), no_container(engine), image(), says("run")],
        )
        .run(&["run-local", "--version", "dev-me", "--quiet"]),
        Met::Pull(engine) => on(
            engine,
            &[
                version(engine),
                no_container(engine),
                no_image(),
                says("pull"),
            ],
        )
        .run(&release),
        Met::Login(engine) => on(engine, &[version(engine), says("login")])
            .env("GITHUB_ACTOR", "me")
            .env("GITHUB_TOKEN", "t")
            .run(&["docker-login", "--quiet"]),
        Met::Stop(engine) => {
            on(engine, &[container("running", true), says("stop")]).run(&["stop", "--quiet"])
        }
        Met::Log => on(
            "docker",
            &[
                docker_version(),
                no_container_at_first(),
                container("exited", true),
                image(),
                answer("run", 0, "", ""),
                answer("exec", 1, "", "container box is not running\n"),
                says("logs"),
            ],
        )
        .run(&["run-local", "--version", "dev-me", "--quiet"]),
    }
}

/// What the failure is called, and the hints of its own under it.
fn told(replay: &Replay) -> String {
    let failed = |words: &str| format!("error: `{words}` failed with exit code {}\n", replay.exit);
    match replay.met {
        Met::Looking(engine) => {
            let line = |name: &str| {
                if name == engine {
                    format!("  {name} does not answer: {}", replay.said)
                } else {
                    format!("  {name} is not installed (not in PATH)\n")
                }
            };
            let lines = ["docker", "podman"].map(line).concat();
            format!("error: no container engine answers\n{lines}")
        }
        Met::Build(engine) => failed(&format!("{engine} build")),
        Met::OwnBuilder => failed("docker buildx build"),
        Met::MakeBuilder => failed("docker buildx create"),
        Met::Run(engine) => failed(&format!("{engine} run")),
        Met::Pull(engine) => failed(&format!("{engine} pull ghcr.io/x/y:1.2.3")),
        Met::Stop(engine) => failed(&format!("{engine} stop")),
        Met::Login(engine) => login(replay.code, engine),
        Met::Log => "error: the container `box` exited with code 3 before it was healthy\nhint: its whole log: `cargo xtask logs`\n".to_owned(),
    }
}

/// A sign-in knows the registry and the user, and says so.
fn login(code: &str, engine: &str) -> String {
    let (error, hints) = match (code, engine) {
        ("token-refused", _) => (
            "ghcr.io refuses this token of me",
            "hint: a new one that may push: `gh auth refresh --scopes write:packages`, or https://github.com/settings/tokens with `write:packages`\nhint: in GitHub Actions: `permissions: packages: write`, and `GITHUB_TOKEN` in the step's `env`",
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
        other => panic!("{other:?} is not met at a sign-in"),
    };
    format!("error: {error}\n{hints}\n")
}

fn entry(code: &str) -> &'static Entry {
    let mut all = ENTRIES.iter();
    all.find(|entry| entry.code == code)
        .unwrap_or_else(|| panic!("no entry `{code}`"))
}

#[test]
fn each_is_recognised_in_the_command_in_which_it_is_met() {
    for replay in REPLAYS {
        let ran = run(replay.met, replay.exit, replay.said);
        let fix = match replay.met {
            Met::Login(_) => String::new(),
            _ => format!("hint: {}\n", entry(replay.code).fixes[0]),
        };
        let said = match replay.met {
            // It stands in the failure's own lines.
            Met::Looking(_) => "",
            _ => replay.said,
        };
        let wanted = format!(
            "{said}{}{fix}hint: see `cargo xtask explain {}`\n",
            told(replay),
            replay.code
        );
        assert_eq!(ran.stderr, wanted, "{}", replay.code);
        let code = match replay.met {
            Met::Looking(_) | Met::Log => 1,
            _ => replay.exit,
        };
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{wanted}");
    }
}

#[test]
fn a_hung_engine_is_explained() {
    let hung = json!({ "args": "container inspect box", "sleep_ms": 20_000 });
    let ran = World::new(PROJECT)
        .engine("docker", &[hung])
        .env("XTASK_ENGINE_TIMEOUT", "300ms")
        .run(&["stop", "--quiet"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        format!(
            "error: no container engine answers\n  docker did not answer within 300ms\n  podman is not installed (not in PATH)\nhint: {}\nhint: see `cargo xtask explain engine-hung`\n",
            entry("engine-hung").fixes[0]
        )
    );
}

/// What curl prints and exits with, the failure that it makes, and the entry that it leads to.
#[test]
fn what_registries_answer_to_us_is_explained() {
    let later = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n";
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n\r\n";
    let denied = "HTTP/2 403\r\n\r\n{\"errors\":[{\"code\":\"DENIED\",\"message\":\"permission_denied: write_package\"}]}";
    let who = "HTTP/2 401\r\n\r\n";
    let wrong = "HTTP/2 401\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"unauthenticated: User cannot be authenticated with the token provided.\"}]}";
    let cases = [
        ("registry-fails", 0, later, "", "ghcr.io fails: status 503"),
        (
            "too-many-requests",
            0,
            busy,
            "",
            "too many requests to ghcr.io: status 429",
        ),
        (
            "push-denied",
            0,
            denied,
            "",
            "you may not read ghcr.io/x/y: status 403, denied: permission_denied: write_package",
        ),
        (
            "not-signed-in",
            0,
            who,
            "",
            "not signed in to ghcr.io, which is needed to read ghcr.io/x/y",
        ),
        (
            "token-refused",
            0,
            wrong,
            "",
            "ghcr.io rejects the credentials from REGISTRY_TOKEN: status 401, unauthorized: unauthenticated: User cannot be authenticated with the token provided.",
        ),
        (
            "registry-unreachable",
            6,
            "",
            "curl: (6) Could not resolve host: ghcr.io\n",
            "ghcr.io cannot be reached: Could not resolve host: ghcr.io",
        ),
        (
            "proxy-ca",
            60,
            "",
            "curl: (60) SSL certificate problem: unable to get local issuer certificate\n",
            "ghcr.io cannot be reached: SSL certificate problem: unable to get local issuer certificate",
        ),
    ];
    for (code, exit, head, words, failure) in cases {
        let mut world =
            World::new(PROJECT).engine("curl", &[answer("--silent", exit, head, words)]);
        if code == "token-refused" {
            world = world
                .env("REGISTRY_TOKEN", "t")
                .env("XTASK_REGISTRY_USER", "me");
        }
        let ran = world.run(&["verify-image", "--version", "1.2.3"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let lines: Vec<_> = ran
            .stderr
            .lines()
            .skip_while(|line| !line.starts_with("error: "))
            .collect();
        assert_eq!(lines[0], format!("error: {failure}"));
        assert!(lines[1].starts_with("hint: "), "{lines:?}");
        let more = format!("hint: see `cargo xtask explain {code}`");
        assert_eq!(lines.last(), Some(&more.as_str()));
        // What may be gone a little later is tried five times, and nothing else is.
        let tries = world.calls().len();
        let transient = matches!(code, "registry-fails" | "too-many-requests");
        assert_eq!(tries >= 5, transient, "{code}: {tries} calls");
    }
}

/// The real program in a world with nothing else; none where this machine lacks it.
fn with_real(program: &str) -> Option<World> {
    let found = which::which(program).ok();
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: no {program}");
    }
    let world = World::new(PROJECT);
    symlink(found?, world.path("bin").join(program)).unwrap();
    Some(world)
}

/// The ends of the failures that real programs can be brought to without an engine that runs.
#[test]
fn real_programs_are_recognised_too() {
    let leads_to = |world: World, args: &[&str], code: &str| {
        let ran = world.run(args);
        let entry = entry(code);
        let wanted = format!(
            "hint: {}\nhint: see `cargo xtask explain {code}`\n",
            entry.fixes[0]
        );
        assert!(ran.stderr.ends_with(&wanted), "{code}: {ran:?}");
        assert_eq!(ran.code, 1, "{code}");
    };
    // `docker` may be Podman's; that has no contexts.
    let docker = || {
        let world = with_real("docker")?;
        let is_docker = Command::new("docker").args(["context", "ls"]).output();
        is_docker
            .is_ok_and(|ran| ran.status.success())
            .then_some(world)
    };
    let stop = ["stop", "--engine", "docker"];
    if let Some(world) = docker() {
        let world = world.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        leads_to(world, &stop, "daemon-down");
    }
    if let Some(world) = docker() {
        let world = world.env("DOCKER_CONTEXT", "nowhere");
        leads_to(world, &stop, "context-missing");
    }
    if let Some(world) = with_real("podman") {
        let world = world
            .env("CONTAINER_HOST", "unix:///nowhere/podman.sock")
            .env("XTASK_ENGINE_TIMEOUT", "20s");
        leads_to(world, &["stop", "--engine", "podman"], "podman-down");
    }
    if let Some(world) = with_real("curl") {
        let world = world.env("XTASK_IMAGE_REPOSITORY", "nowhere.invalid/x/y");
        let args = ["verify-image", "--version", "1.2.3"];
        leads_to(world, &args, "registry-unreachable");
    }
}

#[test]
fn every_way_of_every_entry_is_replayed() {
    for entry in ENTRIES {
        let replays: Vec<_> = REPLAYS
            .iter()
            .filter(|replay| replay.code == entry.code)
            .map(|replay| replay.said.to_lowercase())
            .collect();
        for way in entry.patterns {
            let replayed = replays
                .iter()
                .any(|said| way.iter().all(|part| said.contains(part)));
            let elsewhere = ELSEWHERE.iter().any(|(known, _)| known == &way[0]);
            assert!(replayed != elsewhere, "{}: {way:?}", entry.code);
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
