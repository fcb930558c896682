#!/usr/bin/env bash
# Makes this checkout ready for `make test` and `make demo`. Idempotent; says what it does; installs nothing twice.
#   1. Debian packages (as root or by sudo; otherwise prints the one line to run)
#   2. .venv from the hash-pinned lock files
#   3. control plane, helm, kubeconform and cyclonus from Go modules, into a cache outside the tree
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  softhsm2 opensc            # PKCS#11 tokens in software, and pkcs11-tool
  swtpm swtpm-tools tpm2-tools # TPM 2.0 in software, and its tools
  python3-venv python3-dev   # .venv; headers for the one package that has no wheel, tpm2-pytss ...
  libtss2-dev pkg-config gcc libc6-dev # ... which is compiled against the TPM software stack
  openssl procps iproute2 ca-certificates
  systemd util-linux         # systemd-analyze, -sysusers and -tmpfiles judge packaging/; a mount namespace for a test
  shellcheck
)

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    say "this is no Debian: install the counterparts of: ${missing[*]}, then run this again"
    exit 1
  elif [ "$(id -u)" = 0 ]; then
    say "installing Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  elif sudo -n true 2>/dev/null; then
    say "installing Debian packages by sudo: ${missing[*]}"
    sudo apt-get update -qq
    sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "Debian packages are missing and I may not install them. Run this, then try again:"
    echo "    sudo sh -c '$command'"
    exit 1
  fi
fi

python=""
for candidate in python3.11 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 is needed; found $(python3 --version 2>&1). Install python3.11 and python3.11-venv"
  exit 1
fi
# The newest Go that one of the modules asks for; Debian 12's own is too old to read their files.
go_wanted=$(awk '$1 == "go" { print $2 }' tools/control_plane/modules/*/go.mod | sort -V | tail -n1)
go_found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//') || true
if [ -z "$go_found" ] || [ "$(printf '%s\n' "$go_wanted" "$go_found" | sort -V | head -n1)" != "$go_wanted" ]; then
  say "Go $go_wanted or newer is needed to build the control plane; found: ${go_found:-none}. Install it and put it on PATH"
  exit 1
fi

wanted=$(cat requirements-build.lock requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.complete 2>/dev/null)" != "$wanted" ]; then
  say "making .venv from requirements.lock (about a minute the first time)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/pip install --quiet --require-hashes -r requirements-build.lock
  .venv/bin/pip install --quiet --require-hashes --no-build-isolation -r requirements.lock
  .venv/bin/pip install --quiet --no-build-isolation --no-deps --editable .
  echo "$wanted" >.venv/.complete
fi

.venv/bin/python tools/control_plane/build.py
say "ready"
