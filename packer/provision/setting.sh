#!/bin/bash
# Prints what the machine's configuration says of keys, as the agent reads it, a line for each: a duration in seconds, nothing
# where it says nothing. TOML has several ways to write each key, and the agent several for a duration.
# Usage: setting.sh SECTION.KEY...          'registry.*' is all that the section has
set -euo pipefail

readonly PROGRAMS=${PROGRAMS:-/opt/mayfly/bin}

"$PROGRAMS/mayfly" check --json --explain | "$PROGRAMS/python" -c '
import json
import sys
from fnmatch import fnmatchcase

rows = json.load(sys.stdin)["settings"]
for key in sys.argv[1:]:
    found = [row for row in rows if fnmatchcase(row["key"], key)]
    if not found and "*" not in key:
        sys.exit(f"there is no setting {key}")
    for row in found:
        if row["source"] != "default":
            print(row["value"])
' "$@"
