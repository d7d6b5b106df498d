#!/bin/sh
# Makes .venv from requirements.lock, and installs the Debian packages in $APT that are missing (as root).
set -eu
# shellcheck disable=SC2086
sh tools/debian.sh $APT
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/pip" install -qq --disable-pip-version-check --require-hashes -r requirements.lock
"$VENV/bin/pip" install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
