#!/bin/bash
# Builds the machine's image on a Debian disk with Packer's qemu builder: disk.qcow2, vmlinuz, initrd, and the key of root's
# login. For tests and trials; Amazon's is ami.sh.
# Usage: packer/image.sh FOLDER [CONFIG]
#
#   FOLDER               new or empty, or that of an earlier build, whose files are replaced
#   CONFIG               the agent's configuration that goes into the image (packer/agent.example.toml)
#   MAYFLY_IMAGE_CACHE   where root file systems and the bare disk are kept between builds (~/.cache/mayfly-image)
#   MAYFLY_IMAGE_ACCEL   kvm where it works; tcg, the default, works everywhere
#   MAYFLY_IMAGE_NETDEV  more options of the build machine's network, such as ",guestfwd=..."
#
# Needs root, and Debian's mmdebstrap, docker.io, qemu-system-x86, qemu-utils and packer: tests/parts/install.sh.
set -euo pipefail

if (($# < 1)); then
  printf 'usage: packer/image.sh FOLDER [CONFIG]\n' >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "$1")
config=$(realpath "${2:-$here/agent.example.toml}")
cache=${MAYFLY_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mayfly-image}
export PATH=$PATH:/usr/sbin:/sbin CHECKPOINT_DISABLE=1 PACKER_CACHE_DIR=$cache/packer

say() { printf 'image: %s (at %s s)\n' "$1" "$SECONDS" >&2; }

need() {
  local program
  for program in "$@"; do
    if ! command -v "$program" >/dev/null; then
      printf 'image: %s is missing; tests/parts/install.sh installs what this needs\n' "$program" >&2
      exit 1
    fi
  done
}

# claim: mark the folder as this script's own, or refuse one with somebody's files, among which may be a key or a kernel.
claim() {
  mkdir -p "$folder"
  if [[ -e $folder/.mayfly-image ]]; then return; fi
  if [[ -n $(ls -A "$folder") ]]; then
    printf 'image: %s holds files that no build made, and nothing in it was changed; name a new or an empty folder\n' \
      "$folder" >&2
    exit 2
  fi
  : >"$folder/.mayfly-image"
}

base() {
  local browser_archive root_archive waiting key
  "$here/disk/archive.sh" "$cache" browser >"$work/browser" &
  waiting=$!
  root_archive=$("$here/disk/archive.sh" "$cache" root)
  wait "$waiting"
  browser_archive=$(cat "$work/browser")
  # What the archives are called says what is in them.
  key=$(
    cd "$here/disk"
    find files -type f -print0 | sort -z | xargs -0 sha256sum | cat - assemble.sh \
      | cat - <(printf '%s %s' "${root_archive##*/}" "${browser_archive##*/}") | sha256sum | cut -c1-12
  )
  bare=$cache/disk-$key
  if [[ -e $bare/disk.qcow2 ]]; then return; fi
  say "assembling the bare disk"
  "$here/disk/assemble.sh" "$root_archive" "$browser_archive" "$bare"
}

build() {
  local kind
  kind=$("$here/template.sh" "$work/template")
  say "Packer builds the image ($kind template)"
  packer build -color=false -only=qemu.mayfly \
    -var "payload=$work/payload.tar" -var "version=$version" -var "commit=$commit" -var "built=$built" \
    -var "disk=$bare" -var "output=$work/output" \
    -var "accelerator=${MAYFLY_IMAGE_ACCEL:-tcg}" -var "netdev=${MAYFLY_IMAGE_NETDEV:-}" \
    "$work/template" >&2
}

claim
need packer qemu-system-x86_64 qemu-img mmdebstrap dockerd docker mke2fs ssh-keygen
mkdir -p "$cache"
work=$(mktemp -d "$folder/.build.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
exec {gate}>"$cache/lock"
flock "$gate"

version=$("$here/../.venv/bin/python" -c 'import agent; print(agent.__version__)')
commit=$(git -C "$here" rev-parse --verify --quiet HEAD || printf unknown)
built=$(date --utc +%Y%m%dT%H%M%SZ)
say "packing the agent"
"$here/payload.sh" "$work/payload.tar" "$config" "$version" "$commit" debian --seed
base
build
mv "$work/output/disk.qcow2" "$folder/disk.qcow2"
cp "$bare/vmlinuz" "$bare/initrd" "$folder/"
install -m 0600 "$bare/key" "$folder/key"
say "done: $folder"
