"""Machines that are killed in the middle of a run: what they do, and what of it a consumer must find afterwards."""

import hashlib
import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bucket.bucket import Bucket
from tests.bucket.sound import File, Looker, examine
from tests.machine.power_bench import (
    HOLD,
    MEMORY,
    TEST_LIMITS,
    Case,
    Frozen,
    prepare,
    writing,
)
from tests.parts.machine import Disk, Machine
from tests.parts.machine_release import STORE
from tests.parts.seaweed import REGION, S3Server

BUCKET = "kills"
JOBS, FILES, FILE_BYTES = 6, 8, 40_000
BOOTS = 2
"""After the kill; until then everything that began must be in the bucket."""

OFF_SECONDS = 600
QUICK = "quiet " + " ".join(
    f"systemd.mask={unit}.service" for unit in ("ssh", "systemd-timesyncd", "mayfly-lease-tag")
)
"""What nobody needs in a boot that nobody watches: the emulated machine is seconds quicker without."""

CONFIGURATION = f"""
[release]
repository = "/srv/kills.git"
trust = "none"
[store]
url = "s3://{BUCKET}/{{prefix}}"
endpoint = "http://{STORE.removesuffix(":80")}"
region = "{REGION}"
[limits]
jobs = 2
"""

WORK = f"""\
set -eu
n=0
while [ $n -lt {FILES} ]; do
  n=$((n + 1))
  yes "$MAYFLY_RUN_ID $MAYFLY_JOB $n" | head -c {FILE_BYTES} > "$MAYFLY_OUTPUT_DIR/$n.txt"
done
"""

EVENT = re.compile(r"\{[^{}\n]*\"event\"[^{}\n]*\}")
FRESH = "fresh"
"""The prefix of the machines that have no disk of their own for long."""
COMMITTED_WITHIN = 10.0
"""Seconds after its end, and its upload, within which a job is in the bucket for good."""
LOG_WITHIN = 60.0
"""Seconds after which a line of the run's log is in the bucket."""


@dataclass
class Seen:
    """What came of one kill.

    Attributes:
        lost: Files of jobs that must be there, and that are not in the bucket as they were.
        twice: Jobs that are committed in two ways, runs that closed in two ways.
        wrong: Objects that an entry, a package or a manifest names and that are missing or different.
        finished: Jobs that had said before the kill that they were finished; on a disk that is gone, long before.
        boots: Until all runs that had begun were closed, on a disk that is gone until one closed; 0 when they were not.
        said: The last event on the console before the kill.
    """

    lost: int
    twice: int
    wrong: int
    finished: int
    boots: int
    said: str


def content(run: str, job: str, number: int) -> bytes:
    """Return what a job writes into one of its files."""
    line = f"{run} {job} {number}\n".encode()
    return (line * (FILE_BYTES // len(line) + 1))[:FILE_BYTES]


def ready(disk: Disk, folder: Path, s3: S3Server) -> Frozen:
    """Return a machine that delivers to a store, with a good release and its run not begun.

    Without a container engine, which these jobs do not need and which takes long to start when it is emulated.
    """
    keys = f"AWS_ACCESS_KEY_ID={s3.access_key} AWS_SECRET_ACCESS_KEY={s3.secret_key}"
    jobs = "".join(f'[[job]]\nname = "job{n}"\ncommand = ["sh", "work.sh"]\n' for n in range(JOBS))
    setup = "; ".join(
        [
            "systemctl --quiet stop docker.service docker.socket containerd.service",
            "for unit in docker.service docker.socket containerd.service",
            "do ln -sfn /dev/null /etc/systemd/system/$unit",
            "done",
            "systemctl daemon-reload",
            "git init -q /srv/kills",
            "cd /srv/kills",
            writing("jobs.toml", jobs),
            writing("work.sh", WORK),
            "git add .",
            "git -c user.name=t -c user.email=t@t commit -q -m one",
            "git tag v1.0.0",
            "git clone -q --bare /srv/kills /srv/kills.git",
            writing("/etc/mayfly/agent.toml", CONFIGURATION.format(prefix="none")),
            "/opt/mayfly/bin/mayfly prepare",
        ]
    )
    limits = {**TEST_LIMITS}
    limits["mayfly.service.d"] += f"Environment={keys}\n"
    return prepare(disk, folder, limits, services={STORE: s3.port}, setup=setup)


class Life:
    """One machine: begun, perhaps killed, and booted again until it has handed everything over."""

    def __init__(self, frozen: Frozen, s3: S3Server, folder: Path, prefix: str) -> None:
        self._frozen = frozen
        self._services = {STORE: s3.port}
        self._folder = folder
        self._prefix = prefix
        self._bucket = Bucket.on_s3(s3, BUCKET, prefix)

    def whole(self) -> float:
        """Let it do a run undisturbed; return the seconds from its start to the power-off."""
        with self._frozen.thawed(self._folder, self._services) as case:
            self._start(case)
            return case.off(OFF_SECONDS)

    def killed(self, after: float) -> Seen:
        """Start a run, pull the plug some seconds later, boot again, and look at the bucket."""
        with self._frozen.thawed(self._folder, self._services) as case:
            self._start(case)
            time.sleep(max(0.0, after - (time.monotonic() - case.begun)))
            machine = case.machine
            machine.kill()
            said = machine.console.read_text(errors="replace")
            witnesses = set(_finished(said, time.time()))
            boots = self._until_closed(machine)
        return self._seen(witnesses, boots, said)

    def _seen(self, witnesses: set[tuple[str, str]], boots: int, said: str) -> Seen:
        wanted = [
            File(run, job, f"{n}.txt", _sha256(content(run, job, n)))
            for run, job in witnesses
            for n in range(1, FILES + 1)
        ]
        broken = examine(Looker(self._bucket.objects).look(), wanted)
        return Seen(
            lost=broken.lost,
            twice=broken.twice,
            wrong=broken.missing + broken.different,
            finished=len(witnesses),
            boots=boots,
            said=_last_event(said),
        )

    def killed_with_its_disk(self, image: Disk, after: float) -> Seen:
        """Boot a machine, pull its plug, and boot another one: its disk is new, as the first one's was."""
        with self._new(image, "first") as machine:
            begun = time.monotonic()
            machine.boot(append=QUICK)
            time.sleep(max(0.0, after - (time.monotonic() - begun)))
            machine.kill()
            killed = time.time()
            said = machine.console.read_text(errors="replace")
        before = {run.id for run in self._bucket.working if run.closed}
        self._log_is_there(said, killed - LOG_WITHIN)
        with self._new(image, "second") as machine:
            machine.boot(append=QUICK)
            machine.wait_off(OFF_SECONDS)
        closed = {run.id for run in self._bucket.working if run.closed} - before
        return self._seen(set(_finished(said, killed - COMMITTED_WITHIN)), len(closed), said)

    def whole_with_its_disk(self, image: Disk) -> float:
        """Boot a machine and leave it alone; return the seconds from power-on to power-off."""
        with self._new(image, "whole") as machine:
            begun = time.monotonic()
            machine.boot(append=QUICK)
            machine.wait_off(OFF_SECONDS)
            return time.monotonic() - begun

    def _new(self, image: Disk, name: str) -> Machine:
        return Machine(image, self._folder / name, memory=MEMORY, services=self._services)

    def _log_is_there(self, console: str, until: float) -> None:
        """Check that a run's log can be read up to a minute before its end."""
        runs = self._bucket.runs
        for event in _events(console):
            if _moment(event) < until and event.get("run_id") in runs:
                names = [one["event"] for one in runs[event["run_id"]].log]
                assert event["event"] in names, event

    def _start(self, case: Case) -> None:
        # A machine that was frozen has yesterday's time, and the store would refuse its signatures.
        configuration = writing("/etc/mayfly/agent.toml", CONFIGURATION.format(prefix=self._prefix))
        case.sh(f"date --set=@{int(time.time())}; {configuration}; rm {HOLD}")
        case.sh("systemctl daemon-reload; sync")
        case.mark()
        case.sh("systemctl start --no-block mayfly.service")

    def _until_closed(self, machine: Machine) -> int:
        for boot in range(1, BOOTS + 1):
            machine.boot(append=QUICK)
            machine.wait_off(OFF_SECONDS)
            runs = self._bucket.runs.values()
            if runs and all(run.closed for run in runs):
                return boot
        return 0


def image_of(frozen: Frozen, folder: Path, s3: S3Server) -> Disk:
    """Return the disk that new machines begin with: each boots, does its run, and is gone."""
    with frozen.thawed(folder, {STORE: s3.port}) as case:
        configuration = writing("/etc/mayfly/agent.toml", CONFIGURATION.format(prefix=FRESH))
        case.sh(f"date --set=@{int(time.time())}; {configuration}; rm {HOLD}; sync")
        case.sh("systemctl poweroff --no-block", check=False)
        case.machine.wait_off(OFF_SECONDS)
        disk = frozen.disk
        return Disk(case.machine.layer, disk.kernel, disk.initrd, disk.key)


def moment(seed: int, usual: float) -> float:
    """Return when to pull the plug: any time from the run's start to the power-off."""
    return random.Random(seed).uniform(0, usual)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _finished(console: str, until: float) -> Iterator[tuple[str, str]]:
    """Yield run and job of each result that the agent called durable until then, in whole lines of the console."""
    for event in _events(console):
        good = event["event"] == "job.ended" and event.get("status") == "succeeded"
        if good and _moment(event) < until:
            yield str(event["run_id"]), str(event["job"])


def _events(console: str) -> Iterator[dict[str, Any]]:
    for line in EVENT.findall(console):
        with suppress(ValueError):
            yield json.loads(line)


def _moment(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _last_event(console: str) -> str:
    events = re.findall(r"\"event\": ?\"([a-z_.-]+)\"", console)
    return events[-1] if events else "(nothing)"
