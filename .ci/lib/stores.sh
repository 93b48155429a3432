# shellcheck shell=bash
# What engines and registries store: images, containers, build caches. No engine may run meanwhile.

# For the stores at the end of a run of the whole CI, and what it compiles.
NEEDED_GIGABYTES=30

# The rootless user's store is in the home folder, the others are in one folder.
stores() {
    echo "$DATA"
    if id "$ROOTLESS_USER" >/dev/null 2>&1; then echo "$(rootless_home)/.local/share/containers"; fi
}

# Removing millions of files takes minutes. So the stores are only renamed, and removed later.
set_stores_aside() {
    local store target
    for store in $(stores); do
        # An engine that was killed leaves its containers' file systems mounted.
        while read -r target; do umount --lazy "$target"; done < <(mounts_below "$store")
        [[ ! -e $store ]] || mv "$store" "$(mktemp -d "$store.old-XXXXXX")/"
    done
    # What Podman keeps of running containers.
    rm -rf "$STATE/podman" "$ROOTLESS_RUNTIME_DIR"/{containers,libpod}
}

remove_old_stores() {
    local store
    for store in $(stores); do
        # If a mount is left all the same, what is behind it stays.
        nice -n 19 ionice -c 3 rm -rf --one-file-system "$store".old-*
    done
}

# mounts_below FOLDER: prints the mount points in a folder, the innermost first.
mounts_below() {
    awk -v "folder=$1/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort --reverse
}

free_gigabytes() {
    df --output=avail --block-size=1G "$DATA" | sed -n '2{s/ //g;p}'
}

# On a full disk dozens of tests fail, and few of them say why.
check_disk() {
    local free
    free=$(free_gigabytes)
    ((free >= NEEDED_GIGABYTES)) ||
        die "the disk of $DATA has $free GB free, and the tests need $NEEDED_GIGABYTES GB: remove files, or set CI_DATA to a folder on another disk"
}
