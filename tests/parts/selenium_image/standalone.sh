#!/bin/bash
# Starts Selenium Grid standalone from the variables that docker-selenium's images honour, with their defaults.
set -euo pipefail

arguments=(
  --port 4444
  --selenium-manager false
  --detect-drivers false
  --max-sessions "${SE_NODE_MAX_SESSIONS:-1}"
  --override-max-sessions "${SE_NODE_OVERRIDE_MAX_SESSIONS:-false}"
  --session-timeout "${SE_NODE_SESSION_TIMEOUT:-300}"
  --session-request-timeout "${SE_SESSION_REQUEST_TIMEOUT:-300}"
  --enable-managed-downloads "${SE_NODE_ENABLE_MANAGED_DOWNLOADS:-false}"
  --driver-configuration
  "display-name=chrome"
  "max-sessions=${SE_NODE_MAX_SESSIONS:-1}"
  'stereotype={"browserName": "chrome", "platformName": "linux"}'
  "webdriver-executable=/usr/bin/chromedriver"
)

# SE_OPTS and SE_JAVA_OPTS are lists separated by spaces, as in the real image.
# shellcheck disable=SC2086
exec java ${SE_JAVA_OPTS:-} -jar /opt/selenium/selenium-server.jar \
  standalone "${arguments[@]}" ${SE_OPTS:-}
