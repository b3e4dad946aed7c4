#!/bin/bash
# The package step on the Debian disk: packer/disk/root.sh put everything there, so this needs no network.
set -euo pipefail

missing=()
for program in python3 git docker iptables curl; do
  command -v "$program" >/dev/null || missing+=("$program")
done
docker compose version >/dev/null 2>&1 || missing+=("docker compose")
if ((${#missing[@]})); then
  printf 'packages-debian.sh: the disk lacks %s; add it to packer/disk/root.sh\n' "${missing[*]}" >&2
  exit 1
fi
# Enabling goes through Debian's old-style scripts and takes seconds, even when there is nothing to do.
systemctl is-enabled --quiet docker.socket || systemctl enable --quiet docker.socket
