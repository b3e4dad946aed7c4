"""Names: what they are made of, and what is not one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.ids import (
    Batch,
    is_run_id,
    parse_stamp,
    process_nonce,
    run_id,
    run_started,
    stamp,
)

MOMENTS = st.integers(946_684_800, 221_845_391_999).flatmap(
    lambda seconds: st.integers(0, 999_999).map(
        lambda micros: datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    )
)
"""From 2000 to 8999."""
TOKYO = timezone(timedelta(hours=9))


def test_a_run_is_called_by_its_start_and_some_chance() -> None:
    """In UTC, wherever the machine is."""
    started = datetime(2026, 11, 22, 15, 42, 5, tzinfo=TOKYO)
    assert run_id(started, bytes.fromhex("3f9a1c77")) == "20261122T064205Z-3f9a1c"
    assert run_started("20261122T064205Z-3f9a1c") == started
    assert process_nonce(bytes.fromhex("00c0ffee99")) == "00c0ffee"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20261122T064205Z",
        "20261122T064205Z-3F9A1C",
        "20261122T064205Z-3f9a1c\n",
        "20261322T064205Z-3f9a1c",
        "20261122T064260Z-3f9a1c",
        "99991122T064205Z-3f9a1c",
        "19991122T064205Z-3f9a1c",
        "\u0662\u0660261122T064205Z-3f9a1c",
    ],
)
def test_what_is_no_run_id(text: str) -> None:
    """No other digits, no line break, no month 13."""
    assert not is_run_id(text)
    with pytest.raises(ValueError, match="not a run id"):
        run_started(text)


@given(MOMENTS, MOMENTS)
def test_stamps_sort_as_times_do(one: datetime, other: datetime) -> None:
    """To the millisecond, and each can be read back."""
    whole = one.replace(microsecond=one.microsecond // 1000 * 1000)
    assert parse_stamp(stamp(one)) == whole
    earlier, later = sorted([one, other])
    assert stamp(earlier) <= stamp(later)


def test_a_batch_is_a_slot_a_shard_or_a_run() -> None:
    """And says which."""
    slot = Batch.of_slot("main", datetime(2026, 11, 23, 3, 0, tzinfo=TOKYO))
    shard = Batch.of_shard("main", "20261122T180000Z.0-of-2", 3, 8)
    run = Batch.of_run("main", "20261122T064205Z-3f9a1c")
    assert (slot.name, shard.name) == ("20261122T180000Z", "20261122T180000Z.0-of-2.3-of-8")
    assert slot.slot == datetime(2026, 11, 22, 18, tzinfo=UTC)
    assert shard.shard == ("20261122T180000Z.0-of-2", 3, 8)
    assert (slot.shard, shard.slot, run.slot, run.shard) == (None, None, None, None)
    assert all(one.valid for one in (slot, shard, run))


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        ("Main", "20261122T180000Z"),
        ("", "20261122T180000Z"),
        ("a/b", "20261122T180000Z"),
        ("main", ""),
        ("main", ".."),
        ("main", "20261122T250000Z"),
        ("main", "group.2-of-2"),
        ("main", "group.0-of-0"),
        ("main", "group.00-of-2"),
        ("main", "group.0-of-200000"),
        ("main", "-group.0-of-2"),
        ("main", "a/b.0-of-2"),
        ("main", "group.0-of-2\n"),
    ],
)
def test_what_is_no_batch(schedule: str, name: str) -> None:
    """Its parts must be able to stand in a key, and mean something."""
    assert not Batch(schedule, name).valid
