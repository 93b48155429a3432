# shellcheck shell=bash
# What engines and registries store: images, containers, build caches.

# The stores at the end of a run of the whole CI, and what it compiles.
NEEDED_GIGABYTES=40

empty_stores() {
    local stores=("$DATA") target
    if id "$ROOTLESS_USER" >/dev/null 2>&1; then stores+=("$(rootless_home)/.local/share/containers"); fi
    # An engine that was killed leaves its containers' file systems mounted.
    while read -r target; do umount --lazy "$target"; done < <(mounts_below "${stores[@]}")
    # If a mount is left all the same, what is behind it stays.
    rm -rf --one-file-system "${stores[@]}"
    mkdir -p "$DATA"
}

# mounts_below FOLDER...: prints the mount points in the folders, the innermost first.
mounts_below() {
    local folder
    for folder in "$@"; do
        awk -v "folder=$folder/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo
    done | sort --reverse
}

# On a full disk dozens of tests fail, and few of them say why.
check_disk() {
    local free
    free=$(df --output=avail --block-size=1G "$DATA" | tail -n 1)
    ((free >= NEEDED_GIGABYTES)) ||
        die "the disk of $DATA has ${free// /} GB free, and the tests need $NEEDED_GIGABYTES GB: remove files, or set CI_DATA to a folder on another disk"
}
