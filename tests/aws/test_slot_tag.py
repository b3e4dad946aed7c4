"""The slot in a machine's tag: at once where it is this boot's, with a bounded wait where it may be the last one's."""

from collections.abc import Iterator, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from agent.base.logs import Log
from agent.batch.slots import TAG_COMES_WITHIN
from agent.machine.metadata import read_facts
from agent.run.background import slot_of_tag
from tests.parts.metadata import Metadata

DAY = timedelta(days=1)


@pytest.fixture
def today() -> datetime:
    """The slot of this boot, 50 s ago; as of the test, not of its import some minutes before."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=50)


def tagged(slot: datetime) -> dict[str, str]:
    """The tag as the Scheduler writes it."""
    return {"mayfly-slot": f"{slot:%Y-%m-%dT%H:%M:%SZ}"}


@pytest.fixture
def service(today: datetime) -> Iterator[Metadata]:
    """A machine that still has the tag of yesterday's slot."""
    with Metadata(tags=tagged(today - DAY)) as metadata:
        yield metadata


async def slot(
    service: Metadata, *, up: float, late: Mapping[str, str] | None = None
) -> tuple[datetime | None, int]:
    """Return what slot the machine is for, seconds after its boot, and how often it waited for a newer tag.

    Args:
        service: Its metadata.
        up: Seconds since its boot.
        late: Tags that are written while it waits.
    """
    waits: list[str] = []

    def hear(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
        waits.append(event["event"])
        service.tags |= late or {}
        return ""

    log: Log = structlog.wrap_logger(None, processors=[hear])
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
    facts = await read_facts(environ, log)
    booted = datetime.now(UTC) - timedelta(seconds=up)
    found = await slot_of_tag(facts, booted, environ, log)
    assert set(waits) <= {"slot.tag_is_old"}
    return found, len(waits)


async def test_the_slot_is_that_of_this_boot(service: Metadata, today: datetime) -> None:
    """A tag that comes late is waited for (the two schedules of mode stopped differ by up to a minute)."""
    assert await slot(service, up=20, late=tagged(today)) == (today, 1)
    assert await slot(service, up=20) == (today, 0), "it is there from the beginning"
    service.tags = {}
    assert await slot(service, up=20) == (None, 0), "a person launched it"


async def test_a_machine_off_schedule_keeps_its_last_slot(
    service: Metadata, today: datetime
) -> None:
    """When no newer tag comes within the limit, EC2 or a person started it, and its slot is the one it had."""
    found, waits = await slot(service, up=TAG_COMES_WITHIN.total_seconds() - 3)
    assert found == today - DAY
    assert waits <= 1
