# shellcheck shell=bash
# Programs in Go that Debian 12 has not, or not new enough: built once, kept in the cache.

ACTIONLINT_VERSION=1.7.7
BUILDKIT_VERSION=0.25.1
COSIGN_VERSION=2.5.3

TOOLS=$CACHE/tools
ACTIONLINT=$TOOLS/actionlint-$ACTIONLINT_VERSION
BUILDCTL=$TOOLS/buildctl-$BUILDKIT_VERSION
BUILDKITD=$TOOLS/buildkitd-$BUILDKIT_VERSION
COSIGN=$TOOLS/cosign-$COSIGN_VERSION

# Minutes on a small machine, so they are built beside everything else, one after the other: the
# one that is wanted first comes first.
begin_tools_build() {
    if tools_are_built || running tools-build; then return; fi
    say "building actionlint, buildkit and cosign in the background"
    mkdir -p "$TOOLS"
    # shellcheck disable=SC2016 # expanded in there
    background tools-build nice -n 15 env LIB="$LIB" \
        bash -euo pipefail -c '. "$LIB/all.sh"; build_tools'
}

tools_are_built() { [[ -x $ACTIONLINT && -x $BUILDCTL && -x $BUILDKITD && -x $COSIGN ]]; }

build_tools() {
    build_tool "$ACTIONLINT" "github.com/rhysd/actionlint/cmd/actionlint@v$ACTIONLINT_VERSION"
    # buildx shows the version, and knows by it what the daemon can do.
    local version="-X github.com/moby/buildkit/version.Version=v$BUILDKIT_VERSION"
    build_tool "$BUILDCTL" "github.com/moby/buildkit/cmd/buildctl@v$BUILDKIT_VERSION" "$version"
    build_tool "$BUILDKITD" "github.com/moby/buildkit/cmd/buildkitd@v$BUILDKIT_VERSION" "$version"
    build_tool "$COSIGN" "github.com/sigstore/cosign/v2/cmd/cosign@v$COSIGN_VERSION"
}

# build_tool FILE PACKAGE@VERSION [LINKER_FLAGS]
build_tool() {
    local file=$1 package=$2 flags=${3:-} work
    [[ -x $file ]] && return
    work=$(mktemp -d)
    (
        # A module of its own: `go install` refuses a program whose module has replace or
        # exclude lines, as BuildKit's.
        cd "$work"
        go mod init tools
        go get "$package"
        CGO_ENABLED=0 go build -trimpath -ldflags="-s -w $flags" -o "$file.new" "${package%@*}"
    )
    rm -rf "$work"
    mv "$file.new" "$file"
}

# need_tool FILE: waits until it is built.
need_tool() {
    [[ -x $1 ]] && return
    begin_tools_build
    wait_for 1800 built_or_given_up "$1" || die "building $(basename "$1") takes too long"
    if [[ ! -x $1 ]]; then
        tail -n 20 "$STATE/log/tools-build.log" >&2
        die "building $(basename "$1") failed"
    fi
}

built_or_given_up() { [[ -x $1 ]] || stopped tools-build; }

# The compilers that it started are in its session, and nothing else is.
stop_tools_build() {
    local pid
    if running tools-build; then
        read -r pid _ <"$STATE/pids/tools-build"
        kill -TERM -- "-$pid" 2>/dev/null || true
    fi
    stop tools-build
}
