# shellcheck shell=bash
# Temporal's development server, for the end-to-end tests.

# The newest whose module has no replace directives, which `go install` refuses.
TEMPORAL_VERSION=1.5.1
TEMPORAL_ADDRESS=127.0.0.1:7233
TEMPORAL=$CACHE/temporal/$TEMPORAL_VERSION/temporal

# Minutes on a small machine, so it runs beside everything else.
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
    wait_for 1200 stopped temporal-build || die "temporal's build takes too long"
    if [[ ! -x $new/temporal ]]; then
        tail -n 20 "$STATE/log/temporal-build.log" >&2
        die "temporal's build failed"
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
    temporal_answers && return
    say "starting temporal on $TEMPORAL_ADDRESS"
    background temporal "$TEMPORAL" server start-dev --headless \
        --ip "${TEMPORAL_ADDRESS%:*}" --port "${TEMPORAL_ADDRESS#*:}"
    await temporal temporal_answers
}
