#!/bin/bash
# Installs the machine's units: everything in this folder, by kind, and enables what has an [Install] section.
#
#   install.sh [--root DIR] [--limit DURATION]
#
#   --root DIR         into a tree that is not running, such as an image that is being built
#   --limit DURATION   for a limits.run above 2h, such as 5h: moves RuntimeMaxSec= of the run and the dead-man's
#                      deadline with it (a quarter of an hour and an hour above), by drop-ins in /etc/systemd/system
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=""
LIMIT=""

main() {
  while (($# > 0)); do
    case "$1" in
      --root) ROOT=${2:?--root needs a folder} && shift 2 ;;
      --limit) LIMIT=${2:?--limit needs a duration} && shift 2 ;;
      *)
        echo "usage: install.sh [--root DIR] [--limit DURATION]" >&2
        exit 2
        ;;
    esac
  done
  ROOT=${ROOT%/}
  files
  if [[ -n $LIMIT ]]; then
    limit
  fi
  labels
  enable
}

files() {
  local unit dropin script folder
  local units=$ROOT/usr/lib/systemd/system
  install -d -m 0755 "$units" "$ROOT/usr/lib/mayfly" "$ROOT/usr/lib/sysctl.d" \
    "$ROOT/usr/lib/systemd/system.conf.d"
  install -d -m 0700 "$ROOT/etc/mayfly" "$ROOT/var/lib/mayfly"
  for unit in "$HERE"/*.service "$HERE"/*.timer "$HERE"/*.slice "$HERE"/*.socket "$HERE"/*.target "$HERE"/*.path; do
    if [[ -f $unit ]]; then
      install -m 0644 "$unit" "$units/"
    fi
  done
  for dropin in "$HERE"/*.d/*.conf; do
    folder=$units/$(basename "$(dirname "$dropin")")
    install -d -m 0755 "$folder"
    install -m 0644 "$dropin" "$folder/"
  done
  for script in "$HERE"/*.sh; do
    if [[ ${script##*/} != install.sh ]]; then
      install -m 0755 "$script" "$ROOT/usr/lib/mayfly/"
    fi
  done
  install -m 0644 "$HERE/sysctl.conf" "$ROOT/usr/lib/sysctl.d/60-mayfly.conf"
  install -m 0644 "$HERE/manager.conf" "$ROOT/usr/lib/systemd/system.conf.d/60-mayfly.conf"
}

limit() {
  local etc=$ROOT/etc/systemd/system
  if [[ ! $LIMIT =~ ^([0-9]+[dhms])+$ ]]; then
    echo "install.sh: \"$LIMIT\" is not a duration; write for example 5h or 90m" >&2
    exit 2
  fi
  install -d -m 0755 "$etc/mayfly.service.d" "$etc/mayfly-deadman.timer.d"
  printf '[Service]\nRuntimeMaxSec=%s 15min\n' "$LIMIT" >"$etc/mayfly.service.d/limit.conf"
  # The empty line removes the deadline that the unit has.
  printf '[Timer]\nOnBootSec=\nOnBootSec=%s 1h\nOnUnitInactiveSec=1min\n' "$LIMIT" \
    >"$etc/mayfly-deadman.timer.d/limit.conf"
}

labels() { # where SELinux is in use
  if [[ -z $ROOT ]] && command -v restorecon >/dev/null; then
    restorecon -R /usr/lib/mayfly /usr/lib/systemd /usr/lib/sysctl.d /etc/mayfly /var/lib/mayfly
  fi
}

enable() {
  local unit names=()
  for unit in "$HERE"/*.service "$HERE"/*.timer "$HERE"/*.slice "$HERE"/*.socket "$HERE"/*.path; do
    if [[ -f $unit ]] && grep -q '^\[Install\]' "$unit"; then
      names+=("${unit##*/}")
    fi
  done
  if [[ -n $ROOT ]]; then
    systemctl --quiet --root="$ROOT" enable "${names[@]}"
    return
  fi
  systemctl --quiet enable "${names[@]}"
  if [[ -d /run/systemd/system ]]; then
    systemctl daemon-reload
  fi
}

main "$@"
