# shellcheck shell=bash
# Older and newer versions of engines, and rootless Docker, in addition to the installed ones. Each has a
# folder in AGES with a program that uses it. The tests put this folder first in PATH.
#
#   docker-20             daemon 20.10, with the installed client and buildx
#   docker-20-client      the same daemon, with its own client
#   docker-26             daemon, client and buildx of Debian 13, classic image store
#   docker-26-containerd  the same, containerd image store
#   docker-29             daemon, client, buildx and runc, built from their Go modules
#   docker-rootless       the installed daemon, run by the rootless user
#   podman-5              Podman of Debian 13
#   podman-6              Podman of Debian's experimental suite

AGES=$STATE/ages
AGES_NAMES=(docker-20 docker-20-client docker-26 docker-26-containerd docker-29 docker-rootless
    podman-5 podman-6)
AGES_PACKAGES=$CACHE/ages

start_ages() {
    [[ -z $(missing_packages libdevmapper1.02.1) ]] || apt_install libdevmapper1.02.1
    unpack_docker docker-20 bookworm docker.io
    unpack_docker docker-26 trixie docker.io docker-cli docker-buildx
    local name
    start_unpacked_docker docker-20 docker-20
    start_unpacked_docker docker-26 docker-26
    start_unpacked_docker docker-26-containerd docker-26
    start_rootless_docker
    write_docker_program docker-20 docker-20
    write_docker_program docker-20-client docker-20 "$AGES_PACKAGES/docker-20"
    write_docker_program docker-26 docker-26 "$AGES_PACKAGES/docker-26"
    write_docker_program docker-26-containerd docker-26-containerd "$AGES_PACKAGES/docker-26"
    start_podman podman-5 trixie
    start_podman podman-6 sid
    assemble_docker_29
    start_unpacked_docker docker-29 docker-29
    write_docker_program docker-29 docker-29 "$AGES_PACKAGES/docker-29"
    for name in docker-20 docker-26 docker-26-containerd docker-29; do
        await "$name" docker_answers "$STATE/$name.sock"
    done
    finish_rootless_docker
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

# Links the built programs to the paths at which Debian's packages install them.
assemble_docker_29() {
    local folder=$AGES_PACKAGES/docker-29
    need_tool "$DOCKER_29"
    need_tool "$DOCKERD_29"
    need_tool "$BUILDX_29"
    need_tool "$RUNC_29"
    mkdir -p "$folder"/usr/{bin,sbin,libexec/docker/cli-plugins}
    ln -sfn "$DOCKER_29" "$folder/usr/bin/docker"
    ln -sfn "$RUNC_29" "$folder/usr/bin/runc"
    ln -sfn "$DOCKERD_29" "$folder/usr/sbin/dockerd"
    ln -sfn "$BUILDX_29" "$folder/usr/libexec/docker/cli-plugins/docker-buildx"
}

# start_unpacked_docker NAME PACKAGES: starts a daemon that does not change the firewall. Its builds and containers use
# the host's network. `--bridge=none` would make dockerd delete `docker0`, which the installed daemon uses. So it gets the
# bridge of the daemon with the containerd image store.
start_unpacked_docker() {
    local name=$1 packages=$2
    docker_answers "$STATE/$name.sock" && return
    say "starting $name"
    case $name in
    *-containerd) echo '{"features": {"containerd-snapshotter": true}}' ;;
    docker-29) echo '{}' ;; # the containerd image store is its default
    *) echo '{"storage-driver": "overlay2"}' ;;
    esac | write_file "$STATE/$name.json"
    rm -f "$STATE/$name.pid"
    # Docker 29 needs its own runc, and all use the installed containerd.
    background "$name" env PATH="$AGES_PACKAGES/$packages/usr/bin:$PATH" \
        "$AGES_PACKAGES/$packages/usr/sbin/dockerd" \
        --config-file "$STATE/$name.json" --data-root "$DATA/$name" --exec-root "$STATE/$name" \
        --pidfile "$STATE/$name.pid" -H "unix://$STATE/$name.sock" \
        --bridge "$BRIDGE" --iptables=false --ip6tables=false
}

# The socket is where a user has it, in the folder for the user's sockets.
ROOTLESS_DOCKER="docker-rootless/docker"

start_rootless_docker() {
    local name=docker-rootless
    docker_answers "$STATE/$ROOTLESS_DOCKER.sock" && return
    say "starting $name"
    install -d -m 0700 -o "$ROOTLESS_USER" -g "$ROOTLESS_USER" "$STATE/$name" "$DATA/$name"
    echo '{"storage-driver": "overlay2", "features": {"containerd-snapshotter": false}}' |
        write_file "$STATE/$name.json"
    background "$name" setpriv --reuid "$ROOTLESS_USER" --regid "$ROOTLESS_USER" --init-groups \
        env -i -C / PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$(rootless_home)" \
        XDG_RUNTIME_DIR="$STATE/$name" /usr/share/docker.io/contrib/dockerd-rootless.sh \
        --config-file "$STATE/$name.json" --data-root "$DATA/$name"
}

# The daemon has a network of its own, from which it cannot reach this machine's registries. So it gets the
# base image as a file.
finish_rootless_docker() {
    local base=$BASE_REPOSITORY:3.11-slim file=$STATE/rootless-base.tar
    local docker=(docker -H "unix://$STATE/$ROOTLESS_DOCKER.sock")
    await docker-rootless docker_answers "$STATE/$ROOTLESS_DOCKER.sock"
    write_docker_program docker-rootless "$ROOTLESS_DOCKER"
    chown -R "$ROOTLESS_USER:" "$AGES/docker-rootless"
    [[ -z $("${docker[@]}" image ls --quiet "$base") ]] || return 0
    rm -f "$file"
    quietly "$STATE/log/rootless-base.log" \
        skopeo copy --src-tls-verify=false "docker://$base" "docker-archive:$file:$base"
    quietly "$STATE/log/rootless-base.log" "${docker[@]}" load --input "$file"
    rm "$file"
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

# start_podman NAME ROOT: starts a Podman in another Debian.
start_podman() {
    local name=$1 root=$ROOTS/$2/root pid
    need_root "$2"
    if ! running "$name"; then
        say "starting $name"
        mkdir -p "$DATA/$name" "$root/etc/containers"
        cp -r /etc/containers/registries.conf.d "$root/etc/containers/"
        podman_settings "$name" | write_file "$root/etc/containers/containers.conf"
        enter_root "$name" "$2" "$(podman_mounts "$name")"
    fi
    read -r pid _ <"$STATE/pids/$name"
    program_in_root "$pid" podman | write_program "$AGES/$name/podman"
    # systemd calls it as a generator.
    program_in_root "$pid" /usr/libexec/podman/quadlet | write_program "$AGES/$name/quadlet"
    await "$name" podman_answers "$name"
}

# program_in_root PID PROGRAM: prints a program that runs PROGRAM in the root that the process PID has.
program_in_root() {
    cat <<EOF
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Hides the warning that Podman 6 will need cgroups v2.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
# Of this machine's folders, the other root has only /tmp.
case \$PWD in
/tmp/*) folder=\$PWD ;;
*) folder=/ ;;
esac
exec nsenter --target $1 --mount --root --wdns="\$folder" $2 "\$@"
EOF
}

podman_mounts() {
    echo "mount --bind $DATA/$1 \$root/var/lib/containers"
    # Podman 6 supports only cgroups v2, which this machine may not have in the usual place.
    [[ $1 != podman-6 ]] || echo "mount -t cgroup2 none \$root/sys/fs/cgroup"
}

podman_settings() {
    if [[ $1 != podman-6 ]]; then
        cat /etc/containers/containers.conf
        return
    fi
    cat <<EOF
# Written by .ci/engines
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
# The controllers may belong to cgroups v1 on this machine, so no limit can be set. crun then starts
# containers without the limits that they ask for, and runc refuses.
cgroups = "disabled"

[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
}

podman_answers() { "$AGES/$1/podman" version; }
