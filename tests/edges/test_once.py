"""One manifest and one index entry for a run, whoever else holds a copy of its spool."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.base.errors import StoreConflict
from agent.bucket.address import LocalBucket
from agent.bucket.store import Bucket
from agent.core.layout import manifest_key
from agent.steps.once import committed_as, leave_one, put_once
from tests.bucket.layout import entry_key

RUN = "20261122T064205Z-3f9a1c"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLDER = entry_key(RUN, NOON)
YOUNGER = entry_key(RUN, NOON + timedelta(milliseconds=1))
ANOTHER_RUNS = entry_key("20261122T064205Z-000000", NOON - timedelta(seconds=1))
BEFORE_THE_START = entry_key(RUN, NOON - timedelta(hours=12))


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket in a folder."""
    return Bucket.open(LocalBucket(tmp_path / "bucket"), None)


async def test_a_run_without_an_entry_is_not_committed(bucket: Bucket) -> None:
    """Whatever other runs have."""
    await bucket.put(ANOTHER_RUNS, b"{}")
    assert await committed_as(bucket, RUN, b"{}") is None


@pytest.mark.parametrize("key", [OLDER, BEFORE_THE_START])
async def test_a_run_that_a_copy_has_committed_is_done(bucket: Bucket, key: str) -> None:
    """Also where the other computer's clock is behind."""
    await bucket.put(key, b"{}")
    assert await committed_as(bucket, RUN, b"{}") == key


async def test_another_hand_off_is_a_conflict(bucket: Bucket) -> None:
    """Before anything of this one is written."""
    await bucket.put(OLDER, b'{"of": "another"}')
    with pytest.raises(StoreConflict, match="another hand-off"):
        await committed_as(bucket, RUN, b"{}")


@pytest.mark.parametrize("own", [OLDER, YOUNGER])
async def test_the_older_entry_stays(bucket: Bucket, own: str) -> None:
    """Whichever of the two writers sees both; the key of the one that came later may be the older."""
    await bucket.put(manifest_key(RUN), b"m")
    await bucket.put(OLDER, b"{}")
    await bucket.put(YOUNGER, b"{}")
    assert await leave_one(bucket, RUN, own, b"{}", b"m") == OLDER
    assert await bucket.get(OLDER) == b"{}"
    assert await bucket.get(YOUNGER) is None


async def test_a_single_entry_stays(bucket: Bucket) -> None:
    """It is not even looked at."""
    await bucket.put(OLDER, b"{}")
    assert await leave_one(bucket, RUN, OLDER, b"{}", b"m") == OLDER
    assert await bucket.get(OLDER) == b"{}"


@pytest.mark.parametrize(("own", "other"), [(OLDER, YOUNGER), (YOUNGER, OLDER)])
async def test_of_two_hand_offs_the_manifest_decides(bucket: Bucket, own: str, other: str) -> None:
    """An entry that names a manifest which is not there any more goes, be it ours or another writer's."""
    await bucket.put(manifest_key(RUN), b"m")
    await bucket.put(own, b"{}")
    await bucket.put(other, b'{"of": "another"}')
    with pytest.raises(StoreConflict, match="another hand-off"):
        await leave_one(bucket, RUN, other, b'{"of": "another"}', b"n")
    await bucket.put(other, b'{"of": "another"}')
    assert await leave_one(bucket, RUN, own, b"{}", b"m") == own
    assert await bucket.get(other) is None


async def test_what_is_there_is_put_once(bucket: Bucket) -> None:
    """The same again is fine, something else is a conflict and stays."""
    await put_once(bucket, "runs/manifest", b"{}")
    await put_once(bucket, "runs/manifest", b"{}")
    with pytest.raises(StoreConflict):
        await put_once(bucket, "runs/manifest", b"[]")
    assert await bucket.get("runs/manifest") == b"{}"
