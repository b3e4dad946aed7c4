#!/bin/bash
# Nothing but the jobs, all at once; the browser is up and the code is there.
set -euo pipefail

for job in shop timeline digest api poll; do
  MAYFLY_OUTPUT_DIR=$PWD/output/$job python3 "$SCRAPERS/work.py" "$job" &
  pids+=($!)
done
for pid in "${pids[@]}"; do
  wait "$pid"
done
