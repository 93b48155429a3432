//! The known failures: what is printed, what it is, why, and what to do. Data only, and nothing of
//! the rest of xtask: the tests of the command line read it too.

/// Where a reader meets it; a heading of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Engine,
    Build,
    Registry,
    Run,
}

impl Part {
    pub const ALL: &[Self] = &[Self::Engine, Self::Build, Self::Registry, Self::Run];

    pub fn heading(self) -> &'static str {
        match self {
            Self::Engine => "The engine",
            Self::Build => "Building",
            Self::Registry => "Registries",
            Self::Run => "Running",
        }
    }
}

/// Whether the same command may succeed without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once.
    Now,
    /// Some time later.
    Later,
    /// Only when something was changed.
    AfterFix,
}

impl Retry {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Now => "yes, at once",
            Self::Later => "yes, a few minutes later",
            Self::AfterFix => "no, not before something was changed",
        }
    }
}

/// One known failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called for good: words, for they say more than a number.
    pub code: &'static str,
    pub part: Part,
    /// What it is, in one line.
    pub title: &'static str,
    /// What is printed, in lower case: all texts of one of these lists. Where it is empty, xtask
    /// finds it out itself.
    pub says: &'static [&'static [&'static str]],
    pub cause: &'static str,
    /// What to do. The first is the hint under the failure.
    pub fix: &'static [&'static str],
    pub retry: Retry,
    /// Addresses, and pages of this repository.
    pub links: &'static [&'static str],
}

/// How a build gets to know a proxy's certificate.
const GIVE_CA: &str = "a proxy with a certificate of its own is in the way: give its CA bundle to the build, in `xtask.local.toml`: `[build]` `secrets = [\"id=ca,src=/path/to/ca.pem\"]`";

/// All of them. The first that fits is told, so the more telling stand before the more general.
pub const ENTRIES: &[Entry] = &[
    Entry {
        code: "daemon-down",
        part: Part::Engine,
        title: "Docker's client is there, its daemon is not",
        says: &[
            &["cannot connect to the docker daemon"],
            &["failed to connect to the docker api"],
        ],
        cause: "Nobody listens at the address that the client uses: the daemon was not started or has crashed, Docker Desktop is closed, or DOCKER_HOST or the current context leads elsewhere.",
        fix: &[
            "start Docker: `sudo systemctl start docker` (Linux), `open -a Docker` (macOS); or use Podman: `--engine podman`",
            "see which address is used: `docker context ls`, and `echo $DOCKER_HOST`, which wins over the context",
            "why it does not start: `journalctl --unit docker --since today`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/daemon/troubleshoot/"],
    },
    Entry {
        code: "podman-down",
        part: Part::Engine,
        title: "Podman's client is there, its machine or service is not",
        says: &[&["cannot connect to podman"]],
        cause: "On macOS containers run in Podman's virtual machine, which is not there or is stopped. On Linux CONTAINER_HOST leads to a service that does not run.",
        fix: &[
            "start Podman's machine: `podman machine start` (macOS; the first time `podman machine init` before it), or unset CONTAINER_HOST (Linux)",
            "see which address is used: `podman system connection list`, and `echo $CONTAINER_HOST`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/issues/15731"],
    },
    Entry {
        code: "socket-denied",
        part: Part::Engine,
        title: "this user may not talk to Docker's daemon",
        says: &[&["permission denied while trying to connect to the docker"]],
        cause: "Docker's socket belongs to root and the group `docker`, and this user is not in the group, or is since the last sign-in only.",
        fix: &[
            "you may not talk to Docker's daemon: `sudo usermod -aG docker $USER`, then sign in again; or use rootless Docker or Podman",
            "whoever is in that group is as good as root on this machine; rootless engines need no such right",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/install/linux-postinstall/"],
    },
    Entry {
        code: "engine-hung",
        part: Part::Engine,
        title: "the engine did not answer in time",
        says: &[&["did not answer within"]],
        cause: "The daemon hangs, is busy, or is far away. xtask asks once, waits `engine.timeout`, and goes on to the next engine.",
        fix: &[
            "restart the engine, or give it more time: `engine.timeout` in `xtask.local.toml`, or `XTASK_ENGINE_TIMEOUT=15s`",
        ],
        retry: Retry::Later,
        links: &[],
    },
    Entry {
        code: "context-missing",
        part: Part::Engine,
        title: "Docker's current context is gone",
        says: &[&["context not found"]],
        cause: "The context that is selected, or that DOCKER_CONTEXT names, was removed: often with the program that had made it.",
        fix: &[
            "Docker's current context is gone: `docker context use default`",
            "if DOCKER_CONTEXT is set, unset it; `docker context ls` shows those that there are",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/manage-resources/contexts/"],
    },
    Entry {
        code: "client-too-old",
        part: Part::Engine,
        title: "Docker's client is older than its daemon accepts",
        says: &[&["is too old. minimum supported api version"]],
        cause: "Docker 29 no longer speaks API versions before 1.44, so a client from before Docker 25 cannot talk to it.",
        fix: &[
            "Docker's client is older than its daemon accepts: update the client",
            "`docker version` shows both; where the client is another package (`docker-cli`, or in a CI image), that one is meant",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/wagoodman/dive/issues/664"],
    },
    Entry {
        code: "daemon-too-old",
        part: Part::Engine,
        title: "Docker's daemon is older than what it is asked for",
        says: &[
            &["is too new. maximum supported api version"],
            &[
                "requires api version",
                "but the docker daemon api version is",
            ],
        ],
        cause: "The client knows an option or a language that the daemon does not know yet.",
        fix: &[
            "update Docker's daemon; or let the client speak its language: `DOCKER_API_VERSION=1.41` in front of the command, with the version that the message names",
            "if DOCKER_API_VERSION is set already, unset it: client and daemon agree on one by themselves",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/reference/api/engine/#versioned-api-and-sdk"],
    },
    Entry {
        code: "disk-full",
        part: Part::Build,
        title: "the engine's disk is full",
        says: &[&["no space left on device"]],
        cause: "Images, containers and build caches of all projects share the engine's disk. In a virtual machine (Docker Desktop, Podman machine) that is the machine's disk, not the host's.",
        fix: &[
            "the engine's disk is full: `cargo xtask clean --all` removes our images, `docker system df` or `podman system df` shows the rest",
            "what no container uses, of all projects: `docker system prune` or `podman system prune`; they ask first",
            "in Docker Desktop: Settings, Resources, Disk usage limit",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/engine/manage-resources/pruning/"],
    },
    Entry {
        code: "buildx-missing",
        part: Part::Build,
        title: "Docker's builder, buildx, is missing or broken",
        says: &[
            &["buildx component is missing or broken"],
            &["unknown command: docker buildx"],
            &["'buildx' is not a docker command"],
        ],
        cause: "BuildKit is reached through the plugin `docker-buildx`, which is a package of its own. A plugin file that cannot be run, or a dangling link, gives the same words as none. The old builder cannot build this image, so xtask does not let Docker fall back to it.",
        fix: &[
            "install the buildx plugin: `apt-get install docker-buildx` (Debian), `docker-buildx-plugin` (Docker's own packages), `brew install docker-buildx` (macOS)",
            "if it is installed: `docker info` warns of it, and says why it cannot be used; `chmod +x ~/.docker/cli-plugins/docker-buildx` where it lacks its run bit",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/go/buildx/"],
    },
    Entry {
        code: "multi-platform-driver",
        part: Part::Build,
        title: "this builder cannot build for several platforms",
        says: &[
            &["multi-platform build is not supported for the docker driver"],
            &["multiple platforms feature is currently not supported for docker driver"],
            &["oci exporter is not supported for the docker driver"],
            &["does not currently support exporting manifest lists"],
        ],
        cause: "Docker's own builder with the classic image store holds one platform under a name and writes no archives. xtask makes a builder that can, unless `build.builder` names another.",
        fix: &[
            "leave the builder to xtask: `build.builder = \"auto\"`, or turn on Docker's containerd image store",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://docs.docker.com/go/build-multi-platform/",
            "https://github.com/docker/buildx/issues/1996",
        ],
    },
    Entry {
        code: "emulator-crash",
        part: Part::Build,
        title: "the emulator crashed, not the program",
        says: &[&["qemu: uncaught target signal"]],
        cause: "A program for another processor runs under QEMU, which does not emulate all of it. Our Dockerfile runs nothing on the target's processor; steps that were added to it may.",
        fix: &[
            "run that step on the building machine: `FROM --platform=$BUILDPLATFORM` for its stage; or build on a machine of that processor (`build.nodes`, or `build-multiarch --shard` in CI)",
            "a newer QEMU may know more: `apt-get install --only-upgrade qemu-user-static`",
        ],
        retry: Retry::Later,
        links: &["https://github.com/docker/setup-qemu-action/issues/198"],
    },
    Entry {
        code: "emulator-missing",
        part: Part::Build,
        title: "the program is for another processor",
        says: &[&["exec format error"]],
        cause: "The kernel was given a program for another processor than this machine's, and no emulator is registered for it (binfmt_misc). An image of the wrong platform is the usual reason.",
        fix: &[
            "the program is for another processor than this machine's, and no emulator is registered: build for this machine, or install one (`apt-get install qemu-user-static`)",
            "which platform an image has: `docker image inspect --format '{{.Os}}/{{.Architecture}}' NAME`",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/build/building/multi-platform/#qemu"],
    },
    Entry {
        code: "short-name",
        part: Part::Build,
        title: "Podman wants the registry in an image's name",
        says: &[&["did not resolve to an alias"]],
        cause: "Podman takes no registry for granted: a name without a host means nothing to it, unless registries.conf lists where to search.",
        fix: &[
            "Podman wants the registry's host in an image's name: `build.base-image = \"docker.io/library/…\"`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/ggml-org/llama.cpp/issues/24607"],
    },
    Entry {
        code: "too-many-requests",
        part: Part::Registry,
        title: "the registry's pull limit is reached",
        says: &[&["toomanyrequests"], &["429 too many requests"]],
        cause: "Docker Hub counts pulls by address for whoever is not signed in, and a CI's machines share theirs. Other registries slow down who asks too often.",
        fix: &[
            "the registry's pull limit is reached: sign in to it, or set a mirror: `build.base-image` in `xtask.local.toml`",
            "sign in: `docker login docker.io` or `podman login docker.io`",
        ],
        retry: Retry::Later,
        links: &[
            "docs/configuration.md#a-mirror",
            "https://docs.docker.com/docker-hub/usage/",
        ],
    },
    Entry {
        code: "proxy-ca",
        part: Part::Build,
        title: "a certificate is not trusted",
        says: &[
            &["certificate signed by unknown authority"],
            &["certificate_verify_failed"],
            &["invalid peer certificate"],
            &["ssl certificate problem"],
        ],
        cause: "A proxy opens TLS with a certificate of its own. This machine knows its CA; containers, builds and the engine do not.",
        fix: &[
            GIVE_CA,
            "for xtask's own requests to registries: the CA among the system's (`update-ca-certificates`), or `CURL_CA_BUNDLE=/path/to/ca.pem` in front of the command",
            "for the engine's own pulls: the CA in /etc/docker/certs.d/REGISTRY/ca.crt or /etc/containers/certs.d/REGISTRY/ca.crt",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/configuration.md#a-corporate-ca",
            "https://docs.docker.com/engine/network/ca-certs/",
        ],
    },
    Entry {
        code: "buildah-cache-denied",
        part: Part::Build,
        title: "Buildah's cache folder belongs to another user",
        says: &[&["permission denied", "/var/tmp/buildah-cache"]],
        cause: "Buildah 1.28 (Podman 4.3) keeps the caches of all users in one folder, which belongs to who built first. xtask names another folder where it has to.",
        fix: &[
            "another user of this machine built first and owns Buildah's cache folder: `TMPDIR=$HOME/.cache cargo xtask build-image`",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "unknown-flag",
        part: Part::Build,
        title: "this engine does not know an option",
        says: &[&["unknown flag: "], &["flag provided but not defined"]],
        cause: "The engine is older than the option, or it is the other engine's. xtask gives each engine what its version knows; options in your own Dockerfile or settings it cannot know.",
        fix: &[
            "update the engine, or remove the option: it is in the Dockerfile, or in `[build]` or `[run]` of `xtask.local.toml`",
            "what xtask would run: the same command with `--dry-run`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/issues/20247"],
    },
    Entry {
        code: "credential-helper",
        part: Part::Registry,
        title: "the program that keeps credentials does not work",
        says: &[
            &["executable file not found in $path", "docker-credential"],
            &["error storing credentials"],
            &["error saving credentials"],
            &["error getting credentials"],
        ],
        cause: "`credsStore` or `credHelpers` in ~/.docker/config.json names a program that is not installed, often one of an engine that was removed, or one that needs a desktop.",
        fix: &[
            "the credential helper that `~/.docker/config.json` names is not installed: remove its `credsStore` line, or install the helper",
            "then sign in again: `cargo xtask docker-login`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/abiosoft/colima/issues/52"],
    },
    Entry {
        code: "plain-http",
        part: Part::Registry,
        title: "the registry speaks plain HTTP, the engine wants TLS",
        says: &[&["http response to https client"]],
        cause: "A registry without TLS. Docker takes those on this machine's loopback, Podman none, unless told.",
        fix: &[
            "allow it: `\"insecure-registries\": [\"HOST:PORT\"]` in /etc/docker/daemon.json; for Podman `[[registry]]`, `location = \"HOST:PORT\"`, `insecure = true` in a file in /etc/containers/registries.conf.d/",
        ],
        retry: Retry::AfterFix,
        links: &["https://docs.docker.com/reference/cli/dockerd/#insecure-registries"],
    },
    Entry {
        code: "push-denied",
        part: Part::Registry,
        title: "the registry knows you, and you may not do this",
        says: &[
            &["denied: permission_denied"],
            &["denied: installation not allowed"],
        ],
        cause: "The token has too few scopes, or the repository is somebody else's. On ghcr.io a token needs `write:packages`, and a package must let the repository's jobs write.",
        fix: &[
            "a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`",
            "in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access)",
            "where a new package is refused: the organization must let jobs create packages (its settings, Packages), or somebody pushes it by hand once",
            "before a long build: `cargo xtask ci-check` asks the registry first, and so does every push",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://github.com/docker/build-push-action/issues/606",
            "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry",
        ],
    },
    Entry {
        code: "not-signed-in",
        part: Part::Registry,
        title: "the registry wants to know who you are",
        says: &[
            &["no basic auth credentials"],
            &["unauthorized: authentication required"],
            &["pull access denied"],
        ],
        cause: "There are no credentials for this registry: nobody signed in, root and you have separate ones, or Podman's were lost at a reboot. To whom it does not know, a registry does not tell a private repository from one that is not there.",
        fix: &[
            "sign in: `cargo xtask docker-login`",
            "in CI: set REGISTRY_TOKEN (on GitHub, `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`)",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#signing-in-to-a-registry",
            "https://docs.docker.com/reference/cli/docker/login/",
        ],
    },
    Entry {
        code: "token-refused",
        part: Part::Registry,
        title: "the registry does not take the token",
        says: &[
            &["user cannot be authenticated with the token provided"],
            &["invalid username/password"],
            &["failed with status: 401 unauthorized"],
            &["denied: denied"],
        ],
        cause: "The token is wrong, expired, revoked, or another user's. Registries answer the same for all of these.",
        fix: &[
            "make a new token and sign in again: `cargo xtask docker-login`",
            "for ghcr.io: `gh auth refresh --scopes write:packages`, or a classic token with that scope; in Actions `permissions: packages: write`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry",
        ],
    },
    Entry {
        code: "image-not-published",
        part: Part::Registry,
        title: "the registry has no image of that name",
        says: &[&["manifest unknown"]],
        cause: "The tag or digest was never pushed or was deleted, or the name has a typing error. Clean-up jobs that delete what has no tag destroy images for several platforms: their parts have none.",
        fix: &[
            "what the registry has: `cargo xtask verify-image`; or build it here: `cargo xtask build-image`",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "registry-fails",
        part: Part::Registry,
        title: "the registry itself fails",
        says: &[
            &["received unexpected http status: 5"],
            &["500 internal server error"],
            &["502 bad gateway"],
            &["503 service unavailable"],
        ],
        cause: "The registry answers with an error of its own. xtask tries each request five times, with pauses that grow, before it gives up. A tag moves only when all that it names is there.",
        fix: &[
            "that is the registry's own trouble: run the same command again later, it continues where it stopped",
            "the registries' own pages: `https://www.githubstatus.com`, `https://www.dockerstatus.com`",
        ],
        retry: Retry::Later,
        links: &[],
    },
    Entry {
        code: "base-image-missing",
        part: Part::Build,
        title: "an image cannot be had from its registry",
        says: &[
            &["failed to resolve source metadata"],
            &["initializing source docker://"],
        ],
        cause: "The name is wrong, the registry cannot be reached from where the engine runs, or it wants a sign-in. The engine's words end with which of them.",
        fix: &[
            "the image cannot be had from its registry: check the name and the network, or set a mirror: `build.base-image` in `xtask.local.toml`, or `XTASK_BUILD_BASE_IMAGE`",
            "the daemon has proxy settings of its own; those of your shell are not its",
        ],
        retry: Retry::Later,
        links: &[
            "docs/configuration.md#a-mirror",
            "https://docs.docker.com/engine/daemon/proxy/",
        ],
    },
    Entry {
        code: "registry-unreachable",
        part: Part::Registry,
        title: "nobody answers at the registry's address",
        says: &[
            &["pinging container registry"],
            &["dial tcp", "no such host"],
            &["dial tcp", "connection refused"],
            &["dial tcp", "i/o timeout"],
        ],
        cause: "The name is wrong, there is no network, or a proxy is needed. curl takes HTTPS_PROXY and NO_PROXY from your shell; Docker's daemon has settings of its own.",
        fix: &[
            "check the registry's name, the network and the proxy (HTTPS_PROXY, NO_PROXY), then run the same command again: it continues where it stopped",
        ],
        retry: Retry::Later,
        links: &["https://docs.docker.com/engine/daemon/proxy/"],
    },
    Entry {
        code: "curl-missing",
        part: Part::Registry,
        title: "curl is not installed",
        says: &[],
        cause: "xtask speaks to registries with curl: it brings TLS, proxies and the machine's own CAs.",
        fix: &["install it: `apt-get install curl`, `dnf install curl` or `brew install curl`"],
        retry: Retry::AfterFix,
        links: &["https://curl.se/"],
    },
    Entry {
        code: "port-taken",
        part: Part::Run,
        title: "another program has the port",
        says: &[
            &["bind: address already in use"],
            &["port is already allocated"],
        ],
        cause: "Something on this machine, often another container, listens at a port that this one wants: on a bridge network `up` publishes its servers' ports, usually 7233 and 7234. What the failed run left is removed again.",
        fix: &[
            "another program has the port; `ss -ltnp` (Linux) or `lsof -iTCP -sTCP:LISTEN` (macOS) says which",
            "if it is a Temporal or a stigmer-server: `cargo xtask up` uses what answers there as it is",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "name-taken",
        part: Part::Run,
        title: "another run took the container's name in this moment",
        says: &[&["is already in use", "container name"]],
        cause: "xtask looks first whether the name is free, so somebody took it since: two runs at the same time.",
        fix: &[
            "another run took the container's name in this moment: try again",
            "for two at the same time give one another name: `XTASK_RUN_CONTAINER=other cargo xtask run-local`",
        ],
        retry: Retry::Now,
        links: &[],
    },
    Entry {
        code: "init-missing",
        part: Part::Run,
        title: "Podman lacks its init",
        says: &[&["catatonit"], &["container-init binary not found"]],
        cause: "An init as process 1 reaps what an agent's commands leave behind. Docker brings one; Podman's is a package that distributions only recommend.",
        fix: &[
            "Podman needs its init: install `catatonit`, or set `run.hardening.init = false` in `xtask.local.toml`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#hardening",
            "https://docs.podman.io/en/latest/markdown/podman-run.1.html",
        ],
    },
    Entry {
        code: "selinux-labels",
        part: Part::Run,
        title: "this file system cannot carry SELinux labels",
        says: &[&["lsetxattr", "operation not permitted"]],
        cause: "Where SELinux is enforcing, mounted folders get a label for containers (`:z`). NFS and some FUSE file systems cannot have one.",
        fix: &[
            "this file system cannot carry SELinux labels: set `run.hardening.selinux-relabel = \"no\"` in `xtask.local.toml`",
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
        part: Part::Run,
        title: "a folder to mount is not there",
        says: &[
            &["statfs ", "no such file or directory"],
            &["bind source path does not exist"],
        ],
        cause: "A path of `run.volumes` is not there where the engine runs: in a virtual machine or on another host that is not this machine. What is missing here, xtask creates.",
        fix: &[
            "mount a folder that the engine's machine has: `run.volumes` in `xtask.local.toml`; a virtual machine shares your home, by default",
        ],
        retry: Retry::AfterFix,
        links: &[],
    },
    Entry {
        code: "subuid-missing",
        part: Part::Run,
        title: "this user has too few ids for rootless containers",
        says: &[&["insufficient uids or gids available in user namespace"]],
        cause: "Rootless Podman gives a container's users ids of ranges that /etc/subuid and /etc/subgid list for you. There is none, or it is too small.",
        fix: &[
            "give yourself ranges: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, then `podman system migrate`",
        ],
        retry: Retry::AfterFix,
        links: &["https://github.com/containers/podman/blob/main/troubleshooting.md"],
    },
    Entry {
        code: "workspace-denied",
        part: Part::Run,
        title: "the container's user may not write to the workspace",
        says: &[&["permission denied: '/workspace"]],
        cause: "The folder on the host belongs to another uid than the one that the container has there. `run-local` maps the two; a container started otherwise, `run.user`, or a folder that changed hands since, does not.",
        fix: &[
            "start it with `cargo xtask run-local`, without a `run.user` of your own; whose the folder is: `ls -ldn ~/.stigmer/data/workspace`",
            "make it yours again: `sudo chown -R $(id -u):$(id -g) ~/.stigmer/data/workspace`",
        ],
        retry: Retry::AfterFix,
        links: &[
            "docs/docker.md#who-owns-the-files",
            "https://github.com/containers/podman/blob/main/troubleshooting.md",
        ],
    },
    Entry {
        code: "read-only-root",
        part: Part::Run,
        title: "something writes outside `/workspace` and `/tmp`",
        says: &[&["read-only file system"]],
        cause: "The container's root file system is read-only: what an agent writes belongs in its workspace.",
        fix: &[
            "write to `/workspace` or `/tmp`; or add a folder to `run.hardening.tmpfs`, or set `run.hardening.read-only = false`, in `xtask.local.toml`",
        ],
        retry: Retry::AfterFix,
        links: &["docs/docker.md#hardening"],
    },
];
