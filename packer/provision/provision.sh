#!/bin/bash
# Makes a machine of ours out of a plain one. Runs as root on the machine that becomes the image.
# Usage: provision.sh amazon|debian
#
# Next to it are the parts of payload.sh's archive: the agent's wheel and lock, systemd/, the configuration, perhaps a seed
# of uv's cache. Everything but the package step is the same on both systems.
set -euo pipefail

cd "$(dirname "$0")"
readonly SYSTEM=$1
began=$SECONDS

step() {
  printf '== %s (at %s s)\n' "$1" "$((SECONDS - began))"
  bash "$@"
}

step "./packages-$SYSTEM.sh"
step ./agent.sh
step ./system.sh
step ./fence.sh
step ./login.sh "$SYSTEM"
step ./kernel.sh
step ./release.sh
step ./clean.sh "$SYSTEM"
printf '== provisioned in %s s\n' "$((SECONDS - began))"
