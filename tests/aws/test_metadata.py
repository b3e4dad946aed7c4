"""The metadata service: the real protocol, its faults, and a laptop that has none."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.base.errors import MetadataError
from agent.base.logs import RunLogger
from agent.machine.instance import PATHS, HostFacts, SpotNotice
from agent.machine.metadata import (
    ENDPOINT,
    FACTS_SECONDS,
    NOTICE_SECONDS,
    Metadata,
    metadata_endpoint,
    read_facts,
)
from tests.notify.conftest import Events
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.metadata import Metadata as Service
from tests.parts.stalled import refused, silent
from tests.parts.waiting import wait_until

LAUNCHED = datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC)
SLACK = 20.0
"""Seconds on top of a documented limit, for a busy machine."""


@pytest.fixture
def service() -> Iterator[Service]:
    """The service of a spot instance."""
    with Service(tags={"Name": "mayfly", "mayfly-slot": "2026-11-22T18:00:00Z"}) as server:
        server.document["pendingTime"] = "2026-11-22T18:00:03Z"
        yield server


def environ_of(server: Service) -> dict[str, str]:
    """An environment that names the service."""
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{server.url}/"}


async def test_facts_and_tags_come_with_one_token(service: Service, run_logger: RunLogger) -> None:
    """All facts are read, with IMDSv2's token, which is asked for once; a fact is asked for once, and no other."""
    facts = await read_facts(environ_of(service), run_logger.log)
    assert facts is not None
    assert (facts.instance_id, facts.instance_type) == ("i-0123456789abcdef0", "t3.medium")
    assert (facts.zone, facts.region) == ("ap-northeast-3a", "ap-northeast-3")
    assert (facts.life_cycle, facts.launch_index) == ("spot", 0)
    assert facts.launched == LAUNCHED
    assert facts.slot == datetime(2026, 11, 22, 18, tzinfo=UTC)
    assert facts.image == "ami-0123456789abcdef0"
    assert (facts.shards, facts.public_address) == (None, False)
    asked = [path.removeprefix("/latest/") for _, path, _ in service.requests]
    assert asked == ["api/token", *PATHS.values()]


async def test_facts_that_are_missing_or_endless_leave_the_others(service: Service) -> None:
    """Without tags in the metadata there is no slot, and an answer of megabytes fills no memory and no manifest."""
    service.tags = {}
    service.document["instanceId"] = "i-" + "0" * 5_000_000
    facts = await Metadata(service.url).facts()
    assert facts == HostFacts(life_cycle="spot", launch_index=0)
    service.said["dynamic/instance-identity/document"] = None
    assert await Metadata(service.url).facts() == facts


async def test_a_fleets_machine_knows_how_many_there_are(service: Service) -> None:
    """The tag is told as it is, be it nonsense: what a shard makes of it is another's decision."""
    service.tags["mayfly-shards"] = "many"
    assert (await Metadata(service.url).facts()).shards == "many"


async def test_notices_appear_as_soon_as_they_are_up(service: Service) -> None:
    """The next poll has them, with the time they name; a token that is no longer accepted costs one more request."""
    client = Metadata(service.url)
    assert await client.notice() is None
    assert await client.rebalance() is None
    service.notice = LAUNCHED
    service.rebalance = True
    service.tokens.clear()
    assert await client.notice() == SpotNotice("terminate", LAUNCHED)
    assert await client.rebalance() is not None


async def test_a_service_that_recovers_in_time_is_not_noticed(service: Service) -> None:
    """Server errors are tried again within the limit."""
    service.status = 503
    client = Metadata(service.url)
    reading = asyncio.create_task(client.facts())
    await asyncio.to_thread(
        wait_until, lambda: len(service.requests) > 1, what="the service to be asked again"
    )
    service.status = None
    assert (await reading).instance_id


@pytest.mark.long
async def test_a_machine_without_credits_still_learns_its_slot(
    service: Service, run_logger: RunLogger
) -> None:
    """What takes a busy machine many seconds is no reason to do without the slot."""
    service.delay = 0.5
    facts = await read_facts(environ_of(service), run_logger.log)
    assert facts is not None
    assert facts.slot == datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@pytest.mark.long
async def test_a_service_that_fails_is_an_event_and_empty_facts(
    service: Service, run_logger: RunLogger, events: Events
) -> None:
    """A run on a machine whose service is broken goes on without facts, in bounded time."""
    service.status = 500
    began = time.monotonic()
    facts = await read_facts(environ_of(service), run_logger.log)
    assert facts == HostFacts()
    assert time.monotonic() - began < FACTS_SECONDS + SLACK
    assert [event["event"] for event in events] == ["metadata.unavailable"]
    assert "HTTP 500" in events[0]["reason"]


async def test_a_service_that_forbids_is_an_error_at_once(service: Service) -> None:
    """An instance whose metadata is switched off answers 403, which no retry changes."""
    service.status = 403
    with pytest.raises(MetadataError, match="no token") as caught:
        await Metadata(service.url).facts()
    assert "metadata options" in caught.value.remedy
    assert [method for method, *_ in service.requests] == ["PUT"]


class _Portal(QuietHandler):
    """Somebody else at the service's address, who sends everybody to a page that has no address."""

    def do_PUT(self) -> None:  # noqa: N802 -- the name is the library's
        self.answer(302, headers={"Location": "http://["})


@contextmanager
def portal() -> Iterator[str]:
    """A redirect that is not followed, and must not end who asks: the watch for a notice, or the run."""
    with LoopbackHttp(_Portal) as server:
        yield server.url.removeprefix("http://")


@pytest.mark.parametrize("address", [silent, refused, portal])
async def test_no_answer_is_a_bounded_error(
    address: Callable[[], AbstractContextManager[str]],
) -> None:
    """A look at the notices ends, so that there can be another one."""
    began = time.monotonic()
    with address() as place, pytest.raises(MetadataError):
        await Metadata(f"http://{place}").notice()
    assert time.monotonic() - began < NOTICE_SECONDS + SLACK


async def test_a_machine_that_is_not_ec2s_asks_nobody(
    tmp_path: Path, service: Service, run_logger: RunLogger
) -> None:
    """The firmware's marks decide, unless the environment switches the service off, as for boto3."""
    (tmp_path / "sys_vendor").write_text("LENOVO\n")
    for firmware in (tmp_path, tmp_path / "nothing"):
        assert metadata_endpoint({}, firmware) is None
        assert await read_facts({}, run_logger.log, firmware) is None
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert metadata_endpoint({}, tmp_path) == ENDPOINT
    environ = {**environ_of(service), "AWS_EC2_METADATA_DISABLED": "TRUE"}
    assert await read_facts(environ, run_logger.log, tmp_path) is None
    assert service.requests == []


async def test_proxies_of_the_environment_are_not_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's address is the machine's own, whatever proxy the environment has."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert (await Metadata(service.url).facts()).instance_id
