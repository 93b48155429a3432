# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the files that source this one
# Paths, messages and background processes, for all other files.

CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agent-runner-ci}
# Sockets, logs and PIDs. On a file system that is empty after a reboot.
STATE=${CI_STATE:-/run/agent-runner-ci}
# Image stores. They are too large for the cache. The whole CI has its own, in memory or new ones: see stores.sh.
DATA=${CI_DATA:-/var/lib/agent-runner-ci}

DEBIAN_MIRROR=${CI_DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

REGISTRY=127.0.0.1:5000
AUTH_REGISTRY=127.0.0.1:5001
DISTRIBUTION_REGISTRY=127.0.0.1:5002
S3_REGISTRY=127.0.0.1:5003
S3_STORAGE=127.0.0.1:5004
CRANE_REGISTRY=127.0.0.1:5005
# Not secret: the registries listen on this machine's loopback only.
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

# quietly LOG COMMAND...: shows the command's output only if it fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "failed: $* (see $log)"
    fi
}

# write_file PATH: writes standard input to a file, unless the file has that content already.
write_file() {
    local path=$1 text
    text=$(cat)
    if [[ ! -e $path ]] || [[ $(cat "$path") != "$text" ]]; then
        mkdir -p "$(dirname "$path")"
        printf '%s\n' "$text" >"$path"
    fi
}

# wait_for SECONDS COMMAND...: repeats a command until it succeeds, or fails after SECONDS.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# A process is identified by its PID and start time, because the kernel reuses PIDs.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# background NAME COMMAND...: starts a daemon that outlives this script.
background() {
    local name=$1
    shift
    mkdir -p "$STATE/pids" "$STATE/log"
    # File descriptor 9 is the lock of .ci/engines. The daemon must not keep it.
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

# stop NAME: ends a process that `background` started, with SIGTERM and, after 20 s, SIGKILL.
stop() {
    local pid
    if running "$1"; then
        read -r pid _ <"$STATE/pids/$1"
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_for 20 stopped "$1"; then
            say "$1 (PID $pid) did not stop within 20 s: killing it"
            kill -KILL "$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$STATE/pids/$1"
}

stopped() { ! running "$1"; }
