#!/bin/bash
# Refuses EC2's metadata service to containers, and on the machine itself to ordinary users. Root and the system's own
# users (below 1000, such as the one of EC2 Instance Connect) still reach it. Its neighbours on the same link are left
# alone: DNS at 169.254.169.253, the clock at 169.254.169.123.
#
# It can run at any time and any number of times. iptables and not nft: dockerd uses it, and of two programs with rules of
# their own the one that accepts last would not know of the other.
#
#   fence.sh           put the rules up
#   fence.sh --check   tell by the exit code whether they are
set -euo pipefail

CHAIN=MAYFLY-FENCE
WAIT_SECONDS=10
FIRST_USER=1000
LAST_USER=4294967294

main() {
  case "${1:-}" in
    "") each up ;;
    --check) each complete ;;
    *)
      echo "usage: fence.sh [--check]" >&2
      exit 2
      ;;
  esac
}

each() {
  "$1" iptables 169.254.169.254
  # A kernel without IPv6 has nothing to refuse.
  if [[ -e /proc/net/if_inet6 ]]; then
    "$1" ip6tables fd00:ec2::254
  fi
}

# What is missing, in one go: each call of iptables costs a booting machine time.
up() {
  local table=$1 address=$2 rules
  rules=$("$table" -w "$WAIT_SECONDS" -S)
  {
    printf '%s\n' '*filter' ":$CHAIN - [0:0]"
    # Refused and not dropped: who tries is told at once, instead of waiting.
    printf '%s\n' "-A $CHAIN -d $address -j REJECT"
    # dockerd makes this chain when it is missing and keeps it when it is there; what is forwarded passes it first.
    if ! has "$rules" "-N DOCKER-USER"; then
      printf '%s\n' ":DOCKER-USER - [0:0]"
    fi
    jump "$rules" DOCKER-USER
    # For networks that dockerd has not made.
    jump "$rules" FORWARD
    jump "$rules" OUTPUT "-m owner --uid-owner $FIRST_USER-$LAST_USER "
    printf 'COMMIT\n'
  } | "$table-restore" -w "$WAIT_SECONDS" --noflush
}

jump() { # the rules that are there, the chain, what must match
  local rule="$2 ${3:-}-j $CHAIN"
  if ! has "$1" "-A $rule"; then
    printf '%s\n' "-I ${rule/ / 1 }"
  fi
}

has() { [[ $'\n'$1$'\n' == *$'\n'"$2"$'\n'* ]]; }

complete() {
  local tables=("$1" -w "$WAIT_SECONDS") address=$2
  "${tables[@]}" -C "$CHAIN" -d "$address" -j REJECT
  "${tables[@]}" -C DOCKER-USER -j "$CHAIN"
  "${tables[@]}" -C FORWARD -j "$CHAIN"
  "${tables[@]}" -C OUTPUT -m owner --uid-owner "$FIRST_USER-$LAST_USER" -j "$CHAIN"
}

main "$@"
