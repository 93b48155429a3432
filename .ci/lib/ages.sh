# shellcheck shell=bash
# Engines of other ages, beside those that the machine has: what Debian's stable releases have and
# had. Each is a folder below AGES with the program that reaches it, which the tests put at the head
# of PATH.
#
#   docker-20             daemon 20.10; the client and buildx that the machine has
#   docker-20-client      the same daemon, with the client that came with it
#   docker-26             daemon, client and buildx of Debian 13, classic image store
#   docker-26-containerd  the same, containerd image store
#   podman-5              Debian 13's, in a Debian 13 of its own: it needs that libc

AGES=$STATE/ages
AGES_NAMES=(docker-20 docker-20-client docker-26 docker-26-containerd podman-5)
AGES_PACKAGES=$CACHE/ages
# `sid` has the newest, and one day one for which this machine's kernel is set up too old.
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

# unpack_docker NAME SUITE PACKAGE...: nothing is installed.
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

# start_unpacked_docker NAME PACKAGES: without a network of its own, so that it leaves the firewall
# to the others. Its builds and containers use the host's.
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

# write_docker_program NAME DAEMON [PACKAGES]: its client is that of the packages, else the machine's.
write_docker_program() {
    local name=$1 daemon=$2 folder=${3:-} client
    client=$(command -v docker)
    {
        echo '#!/bin/sh'
        echo "export DOCKER_HOST=unix://$STATE/$daemon.sock"
        if [[ -n $folder ]]; then client=$folder/usr/bin/docker; fi
        # Builders are listed in there: each daemon is to have its own.
        echo "export DOCKER_CONFIG=$AGES/$name/config"
        echo "exec $client \"\$@\""
    } | write_program "$AGES/$name/docker"
    mkdir -p "$AGES/$name/config"
    if [[ -d $folder/usr/libexec/docker/cli-plugins ]]; then
        # Looked for before the machine's.
        ln -sfn "$folder/usr/libexec/docker/cli-plugins" "$AGES/$name/config/"
    fi
}

write_program() {
    write_file "$1"
    chmod 0755 "$1"
}

# Half a minute of downloads and unpacking, so it runs beside everything else.
begin_podman_root() {
    if [[ -e $PODMAN_ROOT/done ]] || running podman-root; then return; fi
    say "unpacking a Debian $PODMAN_SUITE with its Podman in the background"
    # shellcheck disable=SC2016 # expanded in there
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
    wait_for 600 stopped podman-root || die "unpacking Debian $PODMAN_SUITE takes too long"
    if [[ ! -e $PODMAN_ROOT/done ]]; then
        tail -n 20 "$STATE/log/podman-root.log" >&2
        die "unpacking Debian $PODMAN_SUITE failed"
    fi
}

# The other Debian has a mount namespace of its own, which one process holds. With that process the
# mounts go, and whoever empties the cache empties nothing that was mounted in there.
start_podman_5() {
    local root=$PODMAN_ROOT/root pid
    wait_for_podman_root
    if ! running podman-5; then
        say "starting podman-5"
        mkdir -p "$DATA/podman-5"
        cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
        cp -r /etc/containers/{containers.conf,registries.conf.d} "$root/etc/containers/"
        # shellcheck disable=SC2016 # expanded in there
        background podman-5 unshare --mount --propagation private \
            bash -euo pipefail -c '
                root=$1 data=$2
                # A root, not a folder that one is locked into: containers are to get theirs in its
                # place.
                mount --bind "$root" "$root"
                mount --rbind /dev "$root/dev"
                # Where Podman keeps its locks; it is not to meet the other one there.
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
# That Podman 6 will want cgroups v2 is not what is tested.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
exec nsenter --target $pid --mount --root --wdns="\$PWD" podman "\$@"
EOF
    await podman-5 "$AGES/podman-5/podman" version
}
