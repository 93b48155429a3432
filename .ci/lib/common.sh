# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the files that source this one
# Paths, messages and background processes: what every other file here uses.

CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agent-runner-ci}
# Gone after a reboot, like the processes it describes.
STATE=${CI_STATE:-/run/agent-runner-ci}
# Image stores: too big for the cache, worth keeping between two runs.
DATA=${CI_DATA:-/var/lib/agent-runner-ci}

DEBIAN_MIRROR=${CI_DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

REGISTRY=127.0.0.1:5000
AUTH_REGISTRY=127.0.0.1:5001
# Worth nothing outside: both registries listen on this machine alone.
AUTH_USER=tester
AUTH_PASSWORD=tests-only-password
DOCKER_SOCKET=/var/run/docker.sock
DOCKER_CONTAINERD_SOCKET=$STATE/docker-containerd.sock
ROOTLESS_USER=runner-rootless
ROOTLESS_RUNTIME_DIR=$STATE/rootless

say() { printf '%s\n' "ci: $*" >&2; }

die() {
    say "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# quietly LOG COMMAND...: shows what the command printed only when it fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "failed: $* (see $log)"
    fi
}

# write_file PATH: writes standard input there, unless that is what it holds already.
write_file() {
    local path=$1 text
    text=$(cat)
    if [[ ! -e $path ]] || [[ $(cat "$path") != "$text" ]]; then
        mkdir -p "$(dirname "$path")"
        printf '%s\n' "$text" >"$path"
    fi
}

# wait_for SECONDS COMMAND...
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# A process is known by its PID and its start time, so that a PID which the
# kernel gave to another process later is never signalled.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# background NAME COMMAND...: starts a daemon that outlives this script.
background() {
    local name=$1
    shift
    mkdir -p "$STATE/pids" "$STATE/log"
    # 9 is the lock of .ci/engines, which would last as long as the daemon.
    setsid -- "$@" >"$STATE/log/$name.log" 2>&1 </dev/null 9>&- &
    local pid=$!
    disown "$pid"
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$STATE/pids/$name"
}

running() {
    local pid started
    [[ -f $STATE/pids/$1 ]] || return 1
    read -r pid started <"$STATE/pids/$1"
    [[ -n $started && $(start_time "$pid") == "$started" ]]
}

# stop NAME: ends one process that `background` started. Asks first.
stop() {
    local pid
    if running "$1"; then
        read -r pid _ <"$STATE/pids/$1"
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_for 20 stopped "$1"; then
            say "$1 (PID $pid) did not stop when asked: killed"
            kill -KILL "$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$STATE/pids/$1"
}

stopped() { ! running "$1"; }
