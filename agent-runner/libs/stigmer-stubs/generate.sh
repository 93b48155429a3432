#!/bin/sh
# Generates stigmer_stubs/*_pb2.py and .pyi from proto/, with the protoc of the dev dependency
# grpcio-tools. `generate.sh FOLDER` writes them there instead; a test compares the two.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
exec "${PYTHON:-python}" -m grpc_tools.protoc --proto_path=proto \
    --python_out="$out" --pyi_out="$out" proto/stigmer_stubs/*.proto
