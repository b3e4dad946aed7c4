#!/bin/bash
# The batch as it is written today, on a machine whose disk is kept: what was there yesterday is brought up to date.
# `scrapers` is a clone with its environment, the engine has yesterday's browser; uv is the quickest that people use.
set -euo pipefail

export MAYFLY_WEBDRIVER_URL=http://localhost:$PORT/wd/hub

cd scrapers
git fetch --quiet --depth 1 origin "refs/tags/$TAG:refs/tags/$TAG"
git checkout --quiet "$TAG"
"$UV" sync --quiet --frozen
cd ..

docker run --detach --name "$CONTAINER" --shm-size 1g --publish "127.0.0.1:$PORT:4444" "$IMAGE"
until curl --silent --fail "$MAYFLY_WEBDRIVER_URL/status" | grep --quiet '"ready": true'; do
  sleep 1
done

for job in shop timeline digest api poll; do
  MAYFLY_OUTPUT_DIR=$PWD/output/$job scrapers/.venv/bin/python scrapers/main.py "$job"
done

"$AWS" --endpoint-url "$ENDPOINT" s3 cp output "$TARGET/$(date +%F)/" --recursive --quiet
date +%s.%N >"$STAMPS/commit"

# Here it would say: sudo poweroff
