# shellcheck shell=bash
# Podman's settings, and the user who runs it without root.

configure_podman() {
    # crun refuses hybrid cgroups; without systemd there is neither its cgroup
    # manager nor its journal; and the limits here can't be raised to Podman's
    # defaults.
    if [[ ! -d /run/systemd/system ]]; then
        write_file /etc/containers/containers.conf <<EOF
# Written by .ci/engines
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"

[network]
# Podman would otherwise try the older CNI first, and warn that it is not there.
network_backend = "netavark"
EOF
    fi
    write_file /etc/containers/registries.conf.d/agent-runner-ci.conf <<EOF
# Written by .ci/engines: Podman, unlike Docker, wants TLS on the loopback too.
[[registry]]
location = "$REGISTRY"
insecure = true

[[registry]]
location = "$AUTH_REGISTRY"
insecure = true
EOF
}

add_rootless_user() {
    local range=1000000-1065535
    id "$ROOTLESS_USER" >/dev/null 2>&1 ||
        useradd --create-home --shell /bin/bash "$ROOTLESS_USER"
    # useradd gives the ranges, unless the machine's settings say otherwise.
    grep -q "^$ROOTLESS_USER:" /etc/subuid || usermod --add-subuids "$range" "$ROOTLESS_USER"
    grep -q "^$ROOTLESS_USER:" /etc/subgid || usermod --add-subgids "$range" "$ROOTLESS_USER"
    install -d -m 0700 -o "$ROOTLESS_USER" -g "$ROOTLESS_USER" "$ROOTLESS_RUNTIME_DIR"

    # Without it Podman 4.3 takes vfs, which copies the whole image for every container.
    write_file "$(rootless_home)/.config/containers/storage.conf" <<EOF
[storage]
driver = "overlay"
EOF
    chown -R "$ROOTLESS_USER:" "$(rootless_home)/.config"

    # As udev and systemd have them; without either they are root's only.
    if [[ ! -d /run/systemd/system ]]; then
        chmod 0666 /dev/net/tun /dev/fuse
        mount --make-rshared /
    fi
}

rootless_home() { getent passwd "$ROOTLESS_USER" | cut -d : -f 6; }

# Without root's environment: HOME and the working folder must be the user's.
rootless() {
    (cd / && runuser -u "$ROOTLESS_USER" -- \
        env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$(rootless_home)" \
        XDG_RUNTIME_DIR="$ROOTLESS_RUNTIME_DIR" "$@")
}

# Rootless Podman keeps one process that holds its namespaces. It is asked to
# end it, since only Podman knows which it is.
stop_rootless_pause() {
    [[ -e $ROOTLESS_RUNTIME_DIR/libpod ]] || return 0
    rootless podman system migrate >/dev/null 2>&1 || true
}

# Every build looks each of its steps up among all images of the store: a hundred images more cost
# a second a build. What the tests of earlier runs left goes, and with it their cache.
TOO_MANY_IMAGES=150

tidy_podman_store() {
    local count
    # It fails when somebody removes an image meanwhile; then there is no haste.
    count=$(podman image ls --all --quiet 2>/dev/null | wc -l) || return 0
    ((count > TOO_MANY_IMAGES)) || return 0
    say "removing untagged images from Podman's store of $count"
    # Interrupted builds leave containers of Buildah's, which keep images; and it ends at the first
    # image that it cannot remove.
    buildah rm --all >"$STATE/log/podman-prune.log" 2>&1 || true
    podman image prune --force >>"$STATE/log/podman-prune.log" 2>&1 || true
}
