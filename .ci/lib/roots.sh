# shellcheck shell=bash
# Newer Debian releases in root file systems of their own, for programs that need a newer libc:
#
#   trixie  Podman 5
#   sid     Podman 6, from the experimental suite, and a Rust compiler with the sources of its standard
#           library
#
# A root is entered in a mount namespace of its own, which exists as long as one `sleep` process. When it
# ends, the mounts are gone. They are not visible outside, so deleting the cache cannot delete anything
# that is mounted in it.

ROOTS=$CACHE/roots

# Unpacking takes a minute, so it runs in the background.
begin_roots() {
    if [[ -e $ROOTS/trixie/done && -e $ROOTS/sid/done ]] || running roots; then return; fi
    say "unpacking Debian trixie and sid in the background"
    # shellcheck disable=SC2016 # expanded by the inner shell
    background roots nice -n 15 env LIB="$LIB" \
        bash -euo pipefail -c '. "$LIB/all.sh"; make_trixie_root; make_sid_root'
}

# need_root NAME: waits until a root is complete.
need_root() {
    [[ -e $ROOTS/$1/done ]] && return
    begin_roots
    wait_for 900 root_is_done_or_given_up "$1" || die "unpacking Debian $1 took longer than 15 minutes"
    if [[ ! -e $ROOTS/$1/done ]]; then
        tail -n 20 "$STATE/log/roots.log" >&2
        die "unpacking Debian $1 failed"
    fi
}

root_is_done_or_given_up() { [[ -e $ROOTS/$1/done ]] || stopped roots; }

make_trixie_root() {
    [[ -e $ROOTS/trixie/done ]] && return
    unpack_root trixie podman,runc,netavark,aardvark-dns,catatonit
    finish_root trixie
}

make_sid_root() {
    [[ -e $ROOTS/sid/done ]] && return
    local root=$ROOTS/sid/root
    unpack_root sid ca-certificates
    printf "deb [signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR %s main\n" sid experimental \
        >"$root/etc/apt/sources.list"
    cp -L /etc/resolv.conf "$root/etc/"
    # A mirror may be a snapshot, which says that it is outdated.
    chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update
    export DEBIAN_FRONTEND=noninteractive
    chroot "$root" apt-get install -y --no-install-recommends rustc cargo rust-src
    chroot "$root" apt-get install -y --no-install-recommends --target-release experimental \
        podman buildah crun netavark aardvark-dns nftables catatonit
    finish_root sid
}

# unpack_root SUITE PACKAGE,...
unpack_root() {
    rm -rf "${ROOTS:?}/$1"
    mkdir -p "$ROOTS/$1"
    debootstrap --variant=minbase --keyring="$DEBIAN_KEYRING" --include="$2" \
        "$1" "$ROOTS/$1/root" "$DEBIAN_MIRROR"
}

finish_root() {
    local root=$ROOTS/$1/root
    rm -rf "$root"/usr/share/{doc,man,locale} "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
    mkdir -p "$root/etc/ssl" "$root/var/lib/containers" "$root/src" "$root/cache"
    touch "$ROOTS/$1/done"
}

# enter_root NAME ROOT COMMAND: starts the background process NAME, which keeps a mount namespace
# with ROOT as / alive. The shell command COMMAND mounts what NAME needs below $root, before $root
# becomes /.
enter_root() {
    local name=$1 root=$ROOTS/$2/root mounts=$3
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    # shellcheck disable=SC2016 # expanded by the inner shell
    background "$name" unshare --mount --cgroup --propagation private \
        bash -euo pipefail -c '
            root=$1
            # pivot_root and not chroot: Podman itself calls pivot_root for containers, which does
            # not work inside a chroot.
            mount --bind "$root" "$root"
            mount --rbind /dev "$root/dev"
            # Podman keeps its locks here. The versions must not share them.
            mount -t tmpfs tmpfs "$root/dev/shm"
            mount --rbind /proc "$root/proc"
            mount --rbind /sys "$root/sys"
            mount --bind /tmp "$root/tmp"
            mount --bind /etc/ssl "$root/etc/ssl"
            mount -t tmpfs tmpfs "$root/run"
            eval "$2"
            cd "$root"
            pivot_root . mnt
            umount --lazy /mnt
            exec sleep infinity' "$name" "$root" "$mounts"
    wait_for 60 root_is_entered "$name" || die "$name did not enter its root within 60 s"
}

# Whether the process has made its root /. Until then, a command in its namespace runs this machine's
# programs, and they can write into the other root: Podman 4.3 leaves a database there that Podman 6
# refuses.
root_is_entered() {
    local pid
    read -r pid _ <"$STATE/pids/$1"
    [[ $(<"/proc/$pid/comm") == sleep ]]
}
