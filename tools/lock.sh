#!/usr/bin/env bash
# Renews the lock files: versions and hashes, no host names. Needs uv on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
options=(--generate-hashes --no-emit-index-url --no-header --python-version 3.11)
uv pip compile pyproject.toml --extra agent --extra dev "${options[@]}" -o requirements.lock
uv pip compile requirements-build.in --allow-unsafe -c requirements.lock "${options[@]}" -o requirements-build.lock
uv pip compile requirements-mutants.in -c requirements.lock "${options[@]}" -o requirements-mutants.lock
uv pip compile requirements-docs.in -c requirements.lock "${options[@]}" -o requirements-docs.lock
if grep -nE 'https?://' requirements*.lock; then
  echo "a lock file names a host: see the lines above" >&2
  exit 1
fi
