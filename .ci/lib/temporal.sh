# shellcheck shell=bash
# Temporal's development server, for the end-to-end tests.

# The newest version without replace directives in go.mod, which `go install` does not accept.
TEMPORAL_VERSION=1.5.1
TEMPORAL_ADDRESS=127.0.0.1:7233
TEMPORAL=$CACHE/temporal/$TEMPORAL_VERSION/temporal

# The build takes minutes on a small machine, so it runs in the background.
begin_temporal_build() {
    [[ -x $TEMPORAL ]] || running temporal-build && return
    say "building temporal $TEMPORAL_VERSION in the background"
    background temporal-build nice -n 15 env CGO_ENABLED=0 \
        GOBIN="$(dirname "$TEMPORAL").new" \
        go install -trimpath -ldflags='-s -w' \
        "github.com/temporalio/cli/cmd/temporal@v$TEMPORAL_VERSION"
}

finish_temporal_build() {
    local new
    new=$(dirname "$TEMPORAL").new
    [[ -x $TEMPORAL ]] && return
    begin_temporal_build
    wait_for 1200 stopped temporal-build || die "building temporal took longer than 20 minutes"
    if [[ ! -x $new/temporal ]]; then
        tail -n 20 "$STATE/log/temporal-build.log" >&2
        die "building temporal failed"
    fi
    mkdir -p "$(dirname "$TEMPORAL")"
    mv "$new/temporal" "$TEMPORAL"
    rmdir "$new"
}

temporal_answers() {
    "$TEMPORAL" operator cluster health --address "$TEMPORAL_ADDRESS" >/dev/null 2>&1
}

start_temporal() {
    finish_temporal_build
    push_temporal_image
    temporal_answers && return
    say "starting temporal on $TEMPORAL_ADDRESS"
    background temporal "$TEMPORAL" server start-dev --headless \
        --ip "${TEMPORAL_ADDRESS%:*}" --port "${TEMPORAL_ADDRESS#*:}"
    await temporal temporal_answers
}

# A minimal image for `up` and `smoke`. It replaces the one that they pull by default.
TEMPORAL_IMAGE=$REGISTRY/temporalio/temporal:$TEMPORAL_VERSION

push_temporal_image() {
    local work docker=(docker -H "unix://$DOCKER_SOCKET")
    curl -fsS -o /dev/null --head \
        -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        "http://$REGISTRY/v2/temporalio/temporal/manifests/$TEMPORAL_VERSION" 2>/dev/null && return
    say "building Temporal's image"
    work=$(mktemp -d "$DATA/temporal-image.XXXXXX")
    cp "$TEMPORAL" "$work/"
    # Temporal looks up its user, and the image has no /etc/passwd.
    quietly "$STATE/log/temporal-image.log" sh -c "tar -C '$work' -c temporal |
        ${docker[*]} import --change 'ENV USER=temporal' --change 'ENV HOME=/' \
            --change 'ENTRYPOINT [\"/temporal\"]' - '$TEMPORAL_IMAGE'"
    quietly "$STATE/log/temporal-image.log" "${docker[@]}" push "$TEMPORAL_IMAGE"
    quietly "$STATE/log/temporal-image.log" "${docker[@]}" rmi "$TEMPORAL_IMAGE"
    rm -rf "$work"
}
