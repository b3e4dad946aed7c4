#!/bin/bash
# Builds the root file system of a small browser image as a tar archive: a headless Chromium behind chromedriver, without
# the Selenium server and its Java, which take minutes to start where the processor is emulated. It also has Python, for
# the batch service of a compose stack.
# Usage: packer/disk/browser.sh OUTPUT.tar
set -euo pipefail

output=$1
partial=$output.part
here=$(cd "$(dirname "$0")" && pwd)
trap 'rm -f "$partial"' EXIT

# chromium-driver depends on the whole of Chromium; its program alone is content with the headless one.
# Graphics drivers and the compiler they bring are a third of the size; without a display nothing loads them.
# The hooks run on this machine; "$1" is the new root. What they fetch they also
# remove: mmdebstrap cleans up before them.
# shellcheck disable=SC2016
mmdebstrap \
  --variant=minbase \
  --include=chromium-headless-shell,python3,ca-certificates,fonts-dejavu-core,tini \
  --aptopt='Acquire::Retries "3"' \
  --dpkgopt='force-unsafe-io' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/lib/*/dri/*' \
  --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
  --dpkgopt='path-exclude=/usr/lib/chromium/libVkLayer_*' \
  --customize-hook='chroot "$1" sh -c "cd /tmp && apt-get download -q chromium-driver && dpkg-deb -x chromium-driver_*.deb d"' \
  --customize-hook='mv "$1/tmp/d/usr/bin/chromedriver" "$1/usr/bin/" && rm -rf "$1"/tmp/*' \
  --customize-hook="install -m 0755 '$here/chromium' \"\$1/usr/bin/chromium\"" \
  --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
  --format=tar \
  bookworm "$partial"
mv "$partial" "$output"
