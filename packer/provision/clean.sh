#!/bin/bash
# Leaves nothing on the image that belongs to one machine or to its making: keys, ids, logs, cloud-init's memory.
# Usage: clean.sh amazon|debian
set -euo pipefail

readonly SYSTEM=$1

if command -v cloud-init >/dev/null; then
  cloud-init clean --logs --seed
fi
if [[ $SYSTEM == amazon ]]; then
  dnf --quiet clean all
  # Packer's temporary key: login is cloud-init's to allow, and nobody's in the end. The connection that runs this stays.
  rm -f /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys
fi
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -f /root/.bash_history /home/*/.bash_history
rm -rf /var/log/journal/* /var/lib/systemd/random-seed /var/lib/dhcp/* /var/lib/amazon/ssm/*
rm -rf /var/lib/docker/network /var/lib/mayfly/spool /var/lib/mayfly/lock
find /var/log -type f -exec truncate --size 0 {} +
find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -name 'mayfly*' -exec rm -rf {} +
# Empty, not absent: systemd makes a new id at the first boot, and does not take it for a first boot of a factory reset.
truncate --size 0 /etc/machine-id
# This folder last; the shell that reads this script has it open.
rm -rf "$(dirname "$(readlink -f "$0")")" /tmp/mayfly.tar
sync
