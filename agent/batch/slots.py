"""Slots: the scheduled time that a run is for, as a person or a machine's tag names it. Decisions only."""

import re
from datetime import UTC, datetime, timedelta

from agent.contract.ids import EARLIEST, LATEST

STALE_TAG = timedelta(minutes=5)
"""A tag this much older than the boot may be the last slot's: in mode stopped a second schedule writes it, and each
schedule is exact to a minute only."""
TAG_COMES_WITHIN = timedelta(seconds=75)
"""After the boot, for such a tag: the minute by which two schedules may differ, and some for the call itself."""

_SLOT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_slot(text: str) -> datetime | None:
    """Return the time that somebody names as a slot, to the second; None when it is not ISO 8601 with a zone."""
    if _SLOT.fullmatch(text) is None:
        return None
    try:
        slot = datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        return None
    return slot if EARLIEST <= slot <= LATEST else None


def tag_may_change(slot: datetime, booted: datetime | None, now: datetime) -> bool:
    """Tell whether a slot's tag may be the last slot's, with this boot's own still to come.

    A boot that is to come says that the clock was set back since: how long ago it was is not known, and nobody waits.
    """
    if booted is None:
        return False
    return slot < booted - STALE_TAG and booted <= now < booted + TAG_COMES_WITHIN
