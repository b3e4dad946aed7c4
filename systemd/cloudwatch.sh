#!/bin/bash
# Puts what the machine's own units said in this boot into CloudWatch. The instance tag `mayfly-log` names the group; without
# it, or where it is `-`, nothing is done. The stream is the machine's id.
set -euo pipefail

METADATA=${METADATA:-http://169.254.169.254}/latest
PYTHON=${PYTHON:-/opt/mayfly/bin/python}

ask() { # bounded: a machine without a metadata service waits for this long
  curl --silent --fail --noproxy '*' --connect-timeout 2 --max-time 3 "$@"
}

said() {
  ask -H "X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/$1"
}

token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") || exit 0
group=$(said tags/instance/mayfly-log) || exit 0
if [[ $group == - ]]; then exit 0; fi
AWS_REGION=$(said placement/region)
AWS_DEFAULT_REGION=$AWS_REGION
stream=$(said instance-id)
export AWS_REGION AWS_DEFAULT_REGION

journalctl --boot --quiet --no-pager --output=json --output-fields=MESSAGE,_SYSTEMD_UNIT --unit='mayfly*' \
  | "$PYTHON" -c '
import json
import sys

import boto3
from botocore.config import Config

# Of one request: the service counts 26 bytes more for each event.
MOST_BYTES, MOST_EVENTS, MORE = 1_000_000, 10_000, 26

group, stream = sys.argv[1:]
events = []
for line in sys.stdin:
    entry = json.loads(line)
    text = entry.get("MESSAGE")
    if isinstance(text, str) and text:
        when = int(entry["__REALTIME_TIMESTAMP"]) // 1000
        events.append({"timestamp": when, "message": text[:100_000]})
events.sort(key=lambda event: event["timestamp"])
newest, size = [], 0
for event in reversed(events[-MOST_EVENTS:]):
    size += len(event["message"].encode()) + MORE
    if size > MOST_BYTES:
        break
    newest.append(event)
config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})
logs = boto3.client("logs", config=config)
try:
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
except logs.exceptions.ResourceAlreadyExistsException:
    pass  # a machine that is kept has one for all its boots
if newest:
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=newest[::-1])
' "$group" "$stream"
