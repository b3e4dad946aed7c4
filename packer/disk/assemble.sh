#!/bin/bash
# Makes the Debian disk on which `make image` builds: root file system, a login key, the browser's image in its container
# engine. Needs root, because the files on the disk belong to root.
# Usage: packer/disk/assemble.sh ROOT.tar BROWSER.tar FOLDER [FILES]
#
# FOLDER gets disk.qcow2, vmlinuz, initrd and key. FILES is a folder whose contents are laid over the file system.
set -euo pipefail

root_archive=$1
browser_archive=$2
folder=$3
more=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
readonly SIZE=8G BROWSER_IMAGE=mayfly.test/selenium/chromedriver:1

mkdir -p "$folder"
work=$(mktemp -d "$folder/.assemble.XXXXXX")
engine_pid=

# Invoked by the trap.
# shellcheck disable=SC2317
clean_up() {
  if [[ -n $engine_pid ]]; then
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT

make_root() {
  mkdir "$work/root"
  tar -xf "$root_archive" -C "$work/root" --numeric-owner
  cp -RTp --no-preserve=ownership "$here/files" "$work/root"
  if [[ -n $more ]]; then cp -RTp --remove-destination --no-preserve=ownership "$more" "$work/root"; fi
  rm -f "$work/root/etc/ssh/"ssh_host_*
  : >"$work/root/etc/machine-id"
  ln -sf /usr/lib/systemd/system/systemd-networkd.service \
    "$work/root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
  mkdir -p "$work/root/etc/systemd/system/network-online.target.wants"
  ln -sf /usr/lib/systemd/system/systemd-networkd-wait-online.service \
    "$work/root/etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service"
}

make_key() {
  rm -f "$folder/key" "$folder/key.pub"
  ssh-keygen -q -t ed25519 -N '' -C "mayfly test image" -f "$folder/key"
  install -D -m 0600 "$folder/key.pub" "$work/root/root/.ssh/authorized_keys"
  chmod 0700 "$work/root/root/.ssh"
  rm "$folder/key.pub"
}

# A container engine of our own writes the image where the machine's engine will look for it: to load it inside an
# emulated machine would take ten minutes. It has a network namespace of its own, because an engine without a bridge
# removes the one that is there, which is another engine's.
load_browser() {
  local socket docker
  # A socket's path may have 107 characters; the folder's may be longer.
  socket=$(mktemp -d)/docker.sock
  docker=(docker --host "unix://$socket")
  mkdir -p "$work/root/var/lib/docker"
  PATH=$PATH:/usr/sbin:/sbin unshare --net -- dockerd --host "unix://$socket" --data-root "$work/root/var/lib/docker" \
    --exec-root "$work/exec" --pidfile "$work/docker.pid" --storage-driver overlay2 \
    --bridge none --iptables=false --ip6tables=false >"$folder/dockerd.log" 2>&1 &
  engine_pid=$!
  local tries
  for ((tries = 0; tries < 60; tries++)); do
    if "${docker[@]}" info >/dev/null 2>&1; then break; fi
    sleep 0.5
  done
  "${docker[@]}" import \
    --change 'ENTRYPOINT ["/usr/bin/tini","--","/usr/bin/chromedriver","--port=4444","--allowed-ips=","--allowed-origins=*"]' \
    --change 'ENV LANG=C.UTF-8 HOME=/tmp TINI_SUBREAPER=1' --change 'USER 1200:1201' --change 'EXPOSE 4444' \
    "$browser_archive" "$BROWSER_IMAGE" >/dev/null
  kill "$engine_pid"
  wait "$engine_pid" || true
  engine_pid=
  # Where mounts are private the engine mounts its data on themselves, and leaves the mount when something is busy at its end.
  if mountpoint --quiet "$work/root/var/lib/docker"; then umount --lazy "$work/root/var/lib/docker"; fi
  rm -rf "${socket%/*}"
  # What belongs to the engine that ran here, and not to its images.
  rm -rf "$work/root/var/lib/docker/"{containerd,runtimes,network,tmp,engine-id}
}

# What a policy that came with the packages calls each file: the kernel of the machine finds it there. It needs /proc, which
# only this process sees.
label() {
  local policy=/etc/selinux/default/contexts/files/file_contexts
  if [[ ! -e $work/root$policy ]]; then return; fi
  # shellcheck disable=SC2016 # it is the inner shell that fills it in
  unshare --mount --propagation private -- sh -euc \
    'mount -t proc proc "$1/proc" && exec chroot "$1" setfiles -F -e /proc "$2" /' label "$work/root" "$policy"
}

make_disk() {
  cp "$(readlink -f "$work/root/boot"/vmlinuz-*)" "$folder/vmlinuz"
  cp "$(readlink -f "$work/root/boot"/initrd.img-*)" "$folder/initrd"
  # Without lazy initialisation the kernel would write inode tables in the background of every first boot.
  mke2fs -q -t ext4 -L mayfly -m 1 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard \
    -d "$work/root" "$work/disk.raw" "$SIZE"
  qemu-img convert -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
  mv "$work/disk.qcow2" "$folder/disk.qcow2"
}

if ((EUID != 0)); then
  printf 'packer/disk/assemble.sh: the files on the disk belong to root, so this needs root\n' >&2
  exit 1
fi
make_root
make_key
load_browser
label
make_disk
rm -f "$folder/dockerd.log"
