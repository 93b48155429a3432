#!/bin/sh
# Runs a command that downloads packages: `fetch.sh pip install …`.
# Behind a proxy with a CA of its own, the build secret `ca` is the bundle to trust; the build
# argument PIP_INDEX_URL is a mirror of PyPI. Neither is in any layer of the image.
set -eu
if [ -s /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
if [ -n "${PIP_INDEX_URL:-}" ]; then
    export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
else
    unset PIP_INDEX_URL
fi
exec "$@"
