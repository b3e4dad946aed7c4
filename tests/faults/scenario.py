"""A small day of a scraper's life, different for each seed: a release, shell jobs, files, states, early uploads."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from agent.base.processes import kill_marked
from tests.bucket.bucket import Bucket
from tests.bucket.layout import log_key
from tests.bucket.sound import Broken, File, Inspection, Looker, examine
from tests.faults.points import POINTS, SHARD_POINTS
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench, Ran, finish

CRASH = Path(__file__).with_name("crash.py")
LARGE = 1024**2 + 1
"""More than the agent sends in one go."""
COMMITTED_WITHIN = 10.0
"""Seconds after its end, and its upload, within which a job is in the bucket for good, whatever becomes of the disk."""
LASTS = 13.0
"""Seconds that a job lasts beside which others have ended long ago."""
LOG_WITHIN = 60.0
"""Seconds after which a line of the run's log is in the bucket."""

DONE = frozenset({0, 3, 8})
"""Exit codes of a run that has committed. A shard that is tried again may have nothing left but what fails."""

# Each file is finished out of sight, takes its name in one step, and only then is written down.
SCRIPT = """\
set -e
job=$1; early=$2; ends=$3; shift 3
n=0
for size in "$@"; do
    n=$((n + 1))
    part="$MAYFLY_OUTPUT_DIR/$n.part"
    { echo "$MAYFLY_RUN_ID $job $n"; head -c "$size" /dev/zero; } > "$part"
    digest=$(sha256sum < "$part"); digest=${digest%% *}
    mv "$part" "$MAYFLY_OUTPUT_DIR/file-$n"
    echo "file $MAYFLY_RUN_ID $job file-$n $digest" >> "$LEDGER"
done
second=0
while [ $second -lt "${early%.*}" ]; do
    second=$((second + 1))
    echo "second $second"
    sleep 1
done
echo "$MAYFLY_RUN_ID" >> "$MAYFLY_STATE_DIR/runs"
[ "$ends" != 0 ] || echo "ended $MAYFLY_RUN_ID $job $(date +%s.%N)" >> "$LEDGER"
exit "$ends"
"""


@dataclass
class Wiped:
    """What is due of runs whose disk is gone, and what is not as it must be.

    Attributes:
        runs: The runs.
        due: The jobs of them that must be in the bucket.
        unreadable: Lines of their logs that were old enough, and are not in the bucket as they were written.
        read: Lines that are.
    """

    runs: set[str] = field(default_factory=set)
    due: set[tuple[str, str]] = field(default_factory=set)
    unreadable: int = 0
    read: int = 0


@dataclass
class Scenario:
    """A computer, a bucket and what the jobs say they finished.

    Attributes:
        bench: Runs the real program.
        ledger: What the jobs wrote down.
        looker: Looks at the bucket.
        chance: What all of it follows from.
        ends: The jobs' exit codes.
        early: Seconds that a job lasts, long enough for files to be sent while it runs.
        shard: Whether its runs are the one shard of a group, another group for each release.
        wiped: What became of the runs whose disk is gone.
    """

    bench: Bench
    ledger: Path
    looker: Looker
    chance: random.Random
    ends: tuple[int, ...]
    early: float
    shard: bool = False
    releases: int = 0
    wiped: Wiped = field(default_factory=Wiped)

    @classmethod
    def make(
        cls,
        folder: Path,
        seed: str,
        server: S3Server | None,
        *,
        early: float = 0,
        shard: bool = False,
    ) -> "Scenario":
        """Publish a release and run it, so that later runs are warm.

        Args:
            folder: An empty folder.
            seed: What the jobs, the files and their sizes follow from.
            server: Where the bucket is; None for a folder.
            early: Seconds that a job lasts, long enough for files to be sent while it runs.
            shard: Whether its runs are a shard.
        """
        chance = random.Random(seed)
        folder.mkdir(parents=True)
        bucket = Bucket.on_s3(server, server.make_bucket()) if server else None
        bench = Bench.make(folder, bucket)
        bench.settings |= {"limits.isolation": "process", "limits.jobs": "3"}
        looker = Looker(bench.bucket.objects)
        ends = (0, 0, 1)[: chance.randint(1, 3)]
        made = cls(bench, folder / "ledger", looker, chance, ends, early, shard)
        made.release(lasts=False)
        ran = made.settle()
        assert ran.code in DONE, ran.stderr[-3000:]
        return made

    def release(self, *, lasts: bool = True) -> None:
        """Publish a release: jobs with states, the first with a large file, the third fails after its files."""
        jobs = ""
        for number, ends in enumerate(self.ends):
            sizes = [self.chance.randint(0, 60_000) for _ in range(self.chance.randint(1, 5))]
            if number == 0:
                sizes.append(LARGE + self.chance.randint(0, 100_000))
            jobs += self._job(
                f"job{number}", self.early if lasts and number == 0 else 0, ends, sizes
            )
        if lasts and self.early >= LASTS:
            jobs += self._job("quick", 0, 0, [100, LARGE])
        self.releases += 1
        version = f"v{self.releases}.0"
        self.bench.release(version, jobs, {"job.sh": SCRIPT, "version": version})

    def _job(self, name: str, lasts: float, ends: int, sizes: list[int]) -> str:
        words = ["sh", "job.sh", name, str(lasts), str(ends), *map(str, sizes)]
        return (
            f'[[job]]\nname = "{name}"\ncommand = {json.dumps(words)}\n'
            f"env = {{ LEDGER = {json.dumps(str(self.ledger))} }}\n"
        )

    def settle(self) -> Ran:
        """Do a run to its end."""
        return self.bench.run(*self._asked)

    def command(self) -> list[str]:
        """Return a run's command line."""
        return self.bench.command(*self._asked)

    @property
    def _asked(self) -> list[str]:
        return ["--shard", "1/1", "--group", f"g{self.releases}"] if self.shard else []

    def crashing(self, where: str, occurrence: int, counts: Path | None = None) -> bool:
        """Do a run that is killed at a point, and tell whether it was."""
        command = self.command()
        places = ",".join(sorted({point.place for point in (*POINTS, *SHARD_POINTS)}))
        killer = ["-P", str(CRASH), f"{where}:{occurrence}", str(counts or "-"), places]
        position = command.index("-m")
        command[position : position + 2] = killer
        return self.killed(command)

    def killed(self, command: list[str]) -> bool:
        """Do a run by another command line, and tell whether it was killed."""
        with self.bench.started(command) as process:
            ran = finish(process)
        assert ran.code in {*DONE, -9, 137}, ran.stderr[-3000:]
        return ran.code in (-9, 137)

    def _told(self, kind: str) -> list[list[str]]:
        """Return the lines of a kind that the jobs wrote; one that a kill has torn says nothing."""
        text = self.ledger.read_text() if self.ledger.exists() else ""
        lines = (line.split() for line in text.split("\n")[:-1])
        return [words for said, *words in lines if said == kind]

    @property
    def finished(self) -> list[File]:
        """The files that jobs finished, in that order."""
        return [File(*words) for words in self._told("file")]

    def wipe(self) -> None:
        """Let the disk be gone with the machine; its jobs are gone with it."""
        now = time.time()
        gone = {path.name: path / "log.jsonl" for path in self.bench.spool}
        ends = self._told("ended")
        good = {(run, job) for run, job, at in ends if float(at) < now - COMMITTED_WITHIN}
        due = {(run, job) for run, job in good if run in gone}
        self.wiped.runs |= gone.keys()
        self.wiped.due |= due
        for run, log in gone.items():
            self._compare(run, log.read_bytes() if log.exists() else b"", now)
            asyncio.run(kill_marked(f"MAYFLY_RUN_ID={run}"))  # gone with the machine
        shutil.rmtree(self.bench.state)

    def _compare(self, run: str, written: bytes, now: float) -> None:
        """Compare the log of a run that is lost with what the bucket has of it: the same, but for the last minute."""
        objects, stored, number = self.bench.bucket.objects, b"", 0
        keys = set(objects.keys(f"runs/{run}/log/"))
        while (key := log_key(run, number)) in keys:
            stored += objects.get(key)
            number += 1
        lines = written.splitlines(keepends=True)
        due = sum(1 for line in lines if _moment(line) < now - LOG_WITHIN)
        there = len(stored.splitlines())
        self.wiped.read += there
        self.wiped.unreadable += max(0, due - there)
        self.wiped.unreadable += not written.startswith(stored)

    def converge(self) -> int:
        """Do runs until nothing waits any more; return how many, 3 for never."""
        for number in (1, 2):
            ran = self.settle()
            if ran.code in DONE and not self.bench.spool:
                return number
        return 3

    def examine(self) -> Broken:
        """Return what does not hold of the bucket now."""
        seen = self.looker.look()
        wanted = [file for file in self.finished if self._must_be_there(seen, file)]
        broken = examine(seen, wanted, gone=self.wiped.runs)
        done = Counter((batch, job) for batch, _, job in seen.successes())
        broken.twice += sum(times - 1 for times in done.values())
        return broken

    def _must_be_there(self, seen: Inspection, file: File) -> bool:
        """Tell whether a file can't be gone: its disk was kept, or its job had ended long before, or is committed."""
        if file.run not in self.wiped.runs:
            return True
        run = seen.runs.get(file.run)
        told = run.told.get(file.job) if run else None
        return (file.run, file.job) in self.wiped.due or told is not None


def _moment(line: bytes) -> float:
    """Return when a line of a log was written, in seconds."""
    return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
