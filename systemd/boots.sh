#!/bin/bash
# Counts boots that no power-off ended.
#
#   boots.sh begin   note this boot; power off when too many before it did not end
#   boots.sh end     at the end of the boot: forget them, when it ends with a power-off; note the time
#
# /var/lib/mayfly/boots          one line for each such boot: Unix time and boot id
# /var/lib/mayfly/boots.refused  why the machine went off at once; the next run tells it and removes it
# /var/lib/mayfly/previous       boot id and Unix time of the last end
set -euo pipefail

STATE=/var/lib/mayfly
MOST=3       # boots without an end; the next one is refused
WINDOW=21600 # seconds; what is older is no loop (a loop's turns take minutes)

main() {
  # What bash can do itself is no program: this runs before everything else of a boot, and each one holds it up.
  [[ -d $STATE ]] || install -d -m 0700 "$STATE"
  case "${1:-}" in
    begin) begin ;;
    end) end ;;
    *)
      echo "usage: boots.sh begin | end" >&2
      exit 2
      ;;
  esac
}

begin() {
  local now own lines="" count=0 time id
  printf -v now '%(%s)T' -1
  read -r own </proc/sys/kernel/random/boot_id
  if [[ -r $STATE/boots ]]; then
    while read -r time id; do
      # A clock that went back is no reason to forget; this unit may be started twice in a boot.
      if [[ $time =~ ^[0-9]{1,12}$ && $id != "$own" ]] && ((now - 10#$time < WINDOW)); then
        lines+="$time $id"$'\n'
        count=$((count + 1))
      fi
    done <"$STATE/boots"
  fi
  if ((count >= MOST)) && may_refuse; then
    refuse "$now" "$count"
    return
  fi
  keep boots "$lines$now $own"$'\n'
}

may_refuse() {
  if [[ " $(</proc/cmdline) " == *" mayfly.boots=0 "* ]]; then
    return 1
  fi
  [[ ! -e /run/mayfly/lease ]]
}

refuse() {
  local text="$2 boots in a row did not end with a power-off"
  say "$text: powering off; mayfly.boots=0 or mayfly.maintain=1h on the kernel's command line keeps it on"
  keep boots.refused "$1 $text"$'\n' || true
  # The next start, by a person or the schedule, has all its tries again.
  keep boots "" || true
  systemctl --force poweroff
}

end() {
  # A restart is not an end.
  if pending poweroff.target || pending halt.target; then
    keep boots ""
  fi
  keep previous "$(</proc/sys/kernel/random/boot_id) $(date +%s)"$'\n'
}

pending() {
  local job
  job=$(timeout 10 systemctl show --property=Job --value "$1") || return 1
  [[ -n $job && $job != 0 ]]
}

# Replace a file by a text: on the disk before this returns, and at no time anything but old or new.
keep() { # the file's name, the text
  printf '%s' "$2" >"$STATE/$1.new"
  sync "$STATE/$1.new"
  mv "$STATE/$1.new" "$STATE/$1"
  sync "$STATE"
}

say() { # into the journal and onto the console
  echo "mayfly: $1" | tee /dev/console >/dev/kmsg || echo "$1" >&2
}

main "$@"
