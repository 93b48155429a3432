# shellcheck shell=bash
# Podman's settings, and the user for rootless Podman.

configure_podman() {
    # crun does not support hybrid cgroups. Without systemd, its cgroup manager and its journal are
    # not available. On such a machine, the limits cannot be raised to Podman's defaults.
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
# By default Podman tries the older CNI first, and warns that it is not installed.
network_backend = "netavark"
EOF
    fi
    write_file /etc/containers/storage.conf <<EOF
# Written by .ci/engines
[storage]
driver = "overlay"
graphroot = "$DATA/podman"
runroot = "$STATE/podman"
EOF
    write_file /etc/containers/registries.conf.d/agent-runner-ci.conf <<EOF
# Written by .ci/engines. Unlike Docker, Podman requires TLS on the loopback too.
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
    # useradd usually adds the ranges, but the machine's settings can disable that.
    grep -q "^$ROOTLESS_USER:" /etc/subuid || usermod --add-subuids "$range" "$ROOTLESS_USER"
    grep -q "^$ROOTLESS_USER:" /etc/subgid || usermod --add-subgids "$range" "$ROOTLESS_USER"
    install -d -m 0700 -o "$ROOTLESS_USER" -g "$ROOTLESS_USER" "$ROOTLESS_RUNTIME_DIR"

    # By default Podman 4.3 uses vfs here, which copies the whole image for every container.
    write_file "$(rootless_home)/.config/containers/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$DATA/podman-rootless"
EOF
    install -d -m 0700 -o "$ROOTLESS_USER" -g "$ROOTLESS_USER" "$DATA/podman-rootless"
    chown -R "$ROOTLESS_USER:" "$(rootless_home)/.config"

    # udev and systemd usually do this. Without them, only root could use the devices.
    if [[ ! -d /run/systemd/system ]]; then
        chmod 0666 /dev/net/tun /dev/fuse
        mount --make-rshared /
    fi
}

rootless_home() { getent passwd "$ROOTLESS_USER" | cut -d : -f 6; }

# Runs a command as the rootless user, with that user's environment and not root's.
rootless() {
    (cd / && runuser -u "$ROOTLESS_USER" -- \
        env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$(rootless_home)" \
        XDG_RUNTIME_DIR="$ROOTLESS_RUNTIME_DIR" "$@")
}

# Rootless Podman keeps a process that holds its namespaces. `system migrate` ends it.
stop_rootless_pause() {
    [[ -e $ROOTLESS_RUNTIME_DIR/libpod ]] || return 0
    rootless podman system migrate >/dev/null 2>&1 || true
}
