#!/bin/bash
# Builds the root file system of the Debian disk, on which `make image` builds, as a tar archive.
# Usage: packer/disk/root.sh OUTPUT.tar [PACKAGE ...]
set -euo pipefail

output=$1
shift
partial=$output.part
compose=$(mktemp -d)
trap 'rm -rf "$partial" "$compose"' EXIT

readonly PACKAGES=(
  # a machine that boots, has a network and a clock, and lets Packer in
  systemd systemd-sysv systemd-timesyncd udev dbus libpam-systemd kmod linux-image-cloud-amd64 initramfs-tools
  iproute2 openssh-server apparmor
  # what the agent and its jobs need; packages-debian.sh looks whether it is there
  python3 python3-venv git docker.io iptables ca-certificates curl
  # what a person looks for first
  e2fsprogs less procps tzdata util-linux
  "$@"
)

# Debian 12 has no compose plugin. It is taken out of Debian 13's package, which runs with the libraries of 12.
readonly PLUGINS=/usr/libexec/docker/cli-plugins
mmdebstrap --quiet --variant=extract --include=docker-compose --aptopt='Acquire::Retries "3"' trixie "$compose/root"

include=$(IFS=,; printf '%s' "${PACKAGES[*]}")
# Documentation and translations are thousands of small files that nothing reads.
# unsafe-io: a root that is thrown away when it is incomplete needs no fsync for every file.
mmdebstrap \
  --variant=minbase \
  --include="$include" \
  --aptopt='Acquire::Retries "3"' \
  --dpkgopt='force-unsafe-io' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook="mkdir -p \"\$1$PLUGINS\"" \
  --customize-hook="copy-in $compose/root$PLUGINS/docker-compose $PLUGINS" \
  --format=tar \
  bookworm "$partial"
mv "$partial" "$output"
