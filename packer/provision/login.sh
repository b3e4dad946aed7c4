#!/bin/bash
# Nobody logs in: no port is open at Amazon. Its session manager (SSM), where a role allows it, reaches a machine that a
# maintenance lease keeps up. The Debian disk is for tests and trials, with a login by the key that lies beside it.
# Usage: login.sh amazon|debian        ROOT: the system's folder, for tests
set -euo pipefail

readonly SYSTEM=$1 ROOT=${ROOT:-}

if [[ $SYSTEM != amazon ]]; then exit 0; fi
# Disabled is not enough: cloud-init.service wants sshd by its name. The connection that runs this stays.
for unit in sshd.service sshd.socket; do
  ln -sfn /dev/null "$ROOT/etc/systemd/system/$unit"
  state=$(systemctl ${ROOT:+--root="$ROOT"} is-enabled "$unit") || true
  if [[ $state != masked ]]; then
    printf 'login.sh: %s is %s\n' "$unit" "$state" >&2
    exit 1
  fi
done
