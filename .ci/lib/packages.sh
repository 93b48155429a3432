# shellcheck shell=bash
# Debian packages: from bookworm, except Docker.

PACKAGES=(
    podman buildah skopeo fuse-overlayfs netavark aardvark-dns slirp4netns uidmap catatonit
    docker-registry apache2-utils
    qemu-user-static binfmt-support
    debootstrap iptables iproute2 curl ca-certificates
    hyperfine shellcheck jq ruby g++ libseccomp-dev zstd
)
# bookworm's docker.io (20.10) has no buildx. sid's works with bookworm's libc.
DOCKER_PACKAGES=(docker.io docker-cli containerd docker-buildx rootlesskit)

install_packages() {
    local missing
    missing=$(missing_packages "${PACKAGES[@]}")
    if [[ -n $missing ]]; then
        say "installing: ${missing//$'\n'/ }"
        apt_update
        # shellcheck disable=SC2086 # one word a package
        apt_install $missing
    fi
    if [[ -n $(missing_packages "${DOCKER_PACKAGES[@]}") ]] || ! docker_is_new; then
        say "installing Docker from sid"
        add_sid
        apt_install "${DOCKER_PACKAGES[@]/%//sid}"
    fi
    hash -r
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            echo "$package"
    done
}

docker_is_new() { dpkg --compare-versions "$(dpkg-query -W -f '${Version}' docker.io)" ge 28; }

apt_update() { quietly "$STATE/log/apt.log" apt-get update; }

apt_install() {
    DEBIAN_FRONTEND=noninteractive quietly "$STATE/log/apt.log" \
        apt-get install -y --no-install-recommends "$@"
}

add_sid() {
    write_file /etc/apt/sources.list.d/agent-runner-ci-sid.sources <<EOF
Types: deb
URIs: $DEBIAN_MIRROR
Suites: sid
Components: main
Signed-By: $DEBIAN_KEYRING
EOF
    # A priority below 100: apt installs from sid only on request, and never as an upgrade.
    write_file /etc/apt/preferences.d/agent-runner-ci-sid <<EOF
Package: *
Pin: release n=sid
Pin-Priority: 90
EOF
    apt_update
}

# download_packages SUITE FOLDER PACKAGE...: downloads packages, verified by apt, without changing
# the machine's package lists.
download_packages() {
    local suite=$1 folder=$2 apt
    apt=(apt-get -o "Dir::Etc::sourcelist=$folder/apt/list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$folder/apt/lists" -o Dir::State::status=/dev/null
        -o "Dir::Cache=$folder/apt/cache" -o APT::Sandbox::User=root)
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
    echo "deb [signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR $suite main" >"$folder/apt/list"
    (
        cd "$folder" # apt downloads to the working folder
        quietly "$STATE/log/download-$suite.log" "${apt[@]}" update
        quietly "$STATE/log/download-$suite.log" "${apt[@]}" download "${@:3}"
    )
    rm -r "$folder/apt"
}

# Lets the kernel run arm64 programs with qemu, also inside containers.
enable_emulation() {
    [[ -e /proc/sys/fs/binfmt_misc/status ]] ||
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [[ $(uname -m) == aarch64 || -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]] ||
        update-binfmts --enable qemu-aarch64
}

# When two builds look up a name at the same moment, one of the responses may be lost. By default the
# resolver retries after five seconds, which is longer than most tests take.
configure_resolver() {
    grep -q '^options.*timeout' /etc/resolv.conf && return
    echo "options timeout:1 attempts:5" >>/etc/resolv.conf
}
