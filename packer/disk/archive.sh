#!/bin/bash
# Prints the path of a root file system as a tar archive, which is made when there is none of its recipe yet. Whoever builds
# disks takes it from the same folder; of two who want it at once one makes it, and the other waits.
# Usage: packer/disk/archive.sh FOLDER NAME [PACKAGE ...]
#
#   NAME      what is made, by NAME.sh beside this: root or browser
#   PACKAGE   what it has besides, where NAME.sh takes any
set -euo pipefail

folder=$1
name=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

recipe=("$here/$name.sh")
if [[ $name == browser ]]; then recipe+=("$here/chromium"); fi
key=$(cat "${recipe[@]}" - <<<"$*" | sha256sum | cut -c1-12)
file=$folder/$name-$key.tar

mkdir -p "$folder"
exec {gate}>"$folder/$name.lock"
flock "$gate"
if [[ ! -e $file ]]; then
  printf 'archive: making the %s file system\n' "$name" >&2
  "$here/$name.sh" "$file" "$@" {gate}>&- >&2
fi
printf '%s\n' "$file"
