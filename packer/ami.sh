#!/bin/bash
# Builds the machine's image on Amazon Linux 2023, prints its id, and writes it where the deployment finds it.
# Usage: packer/ami.sh CONFIG [ARCH ...]        ARCH: x86_64 (the default), arm64
#
#   AWS_REGION       where (AWS_DEFAULT_REGION, or ap-northeast-3)
#   MAYFLY_SUBNET    a public subnet to build in, for an account without a default VPC
#   MAYFLY_PROFILE   an instance profile for the machine that builds, whose role may read the parameters of SSM with which
#                    a private repository is opened; without one no private release is baked in
#   MAYFLY_ENCRYPT   true (the default) or false
#   MAYFLY_KEEP      how many images of each processor stay, with this one (all); what a stack uses stays anyway
#   MAYFLY_KERNEL    of Amazon Linux 2023 (6.1)
set -euo pipefail

if (($# < 1)); then
  printf 'usage: packer/ami.sh CONFIG [ARCH ...]\n' >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
config=$(realpath "$1")
shift
architectures=("${@:-x86_64}")
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-ap-northeast-3}}
python=$here/../.venv/bin/python
destination=$here/../deploy/aws/ami.json
export CHECKPOINT_DISABLE=1

fail() {
  printf 'ami: %s\n' "$1" >&2
  exit 1
}

[[ -r $config ]] || fail "$config cannot be read"
"$python" "$here/ami.py" check "$region"
[[ ${MAYFLY_KEEP:-1} =~ ^[1-9][0-9]*$ ]] || fail "MAYFLY_KEEP=$MAYFLY_KEEP is no number of images, such as 3"
command -v packer >/dev/null \
  || fail "Packer is missing; install 1.9 or newer from https://developer.hashicorp.com/packer/install"
version=$(packer version | sed -n '1s/^Packer v//p')
oldest=$(printf '%s\n' 1.9.0 "$version" | sort --version-sort | head -n 1)
[[ $oldest == 1.9.0 ]] \
  || fail "Packer $version cannot require IMDSv2; install 1.9 or newer from https://developer.hashicorp.com/packer/install"
for architecture in "${architectures[@]}"; do
  [[ $architecture == x86_64 || $architecture == arm64 ]] || fail "$architecture is not x86_64 or arm64"
done
"$here/../.venv/bin/mayfly" check --config "$config" >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$("$python" -c 'import agent; print(agent.__version__)')
commit=$(git -C "$here" rev-parse --verify --quiet HEAD || printf unknown)
built=$(date --utc +%Y%m%dT%H%M%SZ)
"$here/payload.sh" "$work/payload.tar" "$config" "$version" "$commit" amazon
"$here/template.sh" "$work/template" >/dev/null
for architecture in "${architectures[@]}"; do
  packer build -color=false -only=amazon-ebs.mayfly \
    -var "payload=$work/payload.tar" -var "version=$version" -var "commit=$commit" -var "built=$built" \
    -var "region=$region" -var "arch=$architecture" -var "subnet=${MAYFLY_SUBNET:-}" \
    -var "profile=${MAYFLY_PROFILE:-}" \
    -var "encrypt=${MAYFLY_ENCRYPT:-true}" -var "manifest=$work/$architecture.json" \
    -var "kernel=${MAYFLY_KERNEL:-6.1}" \
    "$work/template" >&2
  "$python" "$here/ami.py" record "$work/$architecture.json" "$destination"
done
if [[ -n ${MAYFLY_KEEP:-} ]]; then
  "$python" "$here/ami.py" prune "$region" "$MAYFLY_KEEP"
fi
