#!/bin/bash
# Prints what the machine's configuration says of a key, as the agent reads it: a duration in seconds, nothing where it says
# nothing. TOML has several ways to write each key, and the agent several for a duration.
# Usage: setting.sh SECTION.KEY
set -euo pipefail

readonly PROGRAMS=${PROGRAMS:-/opt/mayfly/bin}

"$PROGRAMS/mayfly" check --json --explain | "$PROGRAMS/python" -c '
import json
import sys

(row,) = [row for row in json.load(sys.stdin)["settings"] if row["key"] == sys.argv[1]]
if row["source"] != "default":
    print(row["value"])
' "$1"
