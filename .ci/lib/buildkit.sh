# shellcheck shell=bash
# Two BuildKit daemons, for testing builds on several machines, and BuildKit's image, for the builder
# that xtask creates if Docker's own builder cannot do a build.

BUILDKIT_PLATFORMS=(amd64 arm64)
# It replaces docker.io/moby/buildkit, which xtask uses by default and this machine may not reach.
BUILDKIT_IMAGE=$REGISTRY/moby/buildkit:v$BUILDKIT_VERSION

buildkit_address() { echo "unix://$STATE/buildkit-$1.sock"; }
buildkit_answers() { "$BUILDCTL" --addr "$(buildkit_address "$1")" debug workers >/dev/null 2>&1; }

start_buildkit() {
    local arch
    need_tool "$BUILDKITD"
    write_buildkit_config "$STATE/buildkitd.toml"
    for arch in "${BUILDKIT_PLATFORMS[@]}"; do
        buildkit_answers "$arch" || start_buildkitd "$arch"
    done
    for arch in "${BUILDKIT_PLATFORMS[@]}"; do
        await "buildkit-$arch" buildkit_answers "$arch"
    done
    push_buildkit_image
}

# The two daemons do not differ. xtask tells buildx which of them builds for which platform.
start_buildkitd() {
    local arch=$1
    say "starting buildkitd for $arch"
    background "buildkit-$arch" "$BUILDKITD" --config "$STATE/buildkitd.toml" \
        --root "$DATA/buildkit-$arch" --addr "$(buildkit_address "$arch")" \
        --otel-socket-path "$STATE/buildkit-$arch-otel.sock" \
        --allow-insecure-entitlement network.host
}

write_buildkit_config() {
    write_file "$1" <<TOML
# Written by .ci/engines
[worker.oci]
enabled = true
snapshotter = "overlayfs"
# CNI is not installed, and builds use the host's network anyway.
networkMode = "host"
gc = true
maxUsedSpace = "4GB"

[worker.containerd]
enabled = false

[registry."$REGISTRY"]
http = true

[registry."$AUTH_REGISTRY"]
http = true
TOML
}

# The image contains only buildkitd, buildctl, and Debian's runc with its libraries. buildx starts
# `buildkitd` in it and communicates with it through `buildctl dial-stdio`.
push_buildkit_image() {
    local key work docker=(docker -H "unix://$DOCKER_SOCKET")
    key=$(cat "$LIB/buildkit.sh" "$LIB/tools.sh" | sha256sum | cut -c 1-12)
    if [[ -e $DATA/registry/buildkit-$key ]] && has_buildkit_image; then return; fi
    say "building BuildKit's image"
    work=$(mktemp -d "$DATA/buildkit-image.XXXXXX")
    mkdir -p "$work/usr/bin" "$work/etc/buildkit" "$work/run"
    mkdir -m 1777 "$work/tmp"
    cp "$BUILDKITD" "$work/usr/bin/buildkitd"
    cp "$BUILDCTL" "$work/usr/bin/buildctl"
    copy_with_libraries "$(command -v runc)" "$work"
    write_buildkit_config "$work/etc/buildkit/buildkitd.toml"
    tar -C "$work" --numeric-owner --owner=0 --group=0 -cf "$work.tar" .
    quietly "$STATE/log/buildkit-image.log" "${docker[@]}" import \
        --change 'ENV PATH=/usr/bin' --change 'ENTRYPOINT ["buildkitd"]' \
        --change 'VOLUME ["/var/lib/buildkit"]' "$work.tar" "$BUILDKIT_IMAGE"
    quietly "$STATE/log/buildkit-image.log" "${docker[@]}" push "$BUILDKIT_IMAGE"
    quietly "$STATE/log/buildkit-image.log" "${docker[@]}" rmi "$BUILDKIT_IMAGE"
    rm -rf "$work" "$work.tar"
    touch "$DATA/registry/buildkit-$key"
}

has_buildkit_image() {
    curl -fsS -o /dev/null --head \
        -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        "http://$REGISTRY/v2/moby/buildkit/manifests/v$BUILDKIT_VERSION" 2>/dev/null
}

# copy_with_libraries PROGRAM ROOT: copies a program to /usr/bin, and the libraries that it is linked
# with to their own paths.
copy_with_libraries() {
    local program=$1 root=$2 library
    cp -L "$program" "$root/usr/bin/"
    while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done < <(ldd "$program" | grep -o '/[^ ]*')
}
