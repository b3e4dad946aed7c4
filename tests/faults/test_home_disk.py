"""At home, on a disk that fails: nothing partial is visible, nothing that was there is lost, and it says what is full.

`MAYFLY_HOME_DISK_STEP=1` tries every number of inodes that are left; by default every seventh.
"""

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from agent.contract.layout import EntryKey, parse_key
from consumer.pull.folder import SPARE_BYTES
from tests.bucket.bucket import Bucket
from tests.consumer.pulling import TODAY, Pulled, installed, leave, of_job, pulling, results
from tests.consumer.serving import serving
from tests.faults.figures import Figures
from tests.parts.command import mayfly, surroundings
from tests.parts.small_disk import PAGE, SmallDisk
from tests.parts.waiting import wait_until

STEP = int(os.environ.get("MAYFLY_HOME_DISK_STEP", "7"))
SECONDS = 60.0


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket that is on another disk."""
    return Bucket.in_folder(tmp_path / "bucket")


def pull(dest: Path, bucket: Bucket, folder: Path) -> Pulled:
    """Pull once, by a process of its own."""
    log = folder / "pull.json"
    with pulling(dest, bucket.environ, log=log) as process:
        code = process.wait(SECONDS)
    text, stderr = log.read_text(), log.with_suffix(".err").read_text()
    return Pulled(code, json.loads(text) if text.strip() else {}, stderr)


def night(number: int) -> datetime:
    """Return when the n-th run of the last months began."""
    return TODAY - timedelta(days=90) + timedelta(hours=number)


def whole(dest: Path) -> bool:
    """Tell whether every folder that is visible is as the bucket has it."""
    return all(results(dest / job / run) == of_job(job) for run, job in installed(dest))


@pytest.mark.timeout(1800)
def test_a_pull_without_room(tmp_path: Path, bucket: Bucket) -> None:
    """Whichever file cannot be made: what is visible is whole, the disk is named, and with room the pull completes."""
    figures = Figures(
        point="6b",
        title="A pull into a folder without room",
        command="MAYFLY_HOME_DISK_STEP=1 pytest tests/faults/test_home_disk.py -s",
        columns=(
            *("what is left", "pulls", "exit codes: times"),
            *("unclear", "partial", "not completed"),
        ),
        long=STEP == 1,
    )
    runs, dest, problems = count(), tmp_path / "home", []
    with SmallDisk(dest) as disk:
        ways: dict[str, tuple[Callable[[int], None], range]] = {
            "pages, 0 to 60": (disk.leave_pages, range(0, 61, STEP)),
            "inodes, 0 to 30": (disk.leave_inodes, range(0, 31, STEP)),
            "a read-only disk": (lambda _: disk.read_only(), range(1)),
        }
        for name, (shrink, amounts) in ways.items():
            codes: Counter[int] = Counter()
            unclear = partial = stuck = 0
            for amount in amounts:
                leave(bucket, night(next(runs)))
                before = installed(dest)
                shrink(amount)
                pulled = pull(dest, bucket, tmp_path)
                codes[pulled.code] += 1
                told = pulled.code in (0, 3, 4) and "Traceback" not in pulled.stderr
                named = pulled.code == 0 or str(dest) in pulled.stderr
                unclear += not (told and named)
                partial += not whole(dest) or not set(before) <= set(installed(dest))
                disk.give_back()
                again = pull(dest, bucket, tmp_path)
                stuck += again.code != 0 or len(installed(dest)) != len(before) + 2
                partial += not whole(dest)
                if unclear or partial or stuck:
                    problems.append(f"{name}, {amount}: {pulled} then {again}")
            figures.row(
                name,
                len(amounts),
                ", ".join(f"{code}: {times}" for code, times in sorted(codes.items())),
                unclear,
                partial,
                stuck,
            )
    figures.write()
    assert problems == [], problems[0]


def test_what_is_staged_needs_no_room_again(tmp_path: Path, bucket: Bucket) -> None:
    """A pull that was killed with most of a job staged goes on on a disk that has no room for that job twice."""
    jobs = {"videos": {"large.bin": bytes(24 * 1024**2), "last": b"1"}}
    run, dest = leave(bucket, night(0), jobs), tmp_path / "home"
    with SmallDisk(dest) as disk:
        staged = dest / ".mayfly" / "staging" / run / "videos"
        assert pull(tmp_path / "elsewhere", bucket, tmp_path).code == 0
        shutil.copytree(tmp_path / "elsewhere" / "videos" / run, staged)
        (staged / "files" / "last").unlink()
        disk.leave_pages((SPARE_BYTES + 1024**2) // PAGE)
        pulled = pull(dest, bucket, tmp_path)
        assert (pulled.code, pulled.rows("installed")) == (0, [(run, "videos")]), pulled


def test_a_full_disk_is_said_once(tmp_path: Path, bucket: Bucket) -> None:
    """However many jobs wait for it; with room they all come."""
    for number in range(5):
        leave(bucket, night(number))
    dest = tmp_path / "home"
    with SmallDisk(dest) as disk:
        disk.leave_pages(1000)
        pulled = pull(dest, bucket, tmp_path)
        assert (pulled.code, installed(dest)) == (3, [])
        (told,) = pulled.document["delayed"]
        assert told["problem"].startswith(f"no room in {dest}")
        assert pulled.notes == ["9 more jobs wait for the same"]
        disk.give_back()
        assert pull(dest, bucket, tmp_path).code == 0
        assert len(installed(dest)) == 10


def runs_in(history: Path) -> set[str]:
    """Return the runs that a history knows."""
    with closing(sqlite3.connect(f"{history.as_uri()}?mode=ro", uri=True)) as connection:
        keys = connection.execute("SELECT key FROM entry")
        return {key.run for (text,) in keys if isinstance(key := parse_key(text), EntryKey)}


def forget(bucket: Bucket, run: str) -> None:
    """Remove a run's entries from the bucket, as a lifecycle rule may."""
    for text in bucket.objects.keys("batches/"):
        if f"/{run}-" in text:
            bucket.objects.delete(text)


@pytest.mark.parametrize("pages", [0, 3])
def test_a_history_that_fills_up_while_it_is_written(
    tmp_path: Path, bucket: Bucket, pages: int
) -> None:
    """The service goes on with what it knows, says which file has no room, and catches up once there is some."""
    old = leave(bucket, night(1))
    history = tmp_path / "service" / "h.sqlite"
    with (
        SmallDisk(history.parent) as disk,
        serving(tmp_path, bucket.environ, "--history", str(history)) as service,
    ):
        forget(bucket, old)
        disk.leave_pages(pages)
        new = [leave(bucket, night(2 + number)) for number in range(20)]
        wait_until(lambda: bool(service.events("poll.failed")), seconds=SECONDS, what="a complaint")
        told = service.events("poll.failed")[0]
        assert str(history) in told
        assert "full" in told or "disk I/O error" in told
        failures = "mayfly_poll_failures_total"
        first = service.metrics()[failures]
        while (found := service.metrics())[failures] < first + 3:
            # All the while, or no alert on it would ever fire; and the bucket is not to blame.
            assert (found["mayfly_history_up"], found["mayfly_bucket_up"]) == (0, 1)
        disk.give_back()
        wait_until(lambda: len(runs_in(history)) == 21, seconds=SECONDS, what="all runs")
        assert runs_in(history) == {old, *new}
        service.looked()
        assert service.metrics()["mayfly_history_up"] == 1


@pytest.mark.parametrize("pages", [0, 2])
def test_a_history_on_a_full_disk_is_not_thrown_away(
    tmp_path: Path, bucket: Bucket, pages: int
) -> None:
    """A service that is started there knows afterwards what it knew, also of runs that the bucket has forgotten."""
    old = leave(bucket, night(1))
    history = tmp_path / "service" / "h.sqlite"
    options = ("--history", str(history))
    with SmallDisk(history.parent) as disk:
        with serving(tmp_path, bucket.environ, *options):
            forget(bucket, old)
        disk.leave_pages(pages)
        around = surroundings(bucket.environ)
        done = mayfly("serve", "--listen", "127.0.0.1:0", *options, environ=around)
        assert done.returncode == 2, done.stderr
        assert str(history) in done.stderr
        assert "make room there" in done.stderr
        disk.give_back()
        new = leave(bucket, night(2))
        with serving(tmp_path, bucket.environ, *options) as service:
            service.looked()
        assert runs_in(history) == {old, new}
