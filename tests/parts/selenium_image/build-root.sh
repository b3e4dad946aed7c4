#!/bin/bash
# Builds the root file system of the stand-in Selenium image as a tar archive.
# Usage: build-root.sh OUTPUT.tar
# Root uses chroot; anyone else needs unprivileged user namespaces. mmdebstrap picks by itself.
set -euo pipefail

output=$1
partial=$output.part
trap 'rm -f "$partial"' EXIT

# Documentation and translations are thousands of small files that no test reads. The folder of manuals stays: the
# Java runtime's installation fails without it.
# unsafe-io: a root that is thrown away when it is incomplete needs no fsync for every file.
mmdebstrap \
  --variant=minbase \
  --include=chromium,chromium-driver,openjdk-17-jre-headless,ca-certificates,fonts-liberation,curl,tini \
  --aptopt='Acquire::Retries "3"' \
  --dpkgopt='force-unsafe-io' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --format=tar \
  bookworm "$partial"
mv "$partial" "$output"
