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
# Of a private repository, registry or index the credentials are in SSM, which only a role may read.
private=$(bash ./setting.sh release.credentials 'registry.*' 'index.*')
if [[ $private == *ssm:* && -z ${MAYFLY_PROFILE:-} ]]; then
  printf 'release.sh: no release is baked in: credentials are in SSM, and this machine has no role; give one with MAYFLY_PROFILE\n'
  exit 0
fi
systemctl start docker.service
/opt/mayfly/bin/mayfly prepare
systemctl stop docker.service docker.socket
