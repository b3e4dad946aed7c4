"""A state directory on a disk that fails: at any write, for want of inodes, or all at once.

The file system is left with n pages (or inodes) and a real `mayfly run` is made in it, for n = 0, 1, 2, ... until one
has enough; after each, the room is given back and the next run must finish what that one could not.
`MAYFLY_DISK_STEP=1` tries every n; by default every thirteenth.
"""

import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import pytest

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
FAULTS = UNCLEAR, TOUCHED, LOST, STUCK = (
    "unclear ends", "committed runs touched", "finished files lost", "not finished by the next run",
)  # fmt: skip


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
        codes: The exit codes of the runs.
        faults: What went wrong, and where: by columns of the table.
    """

    bench: Bench
    disk: SmallDisk
    kind: str
    new: bool
    codes: Counter[int] = field(default_factory=Counter)
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def all(self) -> None:
        """Try 0, STEP, 2 x STEP, ... until the room is enough."""
        self.bench.release("v0.0", JOBS)
        assert self.bench.run().code == 0
        well = 0
        for n in count(0, STEP):
            assert n < MOST, "no run went well"
            well = well + 1 if self.one(n) == 0 else 0
            if well == ENOUGH:
                break

    def one(self, n: int) -> int:
        """Make a pair of runs, and compare what they said with the bucket; return the first one's exit code."""
        label, version = f"{n} {self.kind}, new={self.new}", "v0.0"
        if self.new:
            self.bench.release(version := f"v1.{n}", JOBS)
        before = all_sound(self.bench.bucket)
        (self.disk.leave_pages if self.kind == "pages" else self.disk.leave_inodes)(n)
        ran = self.bench.run()
        self.disk.give_back()
        self.codes[ran.code] += 1
        if not is_clear(ran, self.bench.state):
            self.faults[UNCLEAR].append(f"{label}: {ran.code}: {ran.stderr[-2000:]}")
        seen = Looker(self.bench.bucket.objects).look()
        if any(list(seen.problems_of(seen.runs[run])) for run in before):
            self.faults[TOUCHED].append(label)
        self._finish(label, version, ran)
        return ran.code

    def _finish(self, label: str, version: str, ran: Ran) -> None:
        again, bucket = self.bench.run(), self.bench.bucket
        if again.code != 0 or self.bench.spool:
            self.faults[STUCK].append(f"{label}: then {again.code}: {again.stderr[-2000:]}")
            return
        if (ref := sound(bucket, again.run_id).release["ref"]) != version:
            self.faults[STUCK].append(f"{label}: afterwards {ref}, not {version}")
        all_sound(bucket)
        runs = bucket.runs
        for run in (ran, again):
            # A run that could not even write down that it begins has done nothing, and is in no bucket.
            there = runs[run.run_id].results if run.outcome and run.run_id in runs else set()
            if finished(run) - there:
                self.faults[LOST].append(f"{label}: {run.run_id}")


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_a_disk_that_is_full_at_any_write(tmp_path: Path) -> None:
    """Whichever write fails, the run says what is full and what to do; with room, the next delivers everything."""
    figures = Figures(
        point="6",
        title="A state directory without room, at every page and every inode",
        command=f"MAYFLY_DISK_STEP={STEP} pytest tests/faults/test_disk.py -s",
        columns=(
            *("what there is not enough of", "runs", "exit codes: times"),
            *FAULTS,
        ),
        long=STEP == 1,
    )
    faults: list[str] = []
    for kind in ("pages", "inodes"):
        for new in (False, True):
            bench = Bench.make(tmp_path / f"{kind}-{new}")
            with SmallDisk(bench.state) as disk:
                sweep = Sweep(bench, disk, kind, new)
                sweep.all()
            release = "a new release" if new else "the release is there"
            codes = ", ".join(f"{code}: {times}" for code, times in sorted(sweep.codes.items()))
            wrong = [sweep.faults[fault] for fault in FAULTS]
            figures.row(f"{kind}, {release}", sweep.codes.total(), codes, *map(len, wrong))
            faults += chain.from_iterable(wrong)
    figures.write()
    assert faults == []


def test_a_disk_that_is_read_only_from_the_start(tmp_path: Path) -> None:
    """Nothing is run or announced: exit code 4, the folder and what to do; a writable disk is all that it takes."""
    bench = Bench.make(tmp_path)
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
        assert all_sound(bench.bucket) == [first.run_id, again.run_id]
        assert len(bench.bucket.runs) == 2


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
    bench = Bench.make(tmp_path)
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
        assert all(not run.ends for run in bench.bucket.runs.values())
        objects = bench.bucket.objects
        learnt = [json.loads(objects.get(key))["learnt"] for key in objects.keys("releases/")]
        stages = [fact["trial"]["stage"] for fact in chain(*learnt) if "trial" in fact]
        assert stages[-1] == "ended", "the disk counts against the release"
        disk.mend()
        bench.release("v2", JOBS)
        again = bench.run()
        assert again.code == 0, again.stderr
        assert all_sound(bench.bucket) == [ran.run_id, again.run_id]
        assert {"one/1"} <= bench.bucket.run(ran.run_id).results
        assert bench.spool == []
