#!/bin/bash
# The kernel's command line. A panic before the disk is there, when no sysctl has been read, must not hang for ever, nor
# must an initial file system that finds no disk: dracut's would wait at a prompt that nobody sees. The first restarts, the
# second powers off.
set -euo pipefail

readonly WORDS="panic=10 rd.emergency=poweroff rd.shell=0"

# Without grubby there is no boot loader to tell: the Debian disk's kernel is started directly, and who starts it gives
# the words (docs/image.md).
if ! command -v grubby >/dev/null; then
  printf 'kernel.sh: no boot loader here; give the kernel %s\n' "${WORDS%% *}"
  exit 0
fi
grubby --update-kernel=ALL --args="$WORDS"
# An image without them would not be noticed before the day that needs them.
said=$(grubby --info=DEFAULT)
for word in $WORDS; do
  if ! grep -Eq "^args=\"(.* )?$word( .*)?\"$" <<<"$said"; then
    printf 'kernel.sh: grubby did not take %s:\n%s\n' "$word" "$said" >&2
    exit 1
  fi
done
