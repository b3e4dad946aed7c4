#!/bin/bash
# Puts the fence of the metadata service up, on the kernel that the image boots: one that cannot would be noticed on the
# first machine only, whose jobs then ask for its keys. The rules are gone with the machine that builds.
set -euo pipefail

readonly FENCE=${FENCE:-/usr/lib/mayfly/fence.sh}

if ! { "$FENCE" && "$FENCE" --check; }; then
  printf 'fence.sh: the kernel %s cannot keep the metadata service from jobs; choose another base\n' "$(uname -r)" >&2
  exit 1
fi
