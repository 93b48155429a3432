//! The entries of the catalogue. This file imports nothing, because the tests of the command line include it
//! too.

/// A section of docs/troubleshooting.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    Engine,
    Build,
    Registry,
    Run,
}

impl Section {
    pub const ALL: &[Self] = &[Self::Engine, Self::Build, Self::Registry, Self::Run];

    pub fn heading(self) -> &'static str {
        match self {
            Self::Engine => "Engine",
            Self::Build => "Building",
            Self::Registry => "Registries",
            Self::Run => "Running",
        }
    }
}

/// Whether the same command can succeed if it is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// It can succeed immediately.
    Now,
    /// It can succeed after some time.
    Later,
    /// It fails until the cause is fixed.
    AfterFix,
}

impl Retry {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Now => "run the same command again",
            Self::Later => "run the same command again after a few minutes",
            Self::AfterFix => "the command fails until the cause is fixed",
        }
    }
}

/// One known failure.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// A permanent name, such as `disk-full`.
    pub code: &'static str,
    pub section: Section,
    /// What failed, in one line.
    pub title: &'static str,
    /// The texts by which the failure is recognised, in lower case. All texts of one pattern must occur in
    /// the output. Empty if xtask itself detects the failure.
    pub patterns: &'static [&'static [&'static str]],
    pub cause: &'static str,
    /// What to do. The first fix is the hint under the error.
    pub fixes: &'static [&'static str],
    pub retry: Retry,
    /// URLs, and pages of this repository.
    pub links: &'static [&'static str],
}

/// All entries. The first one that matches is used, so specific entries come before general ones.
pub const ENTRIES: &[Entry] = &[
    Entry {
        code: "daemon-down",
        section: Section::Engine,
        title: "the Docker daemon is not running",
        patterns: &[
            &["cannot connect to the docker daemon"],
            &["failed to connect to the docker api"],
        ],
        cause: "The Docker client cannot connect to a daemon. The daemon was not started or has crashed, Docker Desktop is closed, or `DOCKER_HOST` or the current context has another endpoint.",
        fixes: &[
            "start Docker: `sudo systemctl start docker` (Linux), `open -a Docker` (macOS); or use Podman: `--engine podman`",
            "check the endpoint: `docker context ls` and `echo $DOCKER_HOST`, which overrides the context",
            "find out why the daemon does not start: `journalctl --unit docker --since today`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/daemon/troubleshoot/"],
    },
    Entry {
        code: "podman-down",
        section: Section::Engine,
        title: "the Podman machine or service is not running",
        patterns: &[&["cannot connect to podman"]],
        cause: "On macOS, Podman runs containers in a virtual machine, which does not exist or is stopped. On Linux, `CONTAINER_HOST` has the address of a service that is not running.",
        fixes: &[
            "start the Podman machine: `podman machine start` (macOS; run `podman machine init` once before), or unset `CONTAINER_HOST` (Linux)",
            "check the address: `podman system connection list` and `echo $CONTAINER_HOST`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/issues/15731"],
    },
    Entry {
        code: "socket-denied",
        section: Section::Engine,
        title: "your user has no permission to use the Docker daemon",
        patterns: &[&["permission denied while trying to connect to the docker"]],
        cause: "Docker's socket belongs to root and the group `docker`. Your user is not a member of the group, or was added after you logged in.",
        fixes: &[
            "add your user to the group: `sudo usermod -aG docker $USER`, then log in again; or use rootless Docker or Podman",
            "prefer a rootless engine if you can: members of the group `docker` have the rights of root on this machine",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/install/linux-postinstall/"],
    },
    Entry {
        code: "engine-hung",
        section: Section::Engine,
        title: "the engine did not answer in time",
        patterns: &[&["did not answer within"]],
        cause: "The daemon hangs, is busy, or has a slow connection. xtask waits for `engine.timeout`. Then a command that builds or starts something uses the next engine, with a warning. A command that looks for a container, such as `stop`, `ask` or `up`, fails, because the engine may have it.",
        fixes: &[
            "restart the engine, or increase the timeout: `engine.timeout` in `xtask.local.toml`, or `XTASK_ENGINE_TIMEOUT=30s`",
            "use only the other engine: `--engine podman`",
        ],
        retry: Retry::Later,
        links: &[],
    },
    Entry {
        code: "context-missing",
        section: Section::Engine,
        title: "Docker's current context does not exist",
        patterns: &[&["context not found"]],
        cause: "The selected context, or the one in `DOCKER_CONTEXT`, was removed. This often happens when the program that created it is uninstalled.",
        fixes: &[
            "select an existing context: `docker context use default`",
            "unset `DOCKER_CONTEXT` if it is set; `docker context ls` lists all contexts",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/manage-resources/contexts/"],
    },
    Entry {
        code: "client-too-old",
        section: Section::Engine,
        title: "the Docker client is too old for the daemon",
        patterns: &[&["is too old. minimum supported api version"]],
        cause: "Docker 29 does not support API versions before 1.44, so clients before Docker 25 cannot connect to it.",
        fixes: &[
            "update the Docker client, which is too old for the daemon; it may be a separate package (`docker-cli`) or part of a CI image",
            "compare both versions: `docker version`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/wagoodman/dive/issues/664"],
    },
    Entry {
        code: "daemon-too-old",
        section: Section::Engine,
        title: "the Docker daemon is too old for the client or an option",
        patterns: &[
            &["is too new. maximum supported api version"],
            &[
                "requires api version",
                "but the docker daemon api version is",
            ],
        ],
        cause: "The client uses an API version or an option that the daemon does not support.",
        fixes: &[
            "update the Docker daemon, or make the client use an older API version: put `DOCKER_API_VERSION=1.41` before the command, with the version in the message",
            "unset `DOCKER_API_VERSION` if it is set: client and daemon then agree on a version",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/reference/api/engine/#versioned-api-and-sdk"],
    },
    Entry {
        code: "disk-full",
        section: Section::Build,
        title: "the engine's disk is full",
        patterns: &[&["no space left on device"]],
        cause: "Images, containers and build caches of all projects share the engine's disk. Docker Desktop and Podman machine use the virtual machine's disk, not the host's.",
        fixes: &[
            "free space on the engine's disk: `cargo xtask clean --all` removes the images of this project; `docker system df` or `podman system df` shows what uses the disk",
            "remove everything that no container uses, of all projects: `docker system prune` or `podman system prune`; both ask for confirmation",
            "increase the disk in Docker Desktop: Settings, Resources, Disk usage limit",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/manage-resources/pruning/"],
    },
    Entry {
        code: "buildx-missing",
        section: Section::Build,
        title: "Docker's build plugin, buildx, is missing or broken",
        patterns: &[
            &["buildx component is missing or broken"],
            &["unknown command: docker buildx"],
            &["'buildx' is not a docker command"],
        ],
        cause: "Docker needs the plugin `docker-buildx`, a separate package, to use BuildKit. The message is the same if the plugin's file is not executable or is a broken link. xtask does not permit Docker to use its legacy builder, because that builder cannot build this image.",
        fixes: &[
            "install the buildx plugin: `apt-get install docker-buildx` (Debian), `docker-buildx-plugin` (Docker's own packages), `brew install docker-buildx` (macOS)",
            "if the plugin is installed, run `docker info`, which prints why Docker cannot use it; if the file is not executable, run `chmod +x ~/.docker/cli-plugins/docker-buildx`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/go/buildx/"],
    },
    Entry {
        code: "multi-platform-driver",
        section: Section::Build,
        title: "the builder cannot build for several platforms",
        patterns: &[
            &["multi-platform build is not supported for the docker driver"],
            &["multiple platforms feature is currently not supported for docker driver"],
            &["oci exporter is not supported for the docker driver"],
            &["does not currently support exporting manifest lists"],
        ],
        cause: "With the classic image store, Docker's default builder builds one platform at a time and cannot write archives. xtask creates another builder, unless `build.builder` selects one.",
        fixes: &[
            "set `build.builder = \"auto\"`, so that xtask chooses the builder, or enable Docker's containerd image store",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://docs.docker.com/go/build-multi-platform/",
            "https://github.com/docker/buildx/issues/1996",
        ],
    },
    Entry {
        code: "emulator-crash",
        section: Section::Build,
        title: "the QEMU emulator crashed",
        patterns: &[&["qemu: uncaught target signal"]],
        cause: "A build step runs a program for another architecture in QEMU, which does not emulate every instruction. The Dockerfile of this repository has no such step, but a step that you added may be one.",
        fixes: &[
            "run that step on the build platform: use `FROM --platform=$BUILDPLATFORM` for its stage; or build on a machine with the target's architecture (`build.nodes`, or `build-multiarch --shard` in CI)",
            "update QEMU: `apt-get install --only-upgrade qemu-user-static`",
        ],
        retry: Retry::Later,
        links: &["https://github.com/docker/setup-qemu-action/issues/198"],
    },
    Entry {
        code: "emulator-missing",
        section: Section::Build,
        title: "a program has the wrong architecture",
        patterns: &[&["exec format error"]],
        cause: "The kernel cannot run a program for another architecture, and no emulator is registered for it (binfmt_misc). Usually, the image is for another platform.",
        fixes: &[
            "build the image for this machine's architecture, or install an emulator: `apt-get install qemu-user-static`",
            "check the image's platform: `docker image inspect --format '{{.Os}}/{{.Architecture}}' NAME`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/build/building/multi-platform/#qemu"],
    },
    Entry {
        code: "short-name",
        section: Section::Build,
        title: "Podman requires the registry in an image's name",
        patterns: &[&["did not resolve to an alias"]],
        cause: "Podman has no default registry. It resolves a name without a host only if registries.conf lists registries to search.",
        fixes: &[
            "write the image's name with its registry: `build.base-image = \"docker.io/library/…\"`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/ggml-org/llama.cpp/issues/24607"],
    },
    Entry {
        code: "too-many-requests",
        section: Section::Registry,
        title: "the registry's pull limit is reached",
        patterns: &[&["toomanyrequests"], &["429 too many requests"]],
        cause: "Docker Hub limits the pulls from an IP address without credentials, and CI machines share addresses. Other registries limit the rate of requests.",
        fixes: &[
            "sign in to the registry, whose pull limit is reached, or use a mirror: `build.base-image` in `xtask.local.toml`",
            "sign in to Docker Hub: `docker login docker.io` or `podman login docker.io`",
        ],
        retry: Retry::Later,
        links: &[
            "docs/configuration.md#a-mirror",
            "https://docs.docker.com/docker-hub/usage/",
        ],
    },
    Entry {
        code: "proxy-ca",
        section: Section::Build,
        title: "a TLS certificate is not trusted",
        patterns: &[
            &["certificate signed by unknown authority"],
            &["certificate_verify_failed"],
            &["invalid peer certificate"],
            &["ssl certificate problem"],
        ],
        cause: "A proxy intercepts TLS and signs certificates with its own CA. This machine trusts that CA, but containers, builds and the engine do not.",
        fixes: &[
            "if a proxy intercepts TLS, pass its CA bundle to the build, in `xtask.local.toml`: `[build]` `secrets = [\"id=ca,src=/path/to/ca.pem\"]`",
            "for xtask's own requests to registries, add the CA to the system's CAs (`update-ca-certificates`), or put `SSL_CERT_FILE=/path/to/ca.pem` before the command: a file with all CAs to trust, which replaces the system's",
            "for pulls of the engine, copy the CA to `/etc/docker/certs.d/REGISTRY/ca.crt` or `/etc/containers/certs.d/REGISTRY/ca.crt`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/configuration.md#a-corporate-ca",
            "https://docs.docker.com/engine/network/ca-certs/",
        ],
    },
    Entry {
        code: "proxy-unreachable",
        section: Section::Build,
        title: "a proxy or a package index cannot be reached",
        patterns: &[
            &["cannot connect to proxy"],
            &["unable to connect to proxy"],
            &["proxyconnect tcp"],
            &["could not resolve proxy"],
            &["no matching distribution found", "from versions: none"],
        ],
        cause: "A proxy is configured, and nothing answers at its address; or there is no way to the package index without a proxy. Podman passes `HTTPS_PROXY` and `HTTP_PROXY` of your environment to builds, Docker those of `~/.docker/config.json`. A proxy that listens only on this machine's loopback cannot be reached from the network of a build.",
        fixes: &[
            "check the proxy with `cargo xtask doctor`; correct `HTTPS_PROXY` and `HTTP_PROXY` (`~/.docker/config.json` for Docker's builds), or unset them",
            "if the proxy listens only on this machine's loopback, build in the host's network: `build.network = \"host\"` in `xtask.local.toml`",
            "without access to PyPI, name a mirror: `PIP_INDEX_URL=https://…` in `build.args`",
        ],
        retry: Retry::AfterFix,
        links: &["docs/docker.md#without-the-internet"],
    },
    Entry {
        code: "buildah-cache-denied",
        section: Section::Build,
        title: "Buildah's cache folder belongs to another user",
        patterns: &[&["permission denied", "/var/tmp/buildah-cache"]],
        cause: "Buildah 1.28 (Podman 4.3) stores the caches of all users in one folder, which belongs to the user who built first. xtask uses another folder if it detects this.",
        fixes: &[
            "use another cache folder, because this one belongs to another user: `TMPDIR=$HOME/.cache cargo xtask build-image`",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "unknown-flag",
        section: Section::Build,
        title: "the engine does not support an option",
        patterns: &[&["unknown flag: "], &["flag provided but not defined"]],
        cause: "The engine is older than the option, or only the other engine has it. xtask itself passes only options that the engine's version supports, but it cannot check options in the Dockerfile and in your settings.",
        fixes: &[
            "update the engine, or remove the option from the Dockerfile or from `[build]` or `[run]` in `xtask.local.toml`",
            "print the commands that xtask runs: add `--dry-run`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/issues/20247"],
    },
    Entry {
        code: "credential-helper",
        section: Section::Registry,
        title: "the credential helper does not work",
        patterns: &[
            &["executable file not found in $path", "docker-credential"],
            &["error storing credentials"],
            &["error saving credentials"],
            &["error getting credentials"],
        ],
        cause: "`credsStore` or `credHelpers` in `~/.docker/config.json` names a program that is not installed or does not work. Often it belongs to an engine that was removed, or needs a desktop session.",
        fixes: &[
            "remove the `credsStore` line from `~/.docker/config.json`, or install the credential helper that it names",
            "sign in again afterwards: `cargo xtask docker-login`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/abiosoft/colima/issues/52"],
    },
    Entry {
        code: "plain-http",
        section: Section::Registry,
        title: "the registry uses plain HTTP, but the engine requires TLS",
        patterns: &[&["http response to https client"]],
        cause: "The registry has no TLS. Without configuration, Docker accepts such registries only on the loopback, and Podman never.",
        fixes: &[
            "permit plain HTTP: with Docker, add `\"insecure-registries\": [\"HOST:PORT\"]` to `/etc/docker/daemon.json`; with Podman, add `[[registry]]`, `location = \"HOST:PORT\"`, `insecure = true` to a file in `/etc/containers/registries.conf.d/`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/reference/cli/dockerd/#insecure-registries"],
    },
    Entry {
        code: "push-denied",
        section: Section::Registry,
        title: "your account has no permission for this operation",
        patterns: &[
            &["denied: permission_denied"],
            &["denied: installation not allowed"],
        ],
        cause: "The token does not have the required scope, or the repository belongs to another account. On ghcr.io, a token needs the scope `write:packages`, and the package must grant write access to the repository's jobs.",
        fixes: &[
            "use a token that can push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`",
            "in GitHub Actions, set `permissions: packages: write`, and grant this repository write access to the package (package settings, Manage Actions access)",
            "if the registry refuses to create a package, permit jobs to create packages in the organization's settings (Packages), or push the package once from your machine",
            "check the permission before a long build: `cargo xtask ci-check`; every push checks it too",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://github.com/docker/build-push-action/issues/606",
            "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry",
        ],
    },
    Entry {
        code: "not-signed-in",
        section: Section::Registry,
        title: "the registry requires credentials",
        patterns: &[
            &["no basic auth credentials"],
            &["unauthorized: authentication required"],
            &["pull access denied"],
        ],
        cause: "There are no credentials for this registry: you have not signed in, you signed in as another user of this machine (such as root), or a reboot deleted Podman's credentials. Without credentials, a registry answers in the same way for a private repository and for one that does not exist.",
        fixes: &[
            "sign in: `cargo xtask docker-login`",
            "in CI, set `REGISTRY_TOKEN` (on GitHub, `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`)",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#signing-in-to-a-registry",
            "docs/publishing.md#where-the-login-comes-from",
            "https://docs.docker.com/reference/cli/docker/login/",
        ],
    },
    Entry {
        code: "token-refused",
        section: Section::Registry,
        title: "the registry rejects the token",
        patterns: &[
            &["user cannot be authenticated with the token provided"],
            &["invalid username/password"],
            &["failed with status: 401 unauthorized"],
            &["denied: denied"],
        ],
        cause: "The token is invalid, expired or revoked, or belongs to another user. Registries give the same answer in all of these cases.",
        fixes: &[
            "create a new token and sign in again: `cargo xtask docker-login`",
            "for ghcr.io, run `gh auth refresh --scopes write:packages`, or create a classic token with that scope; in GitHub Actions, set `permissions: packages: write`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry",
        ],
    },
    Entry {
        code: "login-unreadable",
        section: Section::Registry,
        title: "a stored login cannot be read",
        patterns: &[
            &["no login for", "could be read"],
            &["error parsing config file"],
            &["reading json file", "unmarshaling json"],
        ],
        cause: "A credential file, such as `~/.docker/config.json`, is not valid JSON, is a folder, or belongs to another user. After `sudo docker login` it belongs to root. If a container mounted it before it existed, it is a folder. Or a credential helper fails, for example because the keychain is locked. The message names the place and the reason.",
        fixes: &[
            "correct what the message names; if a file belongs to another user: `sudo chown \"$(id -u):$(id -g)\" FILE`",
            "if the file is a folder, remove it: `rmdir FILE`",
            "on macOS over SSH, unlock the keychain: `security -v unlock-keychain ~/Library/Keychains/login.keychain-db`",
            "sign in again afterwards: `cargo xtask docker-login`; or set `REGISTRY_TOKEN`, which needs no file",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/publishing.md#where-the-login-comes-from",
            "https://github.com/docker/docker-credential-helpers/issues/82",
        ],
    },
    Entry {
        code: "image-not-published",
        section: Section::Registry,
        title: "the registry has no image with this tag or digest",
        patterns: &[&["manifest unknown"]],
        cause: "The tag or digest was not pushed, was deleted, or is misspelled. Cleanup jobs that delete untagged manifests destroy multi-platform images, because the manifests of the platforms have no tags.",
        fixes: &[
            "check what the registry has: `cargo xtask verify-image`; or build the image locally: `cargo xtask build-image`",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "registry-fails",
        section: Section::Registry,
        title: "the registry has an internal error",
        patterns: &[
            &["received unexpected http status: 5"],
            &["500 internal server error"],
            &["502 bad gateway"],
            &["503 service unavailable"],
        ],
        cause: "The registry answers with a server error. xtask tries each request five times, with increasing pauses. A failed push leaves no incomplete image: a tag is written only after everything it refers to.",
        fixes: &[
            "run the same command again later: the registry has an internal error, and xtask uploads only what is missing",
            "check the registry's status: `https://www.githubstatus.com`, `https://www.dockerstatus.com`",
        ],
        retry: Retry::Later,
        links: &[],
    },
    Entry {
        code: "base-image-missing",
        section: Section::Build,
        title: "the base image cannot be pulled",
        patterns: &[
            &["failed to resolve source metadata"],
            &["initializing source docker://"],
        ],
        cause: "The image's name is wrong, the engine cannot reach the registry, or the registry requires credentials. The end of the engine's message says which.",
        fixes: &[
            "check the base image's name and the network, or use a mirror: `build.base-image` in `xtask.local.toml`, or `XTASK_BUILD_BASE_IMAGE`",
            "configure the proxy in the Docker daemon, which does not use the proxy settings of your shell",
        ],
        retry: Retry::Later,
        links: &[
            "docs/configuration.md#a-mirror",
            "https://docs.docker.com/engine/daemon/proxy/",
        ],
    },
    // Before the entries about the network: cosign 2 warns about servers that it does not need.
    Entry {
        code: "signature-missing",
        section: Section::Registry,
        title: "an image has no signature or attestation that can be verified",
        patterns: &[
            &["no signatures found"],
            &["no matching signatures"],
            &["no matching attestations"],
            &["none of the attestations matched"],
        ],
        cause: "The image is not signed, or it was signed with another key or by another job than the configuration names. Cosign 2 does not find what cosign 3 signed.",
        fixes: &[
            "compare the key or the job with those of the release (`sign.public-key`, `sign.issuer`, `sign.identity`), and use cosign 3",
            "publish the version again: what is missing is signed, and the image stays the same",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.sigstore.dev/cosign/verifying/verify/"],
    },
    Entry {
        code: "registry-unreachable",
        section: Section::Registry,
        title: "the registry cannot be reached",
        patterns: &[
            &["pinging container registry"],
            &["dial tcp", "no such host"],
            &["dial tcp", "connection refused"],
            &["dial tcp", "i/o timeout"],
        ],
        cause: "The registry's name is wrong, there is no network, or a proxy is required. xtask reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` from your environment. The Docker daemon has its own proxy settings.",
        fixes: &[
            "check the registry's name, the network and the proxy (`HTTPS_PROXY`, `NO_PROXY`), then run the same command again; xtask uploads only what is missing",
        ],
        retry: Retry::Later,
        links: &["https://docs.docker.com/engine/daemon/proxy/"],
    },
    Entry {
        code: "upload-too-large",
        section: Section::Registry,
        title: "the registry does not accept an upload of this size",
        patterns: &[&["413 request entity too large"]],
        cause: "Something in front of the registry limits the size of a request: a proxy such as nginx (1 MB by default), or Cloudflare (100 MB). The registry itself has not seen the request, and another attempt fails in the same way.",
        fixes: &[
            "raise the limit of what is in front of the registry (nginx: `client_max_body_size 0;`), or push to the registry directly",
        ],
        retry: Retry::AfterFix,
        links: &["https://nginx.org/en/docs/http/ngx_http_core_module.html#client_max_body_size"],
    },
    Entry {
        code: "docker-media-types",
        section: Section::Registry,
        title: "the registry does not accept Docker's media types",
        patterns: &[],
        cause: "The image's manifests have Docker's media types, because Podman finds a health check only in these. Some registries, such as Zot, accept only the OCI's types by default.",
        fixes: &[
            "let the registry accept them (Zot: `\"http\": {\"compat\": [\"docker2s2\"]}` in its configuration)",
        ],
        retry: Retry::AfterFix,
        links: &["https://zotregistry.dev/latest/articles/schema2/"],
    },
    Entry {
        code: "repository-missing",
        section: Section::Registry,
        title: "the registry has no such repository",
        patterns: &[],
        cause: "Some registries, such as Amazon ECR and Google's Artifact Registry, do not create a repository at the first push.",
        fixes: &[
            "create the repository (ECR: `aws ecr create-repository --repository-name NAME`; Artifact Registry: `gcloud artifacts repositories create NAME --repository-format docker --location PLACE`), or correct `image.repository`",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "immutable-tag",
        section: Section::Registry,
        title: "the registry does not let the tag move to another image",
        patterns: &[],
        cause: "Tags of this repository are immutable. xtask does not write a tag again that already names the image. Tags such as `latest` and `1.2` move from release to release, and cannot be immutable.",
        fixes: &[
            "release under a new version, or exclude the moving tags in the registry's rule for immutable tags",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html",
            "https://goharbor.io/docs/latest/working-with-projects/working-with-images/create-tag-immutability-rules/",
        ],
    },
    Entry {
        code: "port-taken",
        section: Section::Run,
        title: "another program uses the port",
        patterns: &[
            &["bind: address already in use"],
            &["port is already allocated"],
        ],
        cause: "Another program or container on this machine listens on a port of the new container. On a bridge network, `up` publishes the ports of its servers, by default 7233 and 7234. xtask removes the container that failed to start.",
        fixes: &[
            "stop the program that uses the port; `ss -ltnp` (Linux) or `lsof -iTCP -sTCP:LISTEN` (macOS) shows it",
            "if that program is Temporal or a stigmer-server, run `cargo xtask up`, which uses a server that is already running",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "name-taken",
        section: Section::Run,
        title: "another run of xtask has just used the container's name",
        patterns: &[&["is already in use", "container name"]],
        cause: "xtask checks that the name is free before it starts the container. Another process has used the name since that check, usually a second run of xtask.",
        fixes: &[
            "run the same command again: another run has just used the container's name",
            "give one of two parallel runs another name: `XTASK_RUN_CONTAINER=other cargo xtask run-local`",
        ],
        retry: Retry::Now,
        links: &[],
    },
    Entry {
        code: "init-missing",
        section: Section::Run,
        title: "Podman's init is not installed",
        patterns: &[&["catatonit"], &["container-init binary not found"]],
        cause: "The container runs an init as process 1, which reaps zombie processes of an agent's commands. Docker includes an init. Podman uses the package `catatonit`, which distributions do not always install.",
        fixes: &["install `catatonit`, or set `run.hardening.init = false` in `xtask.local.toml`"],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#hardening",
            "https://docs.podman.io/en/latest/markdown/podman-run.1.html",
        ],
    },
    Entry {
        code: "selinux-labels",
        section: Section::Run,
        title: "the file system does not support SELinux labels",
        patterns: &[&["lsetxattr", "operation not permitted"]],
        cause: "If SELinux is enforcing, mounted folders get a label for containers (`:z`). NFS and some FUSE file systems do not support labels.",
        fixes: &[
            "set `run.hardening.selinux-relabel = \"no\"` in `xtask.local.toml`, because the file system does not support SELinux labels",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#selinux",
            "https://github.com/containers/podman/issues/25919",
            "https://github.com/containers/podman/issues/3415",
        ],
    },
    Entry {
        code: "volume-missing",
        section: Section::Run,
        title: "a mounted folder does not exist",
        patterns: &[
            &["statfs ", "no such file or directory"],
            &["bind source path does not exist"],
        ],
        cause: "A path in `run.volumes` does not exist on the machine on which the engine runs, such as a virtual machine or a remote host. xtask creates missing folders only on this machine.",
        fixes: &[
            "mount a folder that exists on the engine's machine: `run.volumes` in `xtask.local.toml`; by default, a virtual machine shares your home folder",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "subuid-missing",
        section: Section::Run,
        title: "your user has too few subordinate ids for rootless containers",
        patterns: &[&["insufficient uids or gids available in user namespace"]],
        cause: "Rootless Podman maps the users of a container to the id ranges of your user in `/etc/subuid` and `/etc/subgid`. There is no range, or it is too small.",
        fixes: &[
            "add id ranges for your user: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, then `podman system migrate`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/blob/main/troubleshooting.md"],
    },
    Entry {
        code: "workspace-denied",
        section: Section::Run,
        title: "the container's user cannot write to the workspace",
        patterns: &[&["permission denied: '/workspace"]],
        cause: "The folder on the host belongs to another user id than the container's. `run-local` chooses a user such that both agree. They differ if the container was started in another way, if `run.user` is set, or if the folder's owner has changed.",
        fixes: &[
            "start the container with `cargo xtask run-local`, without `run.user`; check the folder's owner: `ls -ldn ~/.stigmer/data/workspace`",
            "make yourself the owner of the folder: `sudo chown -R $(id -u):$(id -g) ~/.stigmer/data/workspace`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#who-owns-the-files",
            "https://github.com/containers/podman/blob/main/troubleshooting.md",
        ],
    },
    Entry {
        code: "read-only-root",
        section: Section::Run,
        title: "a program writes outside `/workspace` and `/tmp`",
        patterns: &[&["read-only file system"]],
        cause: "The container's root file system is read-only. Only the workspace and the folders in `run.hardening.tmpfs` are writable.",
        fixes: &[
            "write to `/workspace` or `/tmp`; or, in `xtask.local.toml`, add a folder to `run.hardening.tmpfs` or set `run.hardening.read-only = false`",
        ],
        retry: Retry::AfterFix,
        links: &["docs/docker.md#hardening"],
    },
];
