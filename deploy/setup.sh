#!/bin/bash
# Makes a checkout runnable on a fresh Debian or Ubuntu machine, and says what it installs.
#
#   deploy/setup.sh            the project's locked environment in .venv
#   deploy/setup.sh browser    the same, and a browser for the demo: what is there, else chromium, else Docker's image
#
# It needs git, make and Python 3.11 or newer. Where something must come from apt it needs root, or sudo without a
# password; where it may not, it says which command a person should run.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly VENV=.venv SETUP=.uv

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# A download that fails once is no news: three tries, five and fifteen seconds apart.
with_retries() {
  local pause
  for pause in 5 15 0; do
    if "$@"; then return 0; fi
    if ((pause)); then
      say "that failed, again in $pause s: $*"
      sleep "$pause"
    fi
  done
  return 1
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n --preserve-env=DEBIAN_FRONTEND "$@"; fi
}

may_install() {
  has apt-get && { ((EUID == 0)) || { has sudo && sudo -n true 2>/dev/null; }; }
}

install() {
  if ! may_install; then return 1; fi
  say "installing $* with apt"
  export DEBIAN_FRONTEND=noninteractive
  with_retries as_root apt-get update --quiet >/dev/null \
    && with_retries as_root apt-get install --yes --quiet --no-install-recommends "$@" >&2
}

python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  fail "Python 3.11 or newer is needed: apt-get install python3"
}

# uv makes the environment from the lock file; on a machine without it, it comes as the Python package it also is.
run_uv() {
  if has uv; then
    uv "$@"
  else
    "$SETUP/bin/uv" "$@"
  fi
}

bring_uv() {
  if has uv || [[ -x $SETUP/bin/uv ]]; then return; fi
  local interpreter
  interpreter=$(python)
  if ! "$interpreter" -c 'import ensurepip' 2>/dev/null; then
    install "python3-venv" || fail "Python's venv module is needed: apt-get install python3-venv"
  fi
  say "installing uv into $SETUP"
  "$interpreter" -m venv "$SETUP"
  with_retries "$SETUP/bin/python" -m pip install --quiet --disable-pip-version-check "$(locked uv)"
}

# The version in the lock file: the same uv that the agent uses.
locked() {
  sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/$1==\1/p;q}" uv.lock
}

environment() {
  local interpreter
  # Not among uv's arguments: there its failure would end nothing.
  interpreter=$(python)
  bring_uv
  say "making the environment in $VENV from uv.lock"
  with_retries run_uv sync --frozen --quiet --all-extras --python "$interpreter"
}

browser() {
  if has chromedriver && { has chromium || has google-chrome || has chromium-browser; }; then
    say "browser: $(chromedriver --version | cut -d' ' -f1,2), which is here"
  elif docker info >/dev/null 2>&1; then
    say "browser: the Selenium container, because Docker is here and no chromedriver"
  else
    install chromium chromium-driver \
      || fail "a browser is needed: apt-get install chromium chromium-driver, or install Docker"
  fi
}

environment
if [[ ${1:-} == browser ]]; then browser; fi
