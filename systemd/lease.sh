#!/bin/bash
# The maintenance lease: /run/mayfly/lease holds the uptime, in seconds, until which the machine stays on.
# It is gone with the boot. `mayfly maintain` writes the same file.
#
#   lease.sh kernel      grant what `mayfly.maintain=` on the kernel's command line says
#   lease.sh tag         grant what the instance tag `mayfly-maintain` says, if there is one
#   lease.sh grant TEXT  grant TEXT: "2h" or "1h30m", counted from boot, or a time as 2026-11-22T18:00Z
#   lease.sh held        succeed while a lease is held; remove one that is over
set -euo pipefail

LONGEST=86400 # seconds of uptime; no lease holds the machine beyond
LEASE=/run/mayfly/lease
TAG=http://169.254.169.254/latest

main() {
  case "${1:-}" in
    kernel) kernel ;;
    tag) tag ;;
    grant) grant "${2:?what to grant}" ;;
    held) held ;;
    *)
      echo "usage: lease.sh kernel | tag | grant TEXT | held" >&2
      exit 2
      ;;
  esac
}

kernel() {
  local word words
  read -r -a words </proc/cmdline
  for word in "${words[@]}"; do
    if [[ $word == mayfly.maintain=* ]]; then
      grant "${word#*=}"
    fi
  done
}

tag() {
  local token text
  command -v curl >/dev/null || return 0
  token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$TAG/api/token") || return 0
  text=$(ask -H "X-aws-ec2-metadata-token: $token" "$TAG/meta-data/tags/instance/mayfly-maintain") || return 0
  grant "$text"
}

ask() { # bounded: a machine without a metadata service waits for this long
  curl --silent --fail --noproxy '*' --connect-timeout 2 --max-time 3 "$@"
}

grant() {
  local until now
  until=$(seconds_of "$1") || {
    say "lease: \"$1\" is neither a duration such as 2h nor a time such as 2026-11-22T18:00Z"
    return 0
  }
  if ((until > LONGEST)); then
    until=$LONGEST
  fi
  now=$(uptime_seconds)
  if ((until <= now)); then
    say "lease: $1 is over"
    return 0
  fi
  # A longer one, such as a person's, stands.
  if [[ $(current) -lt $until ]]; then
    mkdir -p "${LEASE%/*}"
    echo "$until" >"$LEASE.new"
    mv "$LEASE.new" "$LEASE"
  fi
  say "lease: the machine stays on for $((until - now)) s"
}

# Print the uptime that a text means.
seconds_of() {
  local text=$1 at
  if [[ $text =~ ^(([0-9]{1,4})d)?(([0-9]{1,4})h)?(([0-9]{1,6})m)?(([0-9]{1,8})s)?$ && -n $text ]]; then
    echo $((10#0${BASH_REMATCH[2]} * 86400 + 10#0${BASH_REMATCH[4]} * 3600 + \
      10#0${BASH_REMATCH[6]} * 60 + 10#0${BASH_REMATCH[8]}))
  elif [[ $text =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z$ ]]; then
    at=$(date --utc --date="$text" +%s) || return 1
    echo $((at - $(date +%s) + $(uptime_seconds)))
  else
    return 1
  fi
}

held() {
  local until
  until=$(current)
  if (($(uptime_seconds) < until && $(uptime_seconds) < LONGEST)); then
    return 0
  fi
  if [[ -e $LEASE ]]; then
    rm -f "$LEASE"
    say "lease: it is over"
  fi
  return 1
}

current() { # 0 without one, or when nobody can read it
  local text=0
  if [[ -r $LEASE ]]; then
    read -r text <"$LEASE" || true
  fi
  [[ $text =~ ^[0-9]{1,9}$ ]] && echo "$((10#$text))" || echo 0
}

uptime_seconds() {
  local uptime
  read -r uptime _ </proc/uptime
  echo "${uptime%.*}"
}

say() { # into the journal and onto the console
  echo "mayfly: $1" >/dev/kmsg || echo "$1" >&2
}

main "$@"
