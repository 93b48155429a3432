# shellcheck shell=bash
# Two Docker daemons. Each is started only if it does not respond.

BRIDGE=arci0
BRIDGE_ADDRESS=172.29.0.1/16
BRIDGE_SUBNET=172.29.0.0/16

docker_answers() { docker -H "unix://$1" version --format '{{.Server.Version}}' >/dev/null 2>&1; }

start_daemons() {
    # Start all of them before waiting for the first, so that they start in parallel.
    docker_answers "$DOCKER_SOCKET" || start_docker_classic
    docker_answers "$DOCKER_CONTAINERD_SOCKET" || start_docker_containerd
    start_registries
    await docker docker_answers "$DOCKER_SOCKET"
    await docker-containerd docker_answers "$DOCKER_CONTAINERD_SOCKET"
}

await() {
    local name=$1
    shift
    if ! wait_for 60 "$@"; then
        tail -n 30 "$STATE/log/$name.log" >&2 || true
        die "$name did not start within 60 s"
    fi
}

start_docker_classic() {
    say "starting dockerd, classic image store"
    write_file "$STATE/docker.json" <<EOF
{"features": {"containerd-snapshotter": false}, "storage-driver": "overlay2"}
EOF
    # A killed daemon leaves its PID file. If that PID is in use again, dockerd refuses to start.
    rm -f "$STATE/docker.pid"
    background docker dockerd --config-file "$STATE/docker.json" \
        --data-root "$DATA/docker" --pidfile "$STATE/docker.pid" -H "unix://$DOCKER_SOCKET"
}

start_docker_containerd() {
    say "starting dockerd, containerd image store"
    write_file "$STATE/docker-containerd.json" <<EOF
{"features": {"containerd-snapshotter": true}}
EOF
    add_bridge
    rm -f "$STATE/docker-containerd.pid"
    # Two daemons would overwrite each other's firewall chains, which have the same names. So this
    # one does not change the firewall, and `add_bridge` adds the rules that it needs. Published
    # ports work through Docker's userland proxy.
    background docker-containerd dockerd --config-file "$STATE/docker-containerd.json" \
        --data-root "$DATA/docker-containerd" --exec-root "$STATE/docker-containerd" \
        --pidfile "$STATE/docker-containerd.pid" -H "unix://$DOCKER_CONTAINERD_SOCKET" \
        --bridge "$BRIDGE" --iptables=false --ip6tables=false
}

add_bridge() {
    [[ -e /sys/class/net/$BRIDGE ]] || ip link add "$BRIDGE" type bridge
    ip address replace "$BRIDGE_ADDRESS" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    sysctl -q -w net.ipv4.ip_forward=1
    local rule
    while read -r rule; do
        # shellcheck disable=SC2086 # one word an argument
        iptables -w ${rule/ -I / -C } 2>/dev/null || iptables -w $rule
    done < <(bridge_rules)
}

bridge_rules() {
    echo "-t nat -I POSTROUTING -s $BRIDGE_SUBNET ! -o $BRIDGE -j MASQUERADE"
    # The other daemon sets the FORWARD chain's policy to DROP.
    echo "-t filter -I FORWARD -i $BRIDGE -j ACCEPT"
    echo "-t filter -I FORWARD -o $BRIDGE -j ACCEPT"
}

remove_bridge() {
    [[ -e /sys/class/net/$BRIDGE ]] || return 0
    local rule
    while read -r rule; do
        # shellcheck disable=SC2086 # one word an argument
        iptables -w ${rule/ -I / -D } 2>/dev/null || true
    done < <(bridge_rules)
    ip link delete "$BRIDGE"
}
