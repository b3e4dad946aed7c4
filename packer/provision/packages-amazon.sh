#!/bin/bash
# The package step on Amazon Linux 2023.
set -euo pipefail

# Its /usr/bin/python3 is 3.9 and belongs to dnf; the agent has its own beside it.
dnf --assumeyes --quiet install python3.13 python3.13-pip docker git iptables-nft tar gzip

# The compose plugin is not in Amazon's repositories, and its docker comes with buildx 0.12, while this compose builds with
# 0.17 or later (amazonlinux/amazon-linux-2023 issue 1032). Docker prefers this folder to its package's own.
# Checksums as docker-library has them, each at the commit that brought the version:
# https://github.com/docker-library/docker/blob/319e58aa0299128924649f0745054a1b8732545a/29/cli/Dockerfile (compose)
# https://github.com/docker-library/docker/blob/75cad4ca2d789f48787f3c109c80aab966156006/29/cli/Dockerfile (buildx)
readonly COMPOSE=2.40.3 BUILDX=0.36.1 FOLDER=${ROOT:-}/usr/local/libexec/docker/cli-plugins
readonly RELEASES=https://github.com/docker
architecture=$(uname -m)
case $architecture in
  x86_64)
    name=amd64
    compose_checksum=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372
    buildx_checksum=48af8a397ebd60178778bf63611dbcebe5f5e7a9be90eb9147b24b9587455778
    ;;
  aarch64)
    name=arm64
    compose_checksum=d26373b19e89160546d15407516cc59f453030d9bc5b43ba7faf16f7b4980137
    buildx_checksum=5d0cafd9d16afe1a0f0d9529885344ace2cc99efdd531b6c783c5455a6001569
    ;;
  *)
    printf 'packages-amazon.sh: no plugins for %s\n' "$architecture" >&2
    exit 1
    ;;
esac

plugin() { # NAME VERSION CHECKSUM FILE
  local part=$FOLDER/docker-$1.part
  curl --fail --silent --show-error --location --retry 3 --max-time 300 --output "$part" \
    "$RELEASES/$1/releases/download/v$2/$4"
  printf '%s  %s\n' "$3" "$part" | sha256sum --check --quiet
  chmod 0755 "$part"
  mv "$part" "$FOLDER/docker-$1"
  if [[ $(docker "$1" version) != *"v$2"* ]]; then
    printf 'packages-amazon.sh: docker does not use %s %s\n' "$1" "$2" >&2
    exit 1
  fi
}

mkdir -p "$FOLDER"
plugin compose "$COMPOSE" "$compose_checksum" "docker-compose-linux-$architecture"
plugin buildx "$BUILDX" "$buildx_checksum" "buildx-v$BUILDX.linux-$name"

systemctl enable docker.socket
