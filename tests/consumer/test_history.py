"""The history of a bucket: what is in it is told, and what is forged is told apart."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import StoreError
from agent.bucket.address import LocalBucket, S3Bucket, bucket_at
from agent.config.credentials import Credentials
from agent.config.settings import Store
from agent.core.ids import run_id
from agent.core.manifest import IndexEntry
from consumer.bucket import ReadOnlyBucket
from consumer.history import (
    MAX_MARKER_BYTES,
    Begun,
    Committed,
    Row,
    Unreadable,
    commit_of,
    entry_problem,
    index_keys,
    latest,
    recent,
)
from tests.bucket.bucket import Bucket, reference
from tests.bucket.layout import BEGUN, ENTRIES, entry_key
from tests.bucket.leaving import RUN, leave_begun, leave_run, record
from tests.parts.seaweed import S3Server

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def run_at(hour: int) -> str:
    """A run of that day."""
    return run_id(datetime(2026, 11, 22, hour, tzinfo=UTC), bytes([hour, 0, 1]))


def words(rows: list[Row]) -> list[tuple[str, str]]:
    """Each row as its kind and its run."""
    return [(type(row).__name__, row.run) for row in rows]


async def test_runs_come_newest_first_and_no_more_than_asked_for(bucket: Bucket) -> None:
    """Committed runs are ordered by their start."""
    for hour in (1, 3, 2):
        leave_run(bucket, run_at(hour), files={})
    rows = await recent(bucket.reader(), now=NOON, limit=2)
    assert words(rows) == [("Committed", run_at(3)), ("Committed", run_at(2))]


async def test_a_run_that_vanished_is_told_from_one_under_way(bucket: Bucket) -> None:
    """A marker without a commit is under way until its deadline, and vanished after it."""
    leave_run(bucket, run_at(1), files={})
    leave_begun(bucket, run_at(9))
    leave_begun(bucket, run_at(11))
    rows = await recent(bucket.reader(), now=NOON, limit=9)
    assert words(rows) == [
        ("Begun", run_at(11)),
        ("Begun", run_at(9)),
        ("Committed", run_at(1)),
    ]
    assert [row.vanished for row in rows if isinstance(row, Begun)] == [False, True]


async def test_an_empty_bucket_has_no_runs(bucket: Bucket) -> None:
    """Nothing is no error."""
    assert await recent(bucket.reader(), now=NOON, limit=9) == []
    assert await latest(bucket.reader(), NOON) is None


async def test_the_latest_run_is_not_one_that_a_wrong_clock_dated_to_come(
    folder: Bucket,
) -> None:
    """It is the latest only where there is no other."""
    wrong = "20360101T000000Z-abcdef"
    leave_run(folder, wrong, files={})
    assert (only := await latest(folder.reader(), NOON)) is not None
    leave_run(folder, RUN, files={})
    assert (last := await latest(folder.reader(), NOON)) is not None
    assert (only.run, last.run) == (wrong, RUN)


async def test_a_folder_that_was_removed_is_not_an_empty_bucket(
    folder: Bucket, tmp_path: Path
) -> None:
    """A disk that is not mounted any more is a failure of the bucket, for each way to read it."""
    key = leave_run(folder, files={})
    bucket = folder.reader()
    (tmp_path / "bucket with spaces").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="there is no bucket"):
        await index_keys(bucket)
    with pytest.raises(StoreError, match="there is no bucket"):
        await bucket.get(key, limit=1)
    with pytest.raises(StoreError, match="there is no bucket"):
        await bucket.size(key)


async def test_a_run_committed_twice_counts_once_by_its_first_commit(bucket: Bucket) -> None:
    """A second commit of the same run is a no-op, also when it says something else."""
    first = leave_run(bucket, RUN, files={})
    entry = bucket.entry(RUN) | {"status": "failed"}
    bucket.put_entry(RUN, entry, at=record(RUN).finished + timedelta(hours=5))
    rows = await recent(bucket.reader(), now=NOON, limit=9)
    assert [row.key.key for row in rows if isinstance(row, Committed)] == [first]


async def test_a_cursor_saves_what_was_seen(bucket: Bucket) -> None:
    """Keys that sort up to the cursor are not listed again."""
    keys = [leave_run(bucket, run_at(hour), files={}) for hour in (1, 2, 3)]
    assert [key.key for key in await index_keys(bucket.reader(), after=keys[0])] == keys[1:]


async def test_the_commit_of_a_run_is_found_however_late_it_came(folder: Bucket) -> None:
    """A run that a later one handed over is committed under that later time."""
    leave_run(folder, RUN, files={})
    late = folder.move_entry(RUN, record(RUN).finished + timedelta(days=40))
    found = await commit_of(folder.reader(), RUN)
    assert found is not None
    assert found.key == late


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"run_id": "20260101T000000Z-000000"}, "it is about another run"),
        ({"manifest": {"key": "runs/x", "bytes": 1, "sha256": "0" * 64}}, "its manifest is not"),
        ({"started": "0001-01-01T00:00:00Z"}, "its times are impossible"),
        ({"finished": "9999-12-31T23:59:59Z"}, "its times are impossible"),
        ({"started": "2026-11-22T06:42:05"}, "its times are impossible"),
        ({"bytes": 10**400}, "its numbers are impossible"),
        ({"files": -1}, "files: "),
        ({"jobs": [{"name": "a", "status": "failed"}] * 2}, "it lists a job twice"),
        ({"jobs": [{"name": "a", "status": "failed", "seconds": -1}]}, "its durations"),
        ({"jobs": [{"name": "a", "status": "failed", "seconds": 1e300}]}, "its durations"),
        ({"jobs": [{"name": "a", "status": "failed", "bytes": -5}]}, "its numbers"),
        ({"jobs": [{"name": "a", "status": "great"}]}, "jobs.0.status: "),
        ({"status": "\x1b[31m"}, "status: "),
        ({"jobs": None}, "jobs: "),
    ],
)
async def test_an_entry_that_cannot_be_true_is_unreadable(
    folder: Bucket, change: dict[str, Any], problem: str
) -> None:
    """What an index entry claims is checked before anybody computes with it."""
    leave_run(folder, RUN, files={})
    folder.amend(RUN, **change)
    (row,) = await recent(folder.reader(), now=NOON, limit=9)
    assert isinstance(row, Unreadable)
    assert row.problem.startswith(problem)


@pytest.mark.parametrize(
    "text", [b"", b"\x00", b"[[[[" * 10_000, b"NaN", b'{"seconds": NaN}', b"\xff", b'"' * 99]
)
async def test_garbage_where_an_entry_or_a_marker_should_be_is_a_value(
    folder: Bucket, text: bytes
) -> None:
    """No content of an object ends in a traceback."""
    folder.put_entry(RUN, text, at=NOON)
    folder.put_begun(run_at(4), text)
    rows = await recent(folder.reader(), now=NOON, limit=9)
    assert words(rows) == [("Unreadable", RUN), ("Unreadable", run_at(4))]


@pytest.mark.parametrize(
    "change",
    [{"run_id": "x"}, {"deadline": "0001-01-01T00:00:00Z"}, {"deadline": "2026-11-22T00:00:00"}],
)
async def test_a_forged_marker_is_unreadable(folder: Bucket, change: dict[str, str]) -> None:
    """A marker is believed as little as an entry."""
    leave_begun(folder, RUN)
    folder.put_begun(RUN, folder.begun()[RUN] | change)
    assert words(await recent(folder.reader(), now=NOON, limit=9)) == [("Unreadable", RUN)]


async def test_an_object_too_large_to_be_a_marker_is_not_read_to_its_end(
    folder: Bucket,
) -> None:
    """Sizes are bounded before anything is parsed."""
    folder.put_begun(RUN, b" " * (MAX_MARKER_BYTES + 1))
    (row,) = await recent(folder.reader(), now=NOON, limit=9)
    assert isinstance(row, Unreadable)
    assert row.problem == "it is too large"


async def test_objects_that_only_resemble_entries_are_no_runs(folder: Bucket) -> None:
    """Whatever else somebody leaves under index/ and started/ is passed over."""
    folder.objects.put(f"{ENTRIES}README.txt", b"hello")
    folder.objects.put(f"{ENTRIES}{RUN}.json", b"{}")
    folder.objects.put(entry_key(RUN, NOON).replace("20", "\u0662\u0660", 1), b"{}")
    folder.put_begun("deep/er", b"{}")
    folder.objects.put(f"{BEGUN}{RUN}.txt", b"{}")
    assert await recent(folder.reader(), now=NOON, limit=9) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(IndexEntry.model_fields))


@given(changes=st.dictionaries(FIELDS, JSON, max_size=3))
def test_no_change_of_an_entry_escapes_its_judgement(changes: dict[str, Any]) -> None:
    """An entry with arbitrary values either does not parse, or is judged without an error."""
    about = record(RUN)
    entry = {
        "run_id": RUN,
        "status": "succeeded",
        "started": about.started.isoformat(),
        "finished": about.finished.isoformat(),
        "files": 0,
        "bytes": 0,
        "jobs": [],
        **reference(RUN, b"x"),
    }
    try:
        parsed = IndexEntry.model_validate_json(json.dumps(entry | changes))
    except ValueError:
        return
    assert entry_problem(parsed, RUN) is None or changes


def test_a_local_bucket_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """A mistyped folder is not an empty history."""
    address = bucket_at(Store(url="file:///nowhere/at/all"), tmp_path)
    assert isinstance(address, LocalBucket)
    with pytest.raises(StoreError, match="no bucket in /nowhere/at/all") as caught:
        ReadOnlyBucket.open(address, None)
    assert caught.value.remedy


async def test_a_bucket_that_refuses_us_says_so(s3_server: S3Server, s3_bucket: str) -> None:
    """Wrong keys are an error with a remedy, not an empty history."""
    address = bucket_at(Store(url=f"s3://{s3_bucket}", endpoint=s3_server.url), Path())
    assert isinstance(address, S3Bucket)
    bucket = ReadOnlyBucket.open(address, Credentials("nobody", "nothing"))
    with pytest.raises(StoreError, match="refused") as caught:
        await recent(bucket, now=NOON, limit=1)
    assert "keys" in caught.value.remedy
