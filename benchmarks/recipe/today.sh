#!/bin/bash
# The batch as it is written today: clone, start Selenium, poll it, one job after the other, upload, power off.
# `compose` as the argument starts Selenium with docker compose and its health check instead.
set -euo pipefail

export MAYFLY_WEBDRIVER_URL=http://localhost:$PORT/wd/hub

git clone --quiet --depth 1 --branch v1.0.0 "$REPOSITORY" scrapers

if [[ ${1:-} == compose ]]; then
  docker compose --file "$COMPOSE_FILE" up --detach --wait --quiet-pull
else
  docker run --detach --name "$CONTAINER" --shm-size 1g --publish "127.0.0.1:$PORT:4444" "$IMAGE"
  until curl --silent --fail "$MAYFLY_WEBDRIVER_URL/status" | grep --quiet '"ready": true'; do
    sleep 1
  done
fi

for job in shop timeline digest api poll; do
  MAYFLY_OUTPUT_DIR=$PWD/output/$job python3 scrapers/work.py "$job"
done

"$AWS" --endpoint-url "$ENDPOINT" s3 cp output "$TARGET/$(date +%F)/" --recursive --quiet

# Here it would say: sudo poweroff
