# shellcheck shell=bash
# What engines and registries store: images, containers, build caches. No engine may run meanwhile.

# Free space on the disk for the whole CI: what it compiles, and up to 15 GB of images.
NEEDED_GIGABYTES=30
NEEDED_GIGABYTES_WITHOUT_STORES=15
# Free memory for the stores and the tests.
NEEDED_MEMORY_GIGABYTES=20
# The device in the list of mounts.
MEMORY_NAME=agent-runner-ci

# Provides empty stores: in memory, or on the disk if that is not possible. In memory, they hide what is on the disk.
# Otherwise that is set aside.
use_empty_stores() {
    unmount_memory
    unmount_below "$DATA"
    forget_containers
    if mount_memory; then
        say "the image stores are in memory"
    else
        say "the image stores are on the disk: those in memory need $NEEDED_MEMORY_GIGABYTES GB of free memory and Linux 6.6"
        set_stores_aside
    fi
}

# Mounts a file system in memory over the stores. Files there take half of the processor time of files on a disk. Fails if
# there is too little memory, or if rootless engines could not use it: they write extended attributes named `user.…`,
# which tmpfs supports since Linux 6.6.
mount_memory() {
    (($(available_memory) >= NEEDED_MEMORY_GIGABYTES)) || return 1
    is_at_least 6.6 "$(uname -r)" || return 1
    mkdir -p "$DATA" || return 1
    # A large size, because BuildKit removes parts of its cache if the file system is small. It reserves no memory.
    mount -t tmpfs -o size=200g,nr_inodes=0,mode=0755 "$MEMORY_NAME" "$DATA"
}

# Frees the memory. What was in the stores on the disk is there again.
unmount_memory() {
    is_in_memory || return 0
    # A running container would keep the file system.
    if have podman; then podman rm --all --force --time 0 >/dev/null 2>&1 || true; fi
    unmount_below "$DATA"
    umount --lazy "$DATA"
    forget_containers
}

is_in_memory() { [[ $(findmnt --noheadings --output SOURCE --mountpoint "$DATA") == "$MEMORY_NAME" ]]; }

# Whole gigabytes.
available_memory() { awk '$1 == "MemAvailable:" { print int($2 / 1024 / 1024) }' /proc/meminfo; }

# is_at_least VERSION OTHER: whether OTHER is VERSION or newer.
is_at_least() { [[ $(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1) == "$1" ]]; }

# Removing millions of files takes minutes. So the stores are only renamed, and removed later.
set_stores_aside() {
    [[ ! -e $DATA ]] || mv "$DATA" "$(mktemp -d "$DATA.old-XXXXXX")/"
}

remove_old_stores() {
    # If a mount is left all the same, what is behind it stays.
    nice -n 19 ionice -c 3 rm -rf --one-file-system "$DATA".old-*
}

# An engine that was killed leaves its containers' file systems mounted. The innermost come first.
unmount_below() {
    local target
    while read -r target; do
        # It may be gone together with an outer one, or be hidden behind another mount.
        umount --lazy "$target" || true
    done < <(awk -v "folder=$1/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort --reverse)
}

# Removes what Podman keeps of running containers.
forget_containers() {
    unmount_below "$STATE/podman"
    rm -rf "$STATE/podman" "$ROOTLESS_RUNTIME_DIR"/{containers,libpod}
}

# Whether the disk has enough space for the whole CI.
disk_is_large_enough() { (($(free_gigabytes) >= $(needed_gigabytes))); }

needed_gigabytes() {
    if is_in_memory; then echo "$NEEDED_GIGABYTES_WITHOUT_STORES"; else echo "$NEEDED_GIGABYTES"; fi
}

free_gigabytes() {
    local folder=$DATA
    if is_in_memory; then folder=$CACHE; fi
    df --output=avail --block-size=1G "$folder" | sed -n '2{s/ //g;p}'
}

# On a full disk dozens of tests fail, and few of them say why.
check_disk() {
    local setting=CI_DATA
    disk_is_large_enough && return
    if is_in_memory; then setting=CI_CACHE; fi
    die "the disk has $(free_gigabytes) GB free, and the tests need $(needed_gigabytes) GB: remove files, or set $setting to a folder on another disk"
}
