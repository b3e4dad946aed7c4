#!/bin/bash
# Bakes a release in: the newest one, installed and marked good, and the browser's image, so that the first boot has
# something to run when git, the package index or the registry cannot be reached.
set -euo pipefail

cd "$(dirname "$0")"

repository=$(bash ./setting.sh release.repository)
if [[ -z $repository ]]; then
  printf 'release.sh: release.repository is not set: no release is baked in\n'
  exit 0
fi
systemctl start docker.service
/opt/mayfly/bin/mayfly prepare
systemctl stop docker.service docker.socket
