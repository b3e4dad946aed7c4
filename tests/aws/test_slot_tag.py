"""The slot in a machine's tag: at once where it is this boot's, with a bounded wait where it may be the last one's."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from agent.base.logs import Log
from agent.batch.slots import TAG_COMES_WITHIN
from agent.machine.metadata import read_facts
from agent.run.background import slot_of_tag
from tests.parts.metadata import Metadata

DAY = timedelta(days=1)
LOG: Log = structlog.wrap_logger(None, processors=[lambda _logger, _name, event: str(event)])


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


async def slot(service: Metadata, *, up: float) -> tuple[datetime | None, float]:
    """Return what slot the machine is for, seconds after its boot, and how long it took to know."""
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
    facts = await read_facts(environ, LOG)
    began = time.monotonic()
    booted = datetime.now(UTC) - timedelta(seconds=up)
    found = await slot_of_tag(facts, booted, environ, LOG)
    return found, time.monotonic() - began


async def test_a_tag_that_comes_after_the_machine_is_waited_for(
    service: Metadata, today: datetime
) -> None:
    """The two schedules of mode stopped differ by up to a minute."""

    async def write() -> None:
        await asyncio.sleep(2)  # so that it is asked for, and missing, before
        service.tags |= tagged(today)

    writing = asyncio.create_task(write())
    found, seconds = await slot(service, up=20)
    await writing
    assert found == today
    assert 2 <= seconds < 40


async def test_a_machine_off_schedule_keeps_its_last_slot(
    service: Metadata, today: datetime
) -> None:
    """When no newer tag comes within the limit, EC2 or a person started it, and its slot is the one it had."""
    found, seconds = await slot(service, up=TAG_COMES_WITHIN.total_seconds() - 3)
    assert found == today - DAY
    assert seconds < 30


async def test_the_tag_of_this_boot_is_taken_at_once(service: Metadata, today: datetime) -> None:
    """In mode launch it is there from the beginning."""
    service.tags = tagged(today)
    found, seconds = await slot(service, up=20)
    assert found == today
    assert seconds < 3


async def test_a_machine_without_the_tag_has_no_slot(service: Metadata, today: datetime) -> None:
    """A person launched it."""
    service.tags = {}
    assert (await slot(service, up=20))[0] is None
