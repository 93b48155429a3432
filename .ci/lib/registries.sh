# shellcheck shell=bash
# Registries, each started only if it does not respond: Debian's docker-registry (distribution 2), with
# and without a password, and others, built from Go modules:
#
#   distribution      distribution 3, with its blobs in the file system
#   s3-registry       the same, with its blobs in S3: it redirects requests for blobs there
#   s3-storage        the S3 of that registry, in memory
#   crane-registry    the registry of go-containerregistry, with its manifests in memory

S3_BUCKET=registry

registry_answers() { curl -fsS -o /dev/null "http://$1/v2/"; }
# Without -f, because it responds with status 401.
auth_registry_answers() { curl -sS -o /dev/null "http://$AUTH_REGISTRY/v2/"; }
s3_answers() { curl -fsS -o /dev/null "http://$S3_STORAGE/$S3_BUCKET"; }

start_registries() {
    registry_answers "$REGISTRY" 2>/dev/null || start_registry
    auth_registry_answers 2>/dev/null || start_auth_registry
    await registry registry_answers "$REGISTRY"
    await auth-registry auth_registry_answers
}

# Starts the registries that are built from Go modules, and waits for the programs that read them.
start_more_registries() {
    local tool
    for tool in "$DISTRIBUTION" "$GOFAKES3" "$CRANE" "$REGCTL" "$ORAS"; do need_tool "$tool"; done
    registry_answers "$DISTRIBUTION_REGISTRY" 2>/dev/null || start_distribution
    registry_answers "$CRANE_REGISTRY" 2>/dev/null || start_crane_registry
    # The registry needs its bucket.
    s3_answers 2>/dev/null || start_s3_storage
    await s3-storage s3_answers
    registry_answers "$S3_REGISTRY" 2>/dev/null || start_s3_registry
    await distribution registry_answers "$DISTRIBUTION_REGISTRY"
    await crane-registry registry_answers "$CRANE_REGISTRY"
    await s3-registry registry_answers "$S3_REGISTRY"
}

more_registries_answer() {
    local address
    for address in "$DISTRIBUTION_REGISTRY" "$S3_REGISTRY" "$CRANE_REGISTRY"; do
        registry_answers "$address" 2>/dev/null || return 1
    done
}

start_registry() {
    say "starting the registry"
    write_registry_config registry "$REGISTRY"
    background registry docker-registry serve "$STATE/registry.yml"
}

# A registry with a password, for testing logins.
start_auth_registry() {
    say "starting a registry with a password on $AUTH_REGISTRY"
    htpasswd -Bbn "$AUTH_USER" "$AUTH_PASSWORD" | write_file "$STATE/htpasswd"
    write_registry_config auth-registry "$AUTH_REGISTRY" "$STATE/htpasswd"
    background auth-registry docker-registry serve "$STATE/auth-registry.yml"
}

# write_registry_config NAME ADDRESS [HTPASSWD_FILE]
write_registry_config() {
    local name=$1 address=$2 htpasswd=${3:-}
    {
        cat <<EOF
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $DATA/$name}
  delete: {enabled: true}
http: {addr: "$address"}
EOF
        if [[ -n $htpasswd ]]; then
            echo "auth: {htpasswd: {realm: agent-runner-ci, path: $htpasswd}}"
        fi
    } | write_file "$STATE/$name.yml"
}

start_distribution() {
    say "starting distribution $DISTRIBUTION_VERSION on $DISTRIBUTION_REGISTRY"
    write_registry_config distribution "$DISTRIBUTION_REGISTRY"
    background distribution "$DISTRIBUTION" serve "$STATE/distribution.yml"
}

start_s3_storage() {
    say "starting an S3 storage on $S3_STORAGE"
    background s3-storage "$GOFAKES3" -host "$S3_STORAGE" -backend memory \
        -initialbucket "$S3_BUCKET" -quiet
}

start_s3_registry() {
    say "starting distribution $DISTRIBUTION_VERSION with S3 on $S3_REGISTRY"
    write_file "$STATE/s3-registry.yml" <<EOF
version: 0.1
log: {level: warn}
storage:
  s3:
    # Not secret: the storage does not check them.
    accesskey: tests-only
    secretkey: tests-only
    region: us-east-1
    regionendpoint: http://$S3_STORAGE
    forcepathstyle: true
    bucket: $S3_BUCKET
  redirect: {disable: false}
  delete: {enabled: true}
http: {addr: "$S3_REGISTRY"}
EOF
    background s3-registry "$DISTRIBUTION" serve "$STATE/s3-registry.yml"
}

start_crane_registry() {
    say "starting the registry of crane on $CRANE_REGISTRY"
    mkdir -p "$DATA/crane-registry"
    background crane-registry "$CRANE" registry serve --address "$CRANE_REGISTRY" \
        --disk "$DATA/crane-registry"
}
