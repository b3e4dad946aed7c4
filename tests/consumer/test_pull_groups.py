"""`mayfly pull --complete-groups`: shards come home when all of them are done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.base.errors import ExitCode
from agent.contract.ids import Batch
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter
from tests.consumer.pulling import installed, pull_into
from tests.consumer.pulling import leave as leave_run

ONLY = "--complete-groups"
AGO = timedelta(minutes=40)
"""When the runs of a group began; after an hour nothing more is expected of it."""


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home, which is not there yet."""
    return tmp_path / "home"


def shard(number: int, shards: int = 2, group: str = "monday") -> Batch:
    """A shard of a group."""
    return Batch.of_shard("main", group, number, shards)


def leave(
    folder: Bucket, number: int, part: Batch | None, *, hours: int = 0, interrupted: bool = False
) -> str:
    """Leave a run that began so many seconds after the others, `hours` ago, with a job of its own."""
    began = datetime.now(UTC).replace(microsecond=0) - AGO
    began += timedelta(seconds=number) - timedelta(hours=hours)
    jobs = {f"job{number}": {"a": b"a" * (number + 1)}}
    if not interrupted:
        return leave_run(folder, began, jobs, batch=part, wait=timedelta(seconds=1))
    writer = RunWriter(folder.objects, began, part)
    writer.append(began=writer.began())
    writer.append(jobs=tuple(writer.job(name, files=files) for name, files in jobs.items()))
    writer.append(closed=writer.closed("interrupted"))
    return writer.run


def runs_in(dest: Path) -> list[str]:
    """The runs that a reader sees."""
    return [run for run, _ in installed(dest, [path.name for path in dest.glob("job*")])]


def test_a_shard_waits_for_its_group(folder: Bucket, dest: Path) -> None:
    """A run without a group comes at once, a shard with the last of its group; what waits is told.

    What waits for one pull does not wait for another, and a group that was complete stays so.
    """
    alone, first = leave(folder, 0, None), leave(folder, 1, shard(0))
    before = pull_into(dest, folder, ONLY)
    assert before.code == ExitCode.DONE
    assert before.notes == ["group monday: 1 of 2 shards are done; its jobs wait"]
    assert runs_in(dest) == [alone]
    pull_into(dest.with_name("other"), folder, ONLY)
    pull_into(dest.with_name("other"), folder)
    assert runs_in(dest.with_name("other")) == [alone, first]
    second = leave(folder, 2, shard(1))
    after = pull_into(dest, folder, ONLY)
    assert (after.code, after.notes) == (ExitCode.DONE, [])
    assert runs_in(dest) == [alone, first, second]
    third = leave(folder, 3, shard(0))
    pull_into(dest, folder, ONLY)
    assert runs_in(dest) == [alone, first, second, third]


def test_an_interrupted_shard_does_not_complete_a_group(folder: Bucket, dest: Path) -> None:
    """Its next attempt does; then what the interrupted one finished comes, too."""
    runs = [leave(folder, 1, shard(0)), leave(folder, 2, shard(1), interrupted=True)]
    pull_into(dest, folder, ONLY)
    assert runs_in(dest) == []
    runs.append(leave(folder, 3, shard(1)))
    pull_into(dest, folder, ONLY)
    assert runs_in(dest) == runs


def test_options_cut_what_comes_not_what_counts(folder: Bucket, dest: Path) -> None:
    """What could not be fetched with the others comes later, without them; so does what began too early."""
    first, second = leave(folder, 1, shard(0)), leave(folder, 30, shard(1))
    some = pull_into(dest, folder, ONLY, "--max-bytes", "30")
    assert (some.code, runs_in(dest)) == (ExitCode.PARTIAL, [first])
    assert pull_into(dest, folder, ONLY).code == ExitCode.DONE
    assert runs_in(dest) == [first, second]
    since = f"{datetime.strptime(second.partition('-')[0], '%Y%m%dT%H%M%S%z'):%Y-%m-%dT%H:%M:%SZ}"
    other = dest.with_name("other")
    assert pull_into(other, folder, ONLY, "--since", since).code == ExitCode.DONE
    assert runs_in(other) == [second]


def test_seventy_shards_are_one_group(folder: Bucket, dest: Path) -> None:
    """They wait for the last of them, and then come together."""
    runs = [leave(folder, number, shard(number, 70)) for number in range(69)]
    pull_into(dest, folder, ONLY)
    assert runs_in(dest) == []
    runs.append(leave(folder, 69, shard(69, 70)))
    pull_into(dest, folder, ONLY)
    assert runs_in(dest) == sorted(runs)


def test_a_group_for_which_nothing_more_is_to_be_expected_is_a_problem(
    folder: Bucket, dest: Path
) -> None:
    """Its jobs wait on, and scripts see it; the missing shard may come at any time."""
    first = leave(folder, 1, shard(0), hours=9)
    for _ in range(2):
        assert pull_into(dest, folder, ONLY).code == ExitCode.PARTIAL
    second = leave(folder, 2, shard(1), hours=9)
    assert pull_into(dest, folder, ONLY).code == ExitCode.DONE
    assert runs_in(dest) == [first, second]
