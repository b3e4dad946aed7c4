#!/bin/bash
# The dead-man: switches the power off, unless a maintenance lease is held. Started at the deadline and then
# again and again. Exit 0 means that a lease is held; in every other case it does not return.
#
# Nothing here needs a disk, a network or another program, but for the two calls of systemctl, which may fail.
set -uo pipefail

LONGEST=86400 # seconds of uptime; no lease holds the machine beyond
LEASE=/run/mayfly/lease
PATIENCE=${1:-60} # seconds that each step gets

main() {
  local uptime until
  read -r uptime _ </proc/uptime
  uptime=${uptime%.*}
  until=$(held)
  if ((uptime < until && uptime < LONGEST)); then
    exit 0
  fi
  say "dead-man: uptime is ${uptime} s, powering off"

  # 1. PID 1 leaves everything as it is, kills, unmounts and switches off.
  timeout --kill-after=1 20 systemctl --no-block --force poweroff
  pause "$PATIENCE"
  # 2. systemctl does it itself, by reboot(2).
  say "dead-man: still on, powering off at once"
  timeout --kill-after=1 20 systemctl --force --force poweroff &
  pause "$PATIENCE"
  # 3. The kernel does it, whatever user space thinks.
  say "dead-man: still on, asking the kernel"
  while :; do
    echo 1 >/proc/sys/kernel/sysrq
    echo o >/proc/sysrq-trigger
    pause 10
  done
}

# Print the uptime until which a lease holds; 0 without one, or when nobody can read it.
held() {
  local text=0
  [[ -r $LEASE ]] && read -r text <"$LEASE"
  [[ $text =~ ^[0-9]{1,9}$ ]] && echo "$((10#$text))" || echo 0
}

pause() { # without a process: sleep(1) may be gone or may not start
  read -r -t "$1" <> <(:) || true
}

say() {
  echo "$1" >/dev/kmsg || true
} 2>/dev/null

# The @ in front of the name keeps the last shutdown stage of systemd from killing it
# (systemd.io/ROOT_STORAGE_DAEMONS), so that the steps follow even when that stage hangs.
if [[ ${MAYFLY_DEADMAN:-} != last ]]; then
  MAYFLY_DEADMAN=last exec -a @mayfly-deadman bash "$0" "$@"
fi
main
