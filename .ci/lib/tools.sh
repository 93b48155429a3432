# shellcheck shell=bash
# Go programs that Debian 12 does not have, or only in an older version. They are built once and kept
# in the cache.

ACTIONLINT_VERSION=1.7.7
BUILDKIT_VERSION=0.25.1
# Docker 29: the newest release of each part. The daemon's module calls its versions v2.0.0-beta.
DOCKERD_29_VERSION=2.0.0-beta.24
DOCKER_29_VERSION=29.9.3
BUILDX_29_VERSION=0.38.2
RUNC_29_VERSION=1.3.4
COSIGN_VERSION=2.5.3
COSIGN3_VERSION=3.1.3
DISTRIBUTION_VERSION=3.1.2
GOFAKES3_VERSION=1.2.0
CRANE_VERSION=0.22.1
REGCTL_VERSION=0.11.7
ORAS_VERSION=1.3.6
# Newer ones need a newer Go.
FULCIO_VERSION=1.8.8
REKOR_VERSION=2.2.1
TIMESTAMP_VERSION=1.2.9
# Of Debian 13.
COMPOSE_VERSION=2.26
# The first Podman with Quadlet.
QUADLET_VERSION=4.4.0

TOOLS=$CACHE/tools
ACTIONLINT=$TOOLS/actionlint-$ACTIONLINT_VERSION
BUILDCTL=$TOOLS/buildctl-$BUILDKIT_VERSION
BUILDKITD=$TOOLS/buildkitd-$BUILDKIT_VERSION
DOCKERD_29=$TOOLS/dockerd-$DOCKERD_29_VERSION
DOCKER_29=$TOOLS/docker-$DOCKER_29_VERSION
BUILDX_29=$TOOLS/buildx-$BUILDX_29_VERSION
RUNC_29=$TOOLS/runc-$RUNC_29_VERSION
COSIGN=$TOOLS/cosign-$COSIGN_VERSION
COSIGN3=$TOOLS/cosign-$COSIGN3_VERSION
DISTRIBUTION=$TOOLS/distribution-$DISTRIBUTION_VERSION
GOFAKES3=$TOOLS/gofakes3-$GOFAKES3_VERSION
CRANE=$TOOLS/crane-$CRANE_VERSION
REGCTL=$TOOLS/regctl-$REGCTL_VERSION
ORAS=$TOOLS/oras-$ORAS_VERSION
FULCIO=$TOOLS/fulcio-$FULCIO_VERSION
REKOR=$TOOLS/rekor-$REKOR_VERSION
TIMESTAMP_SERVER=$TOOLS/timestamp-server-$TIMESTAMP_VERSION
COMPOSE=$TOOLS/docker-compose-$COMPOSE_VERSION
QUADLET=$TOOLS/quadlet-$QUADLET_VERSION
# The decoder of Kubernetes manifests is a program of this repository.
DECODER_SOURCE=$LIB/../../xtask/tests/e2e/manifests
DECODER=$TOOLS/decode-manifests-$(cat "$DECODER_SOURCE"/* | sha256sum | head -c 12)
ALL_TOOLS=("$ACTIONLINT" "$BUILDCTL" "$BUILDKITD" "$COSIGN" "$DISTRIBUTION" "$GOFAKES3" "$CRANE"
    "$REGCTL" "$ORAS" "$DOCKERD_29" "$DOCKER_29" "$BUILDX_29" "$RUNC_29" "$COSIGN3" "$FULCIO" "$REKOR" "$TIMESTAMP_SERVER"
    "$COMPOSE" "$DECODER" "$QUADLET")

# The builds take minutes on a small machine, so they run in the background, one after the other, in
# the order in which the programs are needed.
begin_tools_build() {
    if tools_are_built || running tools-build; then return; fi
    say "building Go programs in the background"
    mkdir -p "$TOOLS"
    # shellcheck disable=SC2016 # expanded by the inner shell
    background tools-build nice -n 15 env LIB="$LIB" \
        bash -euo pipefail -c '. "$LIB/all.sh"; build_tools'
}

tools_are_built() {
    local tool
    for tool in "${ALL_TOOLS[@]}"; do [[ -x $tool ]] || return 1; done
}

build_tools() {
    build_tool "$ACTIONLINT" "github.com/rhysd/actionlint/cmd/actionlint@v$ACTIONLINT_VERSION"
    # buildx shows the daemon's version, and decides by it which features to use.
    local version="-X github.com/moby/buildkit/version.Version=v$BUILDKIT_VERSION"
    build_tool "$BUILDCTL" "github.com/moby/buildkit/cmd/buildctl@v$BUILDKIT_VERSION" "$version"
    build_tool "$BUILDKITD" "github.com/moby/buildkit/cmd/buildkitd@v$BUILDKIT_VERSION" "$version"
    build_tool "$COSIGN" "github.com/sigstore/cosign/v2/cmd/cosign@v$COSIGN_VERSION"
    build_tool "$DISTRIBUTION" \
        "github.com/distribution/distribution/v3/cmd/registry@v$DISTRIBUTION_VERSION"
    build_tool "$GOFAKES3" "github.com/johannesboyne/gofakes3/cmd/gofakes3@v$GOFAKES3_VERSION"
    build_tool "$CRANE" "github.com/google/go-containerregistry/cmd/crane@v$CRANE_VERSION"
    build_tool "$REGCTL" "github.com/regclient/regclient/cmd/regctl@v$REGCTL_VERSION"
    build_tool "$ORAS" "oras.land/oras/cmd/oras@v$ORAS_VERSION"
    build_tool "$DOCKERD_29" \
        "github.com/moby/moby/v2/cmd/dockerd@v$DOCKERD_29_VERSION" \
        "-X github.com/moby/moby/v2/dockerversion.Version=29.0.0-moby-v$DOCKERD_29_VERSION"
    build_tool "$BUILDX_29" "github.com/docker/buildx/cmd/buildx@v$BUILDX_29_VERSION" \
        "-X github.com/docker/buildx/version.Version=v$BUILDX_29_VERSION"
    # Without seccomp, runc refuses the profile that Docker gives it.
    CGO_ENABLED=1 GOFLAGS="${GOFLAGS:-} -tags=seccomp" build_tool "$RUNC_29" \
        "github.com/opencontainers/runc@v$RUNC_29_VERSION" "-X main.version=$RUNC_29_VERSION"
    build_docker_client
    unpack_compose
    build_decoder
    build_tool "$QUADLET" "github.com/containers/podman/v4/cmd/quadlet@v$QUADLET_VERSION"
    build_tool "$COSIGN3" "github.com/sigstore/cosign/v3/cmd/cosign@v$COSIGN3_VERSION"
    # The services of keyless signing: certificates, the transparency log, and timestamps.
    build_tool "$FULCIO" "github.com/sigstore/fulcio@v$FULCIO_VERSION"
    build_tool "$REKOR" "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix@v$REKOR_VERSION"
    build_tool "$TIMESTAMP_SERVER" \
        "github.com/sigstore/timestamp-authority/cmd/timestamp-server@v$TIMESTAMP_VERSION"
}

# build_tool FILE PACKAGE@VERSION [LINKER_FLAGS]
build_tool() {
    local file=$1 package=$2 flags=${3:-} work
    [[ -x $file ]] && return
    work=$(mktemp -d)
    (
        # A separate module, because `go install` does not accept programs with replace or exclude
        # directives in go.mod, such as BuildKit.
        cd "$work"
        go mod init tools
        go get "$package"
        CGO_ENABLED=${CGO_ENABLED:-0} go build -trimpath -ldflags="-s -w $flags" -o "$file.new" "${package%@*}"
    )
    rm -rf "$work"
    mv "$file.new" "$file"
}

# Docker's client is no Go module: `vendor.mod` takes the place of its go.mod.
build_docker_client() {
    [[ -x $DOCKER_29 ]] && return
    local work
    work=$(mktemp -d)
    (
        cd "$work"
        go mod init tools
        cp -r "$(go mod download -json "github.com/docker/cli@v$DOCKER_29_VERSION+incompatible" |
            jq --raw-output .Dir)" client
        chmod -R u+w client
        cd client
        rm -rf vendor
        mv vendor.mod go.mod
        mv vendor.sum go.sum
        # Only swarms need swarmkit. The Go module proxy lacks the version that the client requires.
        go mod edit -replace=github.com/moby/swarmkit/v2=github.com/moby/swarmkit/v2@v2.1.2
        CGO_ENABLED=0 go build -mod=mod -trimpath -o "$DOCKER_29.new" \
            -ldflags="-s -w -X github.com/docker/cli/cli/version.Version=$DOCKER_29_VERSION" \
            ./cmd/docker
    )
    rm -rf "$work"
    mv "$DOCKER_29.new" "$DOCKER_29"
}

# Debian packages Docker's plug-in `compose`, so it need not be built.
unpack_compose() {
    [[ -x $COMPOSE ]] && return
    local work
    work=$(mktemp -d)
    download_packages trixie "$work" docker-compose
    dpkg -x "$work"/*.deb "$work"
    mv "$work/usr/libexec/docker/cli-plugins/docker-compose" "$COMPOSE"
    rm -rf "$work"
}

build_decoder() {
    [[ -x $DECODER ]] && return
    (cd "$DECODER_SOURCE" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$DECODER.new" .)
    mv "$DECODER.new" "$DECODER"
}

# need_tool FILE: waits until a program is built.
need_tool() {
    [[ -x $1 ]] && return
    begin_tools_build
    wait_for 1800 built_or_given_up "$1" || die "building $(basename "$1") took longer than 30 minutes"
    if [[ ! -x $1 ]]; then
        tail -n 20 "$STATE/log/tools-build.log" >&2
        die "building $(basename "$1") failed"
    fi
}

built_or_given_up() { [[ -x $1 ]] || stopped tools-build; }

# Also ends the compilers, which are in the same process group.
stop_tools_build() {
    local pid
    if running tools-build; then
        read -r pid _ <"$STATE/pids/tools-build"
        kill -TERM -- "-$pid" 2>/dev/null || true
    fi
    stop tools-build
}
