#!/bin/sh
# Runs agent-runner @VERSION@, from its image by digest, with Docker or Podman.
# Written by `cargo xtask formula`.
set -eu

image=@IMAGE@

usage() {
    cat <<USAGE
Usage: @NAME@ [--pull | --image | --version | --help]

Runs agent-runner @VERSION@ until Ctrl-C, which stops it gracefully.

  --pull     fetch the image, and run nothing
  --image    print the image's name and digest
  --version  print the version
  --help     print this

STIGMER_ENGINE chooses docker or podman; without it the first that answers is taken.
These variables are passed to the container if they are set:
@PASSED@
USAGE
}

fail() {
    echo "@NAME@: $*" >&2
    exit 1
}

find_engine() {
    for engine in ${STIGMER_ENGINE:-docker podman}; do
        if "$engine" version >/dev/null 2>&1; then return; fi
    done
    fail "${STIGMER_ENGINE:-neither docker nor podman} does not answer: start it, or install one: https://docs.docker.com/get-docker/ or https://podman.io/docs/installation"
}

# Podman may stand in PATH as docker, so the name says nothing.
engine_kind() {
    case $("$engine" --version 2>/dev/null) in
    podman*) echo podman ;;
    *) echo docker ;;
    esac
}

is_rootless() {
    case $kind in
    podman) [ "$("$engine" info --format '{{.Host.Security.Rootless}}')" = true ] ;;
    *) "$engine" info --format '{{.SecurityOptions}}' | grep -q rootless ;;
    esac
}

# Creates a mounted folder. For root it belongs to uid 1000, the container's user.
ready() {
    if [ ! -e "$1" ]; then
        mkdir -p "$1"
        if [ "$(id -u)" = 0 ]; then chown 1000:1000 "$1"; fi
    fi
}

# In a container on a bridge, localhost is the container itself.
reachable() {
    printf '%s\n' "$1" | sed -E "s#^([a-z]+://)?(localhost|127\.0\.0\.1)([:/]|\$)#\1$host\3#"
}

case ${1:-} in
'' | --pull) ;;
--image) echo "$image" && exit ;;
--version) echo "@VERSION@" && exit ;;
--help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac

find_engine
if [ "${1:-}" = --pull ]; then exec "$engine" pull "$image"; fi
kind=$(engine_kind)

set -- run --rm --name @NAME@ @OPTIONS@
if [ -t 0 ] && [ -t 1 ]; then set -- "$@" --interactive --tty; fi

# Podman would pass the proxies of your environment, with their passwords. Docker passes none.
if [ "$kind" = podman ]; then set -- "$@" --http-proxy=false; fi

# The container's files belong to you.
if is_rootless; then
    case $kind in
    podman) set -- "$@" --userns=keep-id:uid=1000,gid=1000 --user 1000:1000 ;;
    *) set -- "$@" --user 0:0 ;;
    esac
elif [ "$(id -u)" != 0 ]; then
    set -- "$@" --user "$(id -u):$(id -g)"
fi

# Elsewhere than on Linux containers live in a virtual machine.
if [ "$(uname -s)" = Linux ]; then
    host=localhost
    set -- "$@" --network host
elif [ "$kind" = podman ]; then
    host=host.containers.internal
else
    host=host.docker.internal
    set -- "$@" --add-host host.docker.internal:host-gateway
fi

# shellcheck disable=SC2034 # the lines below use it
relabel=$(if [ "$(cat /sys/fs/selinux/enforce 2>/dev/null)" = 1 ]; then echo z; fi)
@VOLUMES@

# Fixed values, and defaults that your environment overrides. The command line has only the names.
@FIXED@
addresses="@ADDRESSES@"
for name in $addresses; do
    eval "value=\${$name-}"
    # shellcheck disable=SC2154 # the line above sets it
    if [ -n "$value" ]; then export "$name=$(reachable "$value")"; fi
done
names="@NAMES@"
for name in $names; do
    eval "isset=\${$name+yes}"
    # shellcheck disable=SC2154 # the line above sets it
    if [ -n "$isset" ]; then set -- "$@" --env "$name"; fi
done

exec "$engine" "$@" "$image"
