#!/bin/sh
# Generates stigmer_stubs/*_pb2.py and .pyi from proto/, with protoc from the development dependency
# grpcio-tools. `generate.sh FOLDER` writes them to another folder. A test uses this to check that
# the committed files are up to date.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
exec "${PYTHON:-python}" -m grpc_tools.protoc --proto_path=proto \
    --python_out="$out" --pyi_out="$out" proto/stigmer_stubs/*.proto
