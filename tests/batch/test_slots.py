"""Slots: when a text names one, and when a machine's tag may still be the last one's."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.batch.slots import STALE_TAG, TAG_COMES_WITHIN, parse_slot, tag_may_change

SLOT = datetime(2026, 11, 22, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("2026-11-22T18:00:00Z", SLOT),
        ("2026-11-23T03:00:00+09:00", SLOT),
        ("2026-11-23T03:00+09:00", SLOT),
        ("2026-11-22T18:00:00.123Z", SLOT),
        ("2026-11-22T18:00:00", None),
        ("2026-13-22T18:00:00Z", None),
        ("1999-11-22T18:00:00Z", None),
        ("9999-11-22T18:00:00Z", None),
        ("now", None),
        ("", None),
    ],
)
def test_a_slot_is_a_moment(text: str, slot: datetime | None) -> None:
    """A time without a zone would be another slot on another machine."""
    assert parse_slot(text) == slot


@pytest.mark.parametrize(
    ("age", "up", "may"),
    [
        (timedelta(0), timedelta(seconds=20), False),
        (STALE_TAG, timedelta(seconds=20), False),
        (timedelta(days=1), timedelta(seconds=20), True),
        (timedelta(days=1), TAG_COMES_WITHIN, False),
        (-timedelta(seconds=30), timedelta(seconds=20), False),
        (timedelta(days=1), -timedelta(hours=3), False),
    ],
    ids=["on time", "started late", "of yesterday", "nothing came", "before the boot", "set back"],
)
def test_an_old_tag_is_looked_at_again(age: timedelta, up: timedelta, *, may: bool) -> None:
    """The schedule that writes it may be a minute behind the one that starts the machine; after that it is final."""
    booted = SLOT + age
    assert tag_may_change(SLOT, booted, booted + up) is may
    assert not tag_may_change(SLOT, None, booted + up)
