#!/bin/bash
# Makes the system the agent's: units, configuration, names, and no service that a machine of minutes can do without.
set -euo pipefail

cd "$(dirname "$0")"

install -d -m 0700 /etc/mayfly
install -m 0600 -t /etc/mayfly config/*
install -m 0644 release /etc/mayfly-release
/opt/mayfly/bin/mayfly check

# The units' own limits follow the run's.
seconds=$(bash ./setting.sh limits.run)
systemd/install.sh ${seconds:+--limit "${seconds%.*}s"}

# Scrapers that were written for a compose stack look for its browser under this name.
if ! grep -q '[[:space:]]selenium$' /etc/hosts; then
  printf '127.0.0.1 selenium\n' >>/etc/hosts
fi

# Logs of jobs go to the bucket. What stays here is for a person who looks at a machine that is kept up, and must not
# fill its disk.
install -d /etc/systemd/journald.conf.d /etc/docker
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' >/etc/systemd/journald.conf.d/mayfly.conf
# A browser's log goes into the run's; containers that write a lot must not fill the disk.
printf '{"log-driver": "local", "log-opts": {"max-size": "8m", "max-file": "2"}, "live-restore": false}\n' \
  >/etc/docker/daemon.json

# The engine is started through its socket by the first who needs it: a batch without containers is spared its start. By
# hand, as below.
rm -f /etc/systemd/system/multi-user.target.wants/{docker,containerd}.service

# Upkeep of machines that live for months: each costs processor time in the minutes that are paid for, and a package
# manager that runs beside the batch can restart what the batch needs. The image is built anew instead. Masked by hand:
# `systemctl mask` reloads the service manager for each.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer man-db.timer systemd-pstore.service dnf-makecache.timer update-motd.timer update-motd.service \
  sysstat-collect.timer sysstat-summary.timer sysstat.service logrotate.timer; do
  ln -sfn /dev/null "/etc/systemd/system/$unit"
done

# What a boot starts by default and no batch uses, while the processor is what the boot waits for: file systems for kernel
# developers and the modules that are loaded for them, prompts at consoles without a password to give, and at Amazon
# services for hibernation, storage arrays, Kerberos on NFS, home directories and jobs of at(1).
for unit in dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-kernel-config.mount sys-fs-fuse-connections.mount modprobe@configfs.service modprobe@drm.service \
  modprobe@fuse.service modprobe@dm_mod.service modprobe@loop.service \
  getty@tty1.service serial-getty@ttyS0.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
  hibinit-agent.service libstoragemgmt.service gssproxy.service systemd-homed.service atd.service; do
  ln -sfn /dev/null "/etc/systemd/system/$unit"
done
