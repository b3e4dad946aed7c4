#!/bin/bash
# Writes the template into a new folder as the installed Packer understands it, fetches the plugins where Packer has plugins,
# and prints "modern" or "old".
# Usage: packer/template.sh FOLDER [old]
set -euo pipefail

readonly FOLDER=$1
here=$(cd "$(dirname "$0")" && pwd)

kind=${2:-}
if [[ -z $kind ]]; then
  version=$(packer version | sed -n '1s/^Packer v//p')
  oldest=$(printf '%s\n' 1.9.0 "$version" | sort --version-sort | head -n 1)
  if [[ $oldest == 1.9.0 ]]; then kind=modern; else kind=old; fi
fi

mkdir "$FOLDER"
if [[ $kind == old ]]; then
  sed '/^ *# modern$/,/^ *# end modern$/d' "$here/mayfly.pkr.hcl" >"$FOLDER/mayfly.pkr.hcl"
else
  cp "$here"/*.pkr.hcl "$FOLDER/"
  packer init "$FOLDER" >&2
fi
printf '%s\n' "$kind"
