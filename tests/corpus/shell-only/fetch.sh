#!/bin/sh
set -eu
while read -r page; do
  curl -fsS "http://books.example/$page" -o "$MAYFLY_OUTPUT_DIR/$page"
done < sites.txt
date +%Z > "$MAYFLY_OUTPUT_DIR/zone.txt"
