"""A state directory on a disk that fails: at any write, for want of inodes, or all at once.

The file system is left with n pages (or inodes) and a real `mayfly run` is made in it, for n = 0, 1, 2, ... until one
has enough; after each, the room is given back and the next run must finish what that one could not.
`MAYFLY_DISK_STEP=1` tries every n; by default every thirteenth.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import Looker, all_sound, sound
from tests.faults.figures import Figures
from tests.parts.small_disk import FailingDisk, SmallDisk
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, Ran, finish

STEP = int(os.environ.get("MAYFLY_DISK_STEP", "13"))
ENOUGH = 2
"""Runs in a row that went well: their disks had all that a run takes."""
MOST = 400

JOBS = """
    [[job]]
    name = "three"
    command = ["sh", "-ec", '''
    for n in 1 2 3; do head -c 3000 /dev/zero > "$MAYFLY_OUTPUT_DIR/$n"; done
    date > "$MAYFLY_STATE_DIR/last"
    ''']

    [[job]]
    name = "one"
    command = ["sh", "-ec", 'echo 1 > "$MAYFLY_OUTPUT_DIR/1"']
"""
FILES = {"three": {"three/1", "three/2", "three/3"}, "one": {"one/1"}}
CODES = {0, 3, 4, 5, 6, 8}
"""Of runs on a failing disk: done, or a failure that has a name."""


def new_bench(folder: Path) -> tuple[Bench, Bucket]:
    """Return a computer whose state is going to be on a disk of its own, and its bucket, which is not."""
    bench = Bench.make(folder)
    return bench, bench.bucket


@dataclass
class Tally:
    """What was seen of one kind of shortage; each list says what went wrong, and where."""

    codes: Counter[int] = field(default_factory=Counter)
    unclear: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """All that went wrong."""
        return [*self.unclear, *self.touched, *self.lost, *self.stuck]

    def row(self) -> tuple[int, str, int, int, int, int]:
        """Return what the table of figures says of it."""
        codes = ", ".join(f"{code}: {times}" for code, times in sorted(self.codes.items()))
        wrong = (len(self.unclear), len(self.touched), len(self.lost), len(self.stuck))
        return self.codes.total(), codes, *wrong


def is_clear(ran: Ran, state: Path) -> bool:
    """Tell whether a run that a disk failed says so: by its code, and with the folder and the remedy."""
    if ran.code not in CODES or "Traceback" in ran.stderr:
        return False
    if ran.code not in (4, 6):
        return bool(ran.outcome)
    told = f"{ran.outcome.get('undelivered')} {ran.stderr}"
    return str(state) in told and ("make room there" in told or "remove files there" in told)


def finished(ran: Ran) -> set[str]:
    """Return the files of the jobs that a run said had succeeded."""
    jobs = ran.outcome.get("jobs", [])
    return set().union(*(FILES[job["name"]] for job in jobs if job["status"] == "succeeded"))


@dataclass
class Sweep:
    """Runs with ever more room, each followed by one with room enough.

    Attributes:
        kind: Of what there is not enough: pages or inodes.
        new: Whether each pair of runs finds a new release.
    """

    bench: Bench
    bucket: Bucket
    disk: SmallDisk
    kind: str
    new: bool
    tally: Tally = field(default_factory=Tally)

    def all(self) -> Tally:
        """Try 0, STEP, 2 x STEP, ... until the room is enough."""
        self.bench.release("v0.0", JOBS)
        assert self.bench.run().code == 0
        well = 0
        for n in count(0, STEP):
            assert n < MOST, "no run went well"
            well = well + 1 if self.one(n) == 0 else 0
            if well == ENOUGH:
                break
        return self.tally

    def one(self, n: int) -> int:
        """Make a pair of runs, and compare what they said with the bucket; return the first one's exit code."""
        label, version = f"{n} {self.kind}, new={self.new}", "v0.0"
        if self.new:
            self.bench.release(version := f"v1.{n}", JOBS)
        before = all_sound(self.bucket)
        (self.disk.leave_pages if self.kind == "pages" else self.disk.leave_inodes)(n)
        ran = self.bench.run()
        self.disk.give_back()
        self.tally.codes[ran.code] += 1
        if not is_clear(ran, self.bench.state):
            self.tally.unclear.append(f"{label}: {ran.code}: {ran.stderr[-2000:]}")
        seen = Looker(self.bucket.objects).look()
        if any(list(seen.problems_of(seen.runs[run])) for run in before):
            self.tally.touched.append(label)
        self._finish(label, version, ran)
        return ran.code

    def _finish(self, label: str, version: str, ran: Ran) -> None:
        again = self.bench.run()
        if again.code != 0 or self.bench.spool:
            self.tally.stuck.append(f"{label}: then {again.code}: {again.stderr[-2000:]}")
            return
        if (ref := sound(self.bucket, again.run_id).release["ref"]) != version:
            self.tally.stuck.append(f"{label}: afterwards {ref}, not {version}")
        all_sound(self.bucket)
        runs = self.bucket.runs
        for run in (ran, again):
            # A run that could not even write down that it begins has done nothing, and is in no bucket.
            there = runs[run.run_id].results if run.outcome and run.run_id in runs else set()
            if finished(run) - there:
                self.tally.lost.append(f"{label}: {run.run_id}")


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_a_disk_that_is_full_at_any_write(tmp_path: Path) -> None:
    """Whichever write fails, the run says what is full and what to do; with room, the next delivers everything."""
    figures = Figures(
        point="6",
        title="A state directory without room, at every page and every inode",
        command=f"MAYFLY_DISK_STEP={STEP} pytest tests/faults/test_disk.py -s",
        columns=(
            "what there is not enough of",
            "runs",
            "exit codes: times",
            "unclear ends",
            "committed runs touched",
            "finished files lost",
            "not finished by the next run",
        ),
        seed=None,
        long=STEP == 1,
    )
    faults = []
    for kind in ("pages", "inodes"):
        for new in (False, True):
            bench, bucket = new_bench(tmp_path / f"{kind}-{new}")
            with SmallDisk(bench.state) as disk:
                tally = Sweep(bench, bucket, disk, kind, new).all()
            release = "a new release" if new else "the release is there"
            figures.row(f"{kind}, {release}", *tally.row())
            faults += tally.faults
    figures.write()
    assert faults == []


def test_a_disk_that_is_read_only_from_the_start(tmp_path: Path) -> None:
    """Nothing is run or announced: exit code 4, the folder and what to do; a writable disk is all that it takes."""
    bench, bucket = new_bench(tmp_path)
    bench.release("v1", JOBS)
    with SmallDisk(bench.state) as disk:
        first = bench.run()
        disk.read_only()
        ran = bench.run()
        assert (ran.code, ran.outcome) == (4, {})
        assert f"the file system of {bench.state} is read-only" in ran.stderr
        assert "mount it writable" in ran.stderr
        assert "Traceback" not in ran.stderr
        disk.give_back()
        again = bench.run()
        assert again.code == 0, again.stderr
        assert all_sound(bucket) == [first.run_id, again.run_id]
        assert len(bucket.runs) == 2


WAITING = """
    [[job]]
    name = "one"
    command = ["sh", "-ec", 'echo 1 > "$MAYFLY_OUTPUT_DIR/1"']

    [[job]]
    name = "last"
    needs = ["one"]
    command = ["sh", "-ec", '''
    echo 2 > "$MAYFLY_OUTPUT_DIR/2"
    touch FOLDER/up
    until [ -e FOLDER/go ]; do sleep 0.1; done
    ''']
"""


def test_a_disk_that_fails_while_jobs_run(tmp_path: Path) -> None:
    """Its kernel makes it read-only: the run ends at once with exit code 6; on the mended disk the next delivers it."""
    bench, bucket = new_bench(tmp_path)
    bench.release("v1", WAITING.replace("FOLDER", str(tmp_path)))
    with FailingDisk(bench.state, tmp_path / "disk.img") as disk:
        with bench.running() as process:
            wait_until((tmp_path / "up").exists, what="the second job")
            disk.abort()
            (tmp_path / "go").touch()
            ran = finish(process)
        assert ran.code == 6, ran.stderr
        assert f"the file system of {bench.state} is read-only" in ran.outcome["undelivered"]
        assert "mount it writable" in ran.outcome["undelivered"]
        assert "Traceback" not in ran.stderr
        assert all(not run.ends for run in bucket.runs.values())
        disk.mend()
        bench.release("v2", JOBS)
        again = bench.run()
        assert again.code == 0, again.stderr
        assert all_sound(bucket) == [ran.run_id, again.run_id]
        assert {"one/1"} <= bucket.run(ran.run_id).results
        assert bench.spool == []
