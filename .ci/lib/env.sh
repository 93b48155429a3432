# shellcheck shell=bash
# Writes the settings for the end-to-end tests to a file to source.

ENV_FILE=$STATE/env
# Build steps use the host's network and its CA bundle. Behind a proxy with its own CA, they could
# not reach PyPI otherwise.
CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

write_env() {
    {
        cat <<EOF
export XTASK_E2E_REQUIRE="docker docker-containerd podman podman-rootless"
export XTASK_E2E_DOCKER_CONTAINERD_HOST=unix://$DOCKER_CONTAINERD_SOCKET
export XTASK_E2E_ROOTLESS_USER=$ROOTLESS_USER
export XTASK_E2E_ROOTLESS_RUNTIME_DIR=$ROOTLESS_RUNTIME_DIR
export XTASK_E2E_REGISTRY=$REGISTRY
export XTASK_E2E_AUTH_REGISTRY=$AUTH_REGISTRY
export XTASK_E2E_AUTH_USER=$AUTH_USER
export XTASK_E2E_AUTH_PASSWORD=$AUTH_PASSWORD
export XTASK_BUILD_BASE_IMAGE=$BASE_REPOSITORY:3.11-slim
export XTASK_E2E_DEBIANS_BASE=$BASE_REPOSITORY:3.11-slim-debian
export XTASK_BUILD_NETWORK=host
export XTASK_BUILD_SECRETS=id=ca,src=$CA_BUNDLE
EOF
        if [[ -x $TEMPORAL ]]; then
            echo "export XTASK_E2E_TEMPORAL=$TEMPORAL"
            echo "export XTASK_STACK_TEMPORAL_IMAGE=$TEMPORAL_IMAGE"
        fi
        if [[ -x $COSIGN ]]; then
            echo "export XTASK_E2E_COSIGN=$COSIGN"
        fi
        if [[ -x $COSIGN3 ]]; then
            echo "export XTASK_E2E_COSIGN3=$COSIGN3"
        fi
        if [[ -x $COMPOSE ]]; then
            echo "export XTASK_E2E_COMPOSE=$COMPOSE"
        fi
        if [[ -x $QUADLET ]]; then
            echo "export XTASK_E2E_QUADLET=$QUADLET"
        fi
        if [[ -x $DECODER ]]; then
            echo "export XTASK_E2E_DECODE_MANIFESTS=$DECODER"
        fi
        if [[ -x $FULCIO && -x $REKOR && -x $TIMESTAMP_SERVER ]]; then
            echo "export XTASK_E2E_FULCIO=$FULCIO"
            echo "export XTASK_E2E_REKOR=$REKOR"
            echo "export XTASK_E2E_TIMESTAMP_SERVER=$TIMESTAMP_SERVER"
        fi
        if more_registries_answer; then
            echo "export XTASK_E2E_DISTRIBUTION_REGISTRY=$DISTRIBUTION_REGISTRY"
            echo "export XTASK_E2E_S3_REGISTRY=$S3_REGISTRY"
            echo "export XTASK_E2E_CRANE_REGISTRY=$CRANE_REGISTRY"
            echo "export XTASK_E2E_CRANE=$CRANE"
            echo "export XTASK_E2E_REGCTL=$REGCTL"
            echo "export XTASK_E2E_ORAS=$ORAS"
        fi
        if ages_answer; then
            echo "export XTASK_E2E_REQUIRE=\"\$XTASK_E2E_REQUIRE ${AGES_NAMES[*]}\""
            echo "export XTASK_E2E_AGES=$AGES"
        fi
        if has_buildkit_image && buildkit_answers amd64 && buildkit_answers arm64; then
            echo "export XTASK_E2E_BUILDKIT_AMD64=$(buildkit_address amd64)"
            echo "export XTASK_E2E_BUILDKIT_ARM64=$(buildkit_address arm64)"
            echo "export XTASK_E2E_BUILDKIT_IMAGE=$BUILDKIT_IMAGE"
        fi
    } | write_file "$ENV_FILE"
}
