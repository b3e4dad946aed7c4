#!/bin/bash
# Powers off when there is nothing to stay on for: no lease, and no run under way or queued.
# Its failure powers off as well (FailureAction=).
set -euo pipefail

if /usr/lib/mayfly/lease.sh held; then
  exit 0
fi
# "active", "activating" and "deactivating" are runs under way; a job number is a run that will begin.
state=$(timeout 10 systemctl show --property=ActiveState --value mayfly.service)
job=$(timeout 10 systemctl show --property=Job --value mayfly.service)
case "$state" in
  active | activating | deactivating | reloading) exit 0 ;;
esac
if [[ -n $job && $job != 0 ]]; then
  exit 0
fi
echo "mayfly: no run and no lease, powering off" >/dev/kmsg || true
timeout 10 systemctl --no-block start mayfly-off.service
