#!/bin/sh
# Runs a command that downloads packages: `fetch.sh pip install …`.
# The build secret `ca` is a CA bundle to trust, for a proxy with its own CA. The build argument
# PIP_INDEX_URL is the URL of a mirror of PyPI. Neither is stored in a layer of the image.
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
