"""Machines that are killed in the middle of a run: what they do, and what of it a consumer must find afterwards."""

import hashlib
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bucket.bucket import Bucket
from tests.bucket.sound import Looker, examine
from tests.machine.power_bench import HOLD, TEST_LIMITS, Case, Frozen, prepare, writing
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

ENDED = re.compile(r"\{[^{}\n]*\"job\.ended\"[^{}\n]*\}")


@dataclass
class Seen:
    """What came of one kill.

    Attributes:
        lost: Files of jobs that had said they were finished, and that are not in the bucket as they were.
        twice: Runs that the index commits more than once.
        wrong: Files that a manifest names and that are missing or different.
        finished: Jobs that had said before the kill that they were finished.
        boots: Until all runs that had begun were committed; 0 when they were not.
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
            witnesses = set(_finished(said))
            boots = self._until_committed(machine)
        wanted = [
            (run, f"{job}/{n}.txt", _sha256(content(run, job, n)))
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

    def _start(self, case: Case) -> None:
        # A machine that was frozen has yesterday's time, and the store would refuse its signatures.
        configuration = writing("/etc/mayfly/agent.toml", CONFIGURATION.format(prefix=self._prefix))
        case.sh(f"date --set=@{int(time.time())}; {configuration}; rm {HOLD}")
        case.sh("systemctl daemon-reload; sync")
        case.mark()
        case.sh("systemctl start --no-block mayfly.service")

    def _until_committed(self, machine: Machine) -> int:
        for boot in range(1, BOOTS + 1):
            machine.boot(append=QUICK)
            machine.wait_off(OFF_SECONDS)
            begun = self._bucket.begun().keys()
            if begun and begun <= self._bucket.committed().keys():
                return boot
        return 0


def moment(seed: int, usual: float) -> float:
    """Return when to pull the plug: any time from the run's start to the power-off."""
    return random.Random(seed).uniform(0, usual)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _finished(console: str) -> Iterator[tuple[str, str]]:
    """Yield run and job of each result that the agent called durable, as far as the console has whole lines."""
    for line in ENDED.findall(console):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("status") == "succeeded":
            yield str(event["run_id"]), str(event["job"])


def _last_event(console: str) -> str:
    events = re.findall(r"\"event\": ?\"([a-z_.-]+)\"", console)
    return events[-1] if events else "(nothing)"
