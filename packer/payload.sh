#!/bin/bash
# Packs what provisioning needs of this checkout into one archive.
# Usage: packer/payload.sh OUTPUT.tar CONFIG VERSION COMMIT KIND [--seed]
#
# With --seed it holds the contents of uv's cache for the agent's and the scrapers' locks, and uv itself, so that the machine
# needs no network. They fit this machine's processor, and Python 3.11 as the Debian disk has it.
set -euo pipefail

readonly OUTPUT=$1 CONFIG=$2 VERSION=$3 COMMIT=$4 KIND=$5 SEED=${6:-}
root=$(cd "$(dirname "$0")/.." && pwd)
uv=$root/.venv/bin/uv
work=$(mktemp -d "$OUTPUT.XXXXXX")
trap 'rm -rf "$work"' EXIT

readonly PYTHON=3.11
place=$work/mayfly
mkdir -p "$place/config" "$place/project"
cp "$root"/packer/provision/*.sh "$place/"
cp -R "$root/systemd" "$place/systemd"
cp "$root/pyproject.toml" "$root/uv.lock" "$place/project/"
install -m 0600 "$CONFIG" "$place/config/agent.toml"
# Who may sign releases lies beside the configuration.
signers=$(dirname "$CONFIG")/allowed_signers
if [[ -e $signers ]]; then
  install -m 0600 "$signers" "$place/config/allowed_signers"
fi
"$uv" build --quiet --wheel --out-dir "$place/project" "$root"
rm -f "$place/project/.gitignore"
sed -n '/^name = "uv"$/{n;s/version = "\(.*\)"/uv==\1/p;q}' "$root/uv.lock" >"$place/uv-version"
cat >"$place/release" <<END
NAME=Mayfly
VERSION=$VERSION
COMMIT=$COMMIT
KIND=$KIND
BUILT=$(date --utc +%Y-%m-%dT%H:%M:%SZ)
END

# The environments are thrown away; what they leave in the cache is the seed.
sow() {
  UV_CACHE_DIR=$place/seed/cache UV_PROJECT_ENVIRONMENT=$work/environment UV_LINK_MODE=symlink \
    "$uv" sync --quiet --frozen --no-dev --no-install-project --python "$PYTHON" --project "$1"
  rm -rf "$work/environment"
}

if [[ $SEED == --seed ]]; then
  sow "$root"
  sow "$root/scrapers"
fi
tar -C "$work" --owner 0 --group 0 --numeric-owner -cf "$OUTPUT.part" mayfly
mv "$OUTPUT.part" "$OUTPUT"
