#!/bin/sh
# Generates hasys/v1 from proto/hasys/v1. With --check: generates elsewhere and compares.
set -eu
bin=${VENV:-.venv}/bin
generate() {  # $1: folder that holds the package root
    "$bin/python" -m grpc_tools.protoc -Iproto --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" \
        --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
        --python_out="$1" --mypy_out=quiet:"$1" proto/hasys/v1/*.proto
    "$bin/python" -m grpc_tools.protoc -Iproto --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
        --grpc_python_out="$1" --mypy_grpc_out=quiet:"$1" proto/hasys/v1/api.proto
}
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
    generate "$out"; touch "$out/hasys/v1/__init__.py"
    diff -r -q -x __pycache__ "$out/hasys/v1" hasys/v1 || { echo "hasys/v1 is stale: run 'make proto'" >&2; exit 1; }
else
    generate .
fi
