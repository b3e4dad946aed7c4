#!/bin/bash
# Installs the agent into /opt/mayfly: its locked dependencies, then its wheel. With a seed of uv's cache no network is
# needed; the seed stays as the cache of the agent, which installs releases with it.
set -euo pipefail

cd "$(dirname "$0")"
readonly PLACE=/opt/mayfly STATE=/var/lib/mayfly
export UV_CACHE_DIR=$STATE/cache/uv UV_PROJECT_ENVIRONMENT=$PLACE UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
export UV_COMPILE_BYTECODE=1 UV_NO_PROGRESS=1

python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null \
      && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  printf 'agent.sh: Python 3.11 or newer is needed\n' >&2
  exit 1
}

# The uv of the lock file: out of the seed, where the agent's own dependency brought it, or from the package index.
bring_uv() {
  uv=$(find "$UV_CACHE_DIR" -path '*.data/scripts/uv' -print -quit 2>/dev/null || true)
  if [[ -x $uv ]]; then return; fi
  "$interpreter" -m venv uv-environment
  uv-environment/bin/python -m pip install --quiet --disable-pip-version-check "$(cat uv-version)"
  uv=$PWD/uv-environment/bin/uv
}

# A warm cache first, then the network: the order in which the agent installs releases, too.
locally_first() {
  if [[ -d ../seed ]] && "$@" --offline; then return; fi
  "$@"
}

interpreter=$(python)
install -d -m 0700 "$STATE" "$STATE/cache"
if [[ -d seed/cache ]]; then
  mv seed/cache "$UV_CACHE_DIR"
  chown -R root:root "$UV_CACHE_DIR"
fi
bring_uv
cd project
locally_first "$uv" sync --quiet --frozen --no-dev --no-install-project --python "$interpreter"
"$uv" pip install --quiet --offline --no-deps --python "$PLACE/bin/python" ./*.whl
"$PLACE/bin/mayfly" --version
