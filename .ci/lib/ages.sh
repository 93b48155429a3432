# shellcheck shell=bash
# Older and newer versions of engines, from Debian's stable releases, in addition to the installed
# ones. Each has a folder in AGES with a program that uses it. The tests put this folder first in
# PATH.
#
#   docker-20             daemon 20.10, with the installed client and buildx
#   docker-20-client      the same daemon, with its own client
#   docker-26             daemon, client and buildx of Debian 13, classic image store
#   docker-26-containerd  the same, containerd image store
#   podman-5              Podman of Debian 13, in its own root file system because it needs that libc

AGES=$STATE/ages
AGES_NAMES=(docker-20 docker-20-client docker-26 docker-26-containerd podman-5)
AGES_PACKAGES=$CACHE/ages
# CI_PODMAN_SUITE=sid starts the newest Podman. It may need a newer kernel configuration than this
# machine has.
PODMAN_SUITE=${CI_PODMAN_SUITE:-trixie}
PODMAN_ROOT=$AGES_PACKAGES/podman-$PODMAN_SUITE

start_ages() {
    [[ -z $(missing_packages libdevmapper1.02.1) ]] || apt_install libdevmapper1.02.1
    unpack_docker docker-20 bookworm docker.io
    unpack_docker docker-26 trixie docker.io docker-cli docker-buildx
    local name
    start_unpacked_docker docker-20 docker-20
    start_unpacked_docker docker-26 docker-26
    start_unpacked_docker docker-26-containerd docker-26
    write_docker_program docker-20 docker-20
    write_docker_program docker-20-client docker-20 "$AGES_PACKAGES/docker-20"
    write_docker_program docker-26 docker-26 "$AGES_PACKAGES/docker-26"
    write_docker_program docker-26-containerd docker-26-containerd "$AGES_PACKAGES/docker-26"
    start_podman_5
    for name in docker-20 docker-26 docker-26-containerd; do
        await "$name" docker_answers "$STATE/$name.sock"
    done
}

ages_answer() {
    local name
    for name in "${AGES_NAMES[@]}"; do
        "$AGES/$name/${name%%-*}" version >/dev/null 2>&1 || return 1
    done
}

# unpack_docker NAME SUITE PACKAGE...: unpacks the packages without installing them.
unpack_docker() {
    local folder=$AGES_PACKAGES/$1 package
    [[ -e $folder/done ]] && return
    say "unpacking Docker of $2"
    rm -rf "$folder"
    download_packages "$2" "$folder" "${@:3}"
    for package in "$folder"/*.deb; do dpkg -x "$package" "$folder"; done
    rm "$folder"/*.deb
    touch "$folder/done"
}

# start_unpacked_docker NAME PACKAGES: starts a daemon without a bridge network, so that it does not
# change the firewall. Its builds and containers use the host's network.
start_unpacked_docker() {
    local name=$1 packages=$2
    docker_answers "$STATE/$name.sock" && return
    say "starting $name"
    case $name in
    *-containerd) echo '{"features": {"containerd-snapshotter": true}}' ;;
    *) echo '{"storage-driver": "overlay2"}' ;;
    esac | write_file "$STATE/$name.json"
    rm -f "$STATE/$name.pid"
    background "$name" "$AGES_PACKAGES/$packages/usr/sbin/dockerd" \
        --config-file "$STATE/$name.json" --data-root "$DATA/$name" --exec-root "$STATE/$name" \
        --pidfile "$STATE/$name.pid" -H "unix://$STATE/$name.sock" \
        --bridge=none --iptables=false --ip6tables=false
}

# write_docker_program NAME DAEMON [PACKAGES]: writes a `docker` that uses a daemon. The client is
# the one from the packages, or else the installed one.
write_docker_program() {
    local name=$1 daemon=$2 folder=${3:-} client
    client=$(command -v docker)
    {
        echo '#!/bin/sh'
        echo "export DOCKER_HOST=unix://$STATE/$daemon.sock"
        if [[ -n $folder ]]; then client=$folder/usr/bin/docker; fi
        # This folder contains the list of builders. Each daemon needs its own.
        echo "export DOCKER_CONFIG=$AGES/$name/config"
        echo "exec $client \"\$@\""
    } | write_program "$AGES/$name/docker"
    mkdir -p "$AGES/$name/config"
    if [[ -d $folder/usr/libexec/docker/cli-plugins ]]; then
        # Docker prefers these plug-ins to the installed ones.
        ln -sfn "$folder/usr/libexec/docker/cli-plugins" "$AGES/$name/config/"
    fi
}

write_program() {
    write_file "$1"
    chmod 0755 "$1"
}

# This takes half a minute, so it runs in the background.
begin_podman_root() {
    if [[ -e $PODMAN_ROOT/done ]] || running podman-root; then return; fi
    say "unpacking a Debian $PODMAN_SUITE with its Podman in the background"
    # shellcheck disable=SC2016 # expanded by the inner shell
    background podman-root nice -n 15 env LIB="$LIB" \
        bash -euo pipefail -c '. "$LIB/all.sh"; make_podman_root'
}

make_podman_root() {
    local root=$PODMAN_ROOT/root
    rm -rf "$PODMAN_ROOT"
    mkdir -p "$PODMAN_ROOT"
    debootstrap --variant=minbase --keyring="$DEBIAN_KEYRING" \
        --include=podman,runc,netavark,aardvark-dns,catatonit \
        "$PODMAN_SUITE" "$root" "$DEBIAN_MIRROR"
    rm -rf "$root"/usr/share/{doc,man,locale} "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
    mkdir -p "$root/etc/ssl" "$root/var/lib/containers"
    touch "$PODMAN_ROOT/done"
}

wait_for_podman_root() {
    begin_podman_root
    wait_for 600 stopped podman-root || die "unpacking Debian $PODMAN_SUITE took longer than 10 minutes"
    if [[ ! -e $PODMAN_ROOT/done ]]; then
        tail -n 20 "$STATE/log/podman-root.log" >&2
        die "unpacking Debian $PODMAN_SUITE failed"
    fi
}

# The other Debian has its own mount namespace, which exists as long as one `sleep` process. When it
# ends, the mounts are gone. They are not visible outside, so deleting the cache cannot delete
# anything that is mounted in it.
start_podman_5() {
    local root=$PODMAN_ROOT/root pid
    wait_for_podman_root
    if ! running podman-5; then
        say "starting podman-5"
        mkdir -p "$DATA/podman-5"
        cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
        cp -r /etc/containers/{containers.conf,registries.conf.d} "$root/etc/containers/"
        # shellcheck disable=SC2016 # expanded by the inner shell
        background podman-5 unshare --mount --propagation private \
            bash -euo pipefail -c '
                root=$1 data=$2
                # pivot_root and not chroot: Podman itself calls pivot_root for containers, which
                # does not work inside a chroot.
                mount --bind "$root" "$root"
                mount --rbind /dev "$root/dev"
                # Podman keeps its locks here. The two versions must not share them.
                mount -t tmpfs tmpfs "$root/dev/shm"
                mount --rbind /proc "$root/proc"
                mount --rbind /sys "$root/sys"
                mount --bind /tmp "$root/tmp"
                mount --bind /etc/ssl "$root/etc/ssl"
                mount -t tmpfs tmpfs "$root/run"
                mount --bind "$data" "$root/var/lib/containers"
                cd "$root"
                pivot_root . mnt
                umount --lazy /mnt
                exec sleep infinity' podman-5 "$root" "$DATA/podman-5"
    fi
    read -r pid _ <"$STATE/pids/podman-5"
    write_program "$AGES/podman-5/podman" <<EOF
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Hides the warning that Podman 6 will need cgroups v2.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
# Of this machine's folders, the other root has only /tmp.
case \$PWD in
/tmp/*) folder=\$PWD ;;
*) folder=/ ;;
esac
exec nsenter --target $pid --mount --root --wdns="\$folder" podman "\$@"
EOF
    await podman-5 podman_5_answers
}

# Until the other root is in place, the program is this machine's Podman, which has another version.
podman_5_answers() {
    [[ $("$AGES/podman-5/podman" version --format '{{.Client.Version}}') == 5.* ]]
}
