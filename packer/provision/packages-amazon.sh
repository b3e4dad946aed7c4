#!/bin/bash
# The package step on Amazon Linux 2023.
set -euo pipefail

# Its /usr/bin/python3 is 3.9 and belongs to dnf; the agent has its own beside it.
dnf --assumeyes --quiet install python3.13 python3.13-pip docker git iptables-nft tar gzip

# The compose plugin is not in Amazon's repositories. Checksums: the release's own, as in docker-library's
# Dockerfiles (https://github.com/docker-library/docker/blob/master/28/cli/Dockerfile).
readonly VERSION=2.40.3 FOLDER=/usr/libexec/docker/cli-plugins
architecture=$(uname -m)
case $architecture in
  x86_64) checksum=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372 ;;
  aarch64) checksum=d26373b19e89160546d15407516cc59f453030d9bc5b43ba7faf16f7b4980137 ;;
  *)
    printf 'packages-amazon.sh: no compose plugin for %s\n' "$architecture" >&2
    exit 1
    ;;
esac
mkdir -p "$FOLDER"
curl --fail --silent --show-error --location --retry 3 --max-time 300 \
  --output "$FOLDER/docker-compose.part" \
  "https://github.com/docker/compose/releases/download/v$VERSION/docker-compose-linux-$architecture"
printf '%s  %s\n' "$checksum" "$FOLDER/docker-compose.part" | sha256sum --check --quiet
chmod 0755 "$FOLDER/docker-compose.part"
mv "$FOLDER/docker-compose.part" "$FOLDER/docker-compose"

systemctl enable docker.service
