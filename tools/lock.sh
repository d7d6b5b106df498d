#!/bin/sh
# Rewrites requirements.lock: every dependency, development ones included, pinned with hashes, without addresses.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/v" && "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip compile -q pyproject.toml --group dev --python-version 3.11 --universal --generate-hashes \
    --no-emit-index-url --no-header --no-annotate -o requirements.lock
