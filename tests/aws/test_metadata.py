"""The metadata service: the real protocol, its faults, and a laptop that has none."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from agent.base.errors import MetadataError
from agent.base.logs import Log
from agent.machine.instance import HostFacts
from agent.machine.metadata import (
    ENDPOINT,
    FACTS_SECONDS,
    NOTICE_SECONDS,
    Metadata,
    metadata_endpoint,
    read_facts,
)
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.metadata import Metadata as Service
from tests.parts.stalled import refused
from tests.parts.waiting import wait_until

LAUNCHED = datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC)
SLACK = 20.0
"""Seconds on top of a documented limit, for a busy machine."""


@pytest.fixture
def service() -> Iterator[Service]:
    """The service of a spot instance."""
    with Service(tags={"Name": "mayfly", "mayfly-slot": "2026-11-22T18:00:00Z"}) as server:
        server.said["dynamic/instance-identity/document"] = (
            '{"pendingTime": "2026-11-22T18:00:03Z"}'
        )
        yield server


def environ_of(server: Service) -> dict[str, str]:
    """An environment that names the service."""
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{server.url}/"}


def log_of(capture: LogCapture) -> Log:
    """A log whose events are kept."""
    logger: Log = structlog.wrap_logger(None, processors=[capture])
    return logger


async def test_facts_and_tags_come_with_one_token(service: Service) -> None:
    """All facts are read, with IMDSv2's token, which is asked for once."""
    facts = await read_facts(environ_of(service), log_of(LogCapture()))
    assert facts is not None
    assert (facts.instance_id, facts.instance_type) == ("i-0123456789abcdef0", "t3.medium")
    assert (facts.zone, facts.region) == ("ap-northeast-3a", "ap-northeast-3")
    assert (facts.life_cycle, facts.launch_index) == ("spot", 0)
    assert facts.launched == LAUNCHED
    assert facts.slot == datetime(2026, 11, 22, 18, tzinfo=UTC)
    assert not facts.public_address
    assert [method for method, *_ in service.requests].count("PUT") == 1


async def test_tags_that_are_not_in_the_metadata_are_no_failure(service: Service) -> None:
    """Where the instance does not show its tags there is no slot, and everything else is there."""
    service.said["meta-data/tags/instance"] = None
    facts = await Metadata(service.url).facts()
    assert facts.tags == {}
    assert facts.slot is None
    assert facts.instance_id


async def test_a_token_that_is_no_longer_accepted_is_replaced(service: Service) -> None:
    """A refused token costs one more request, not a failure."""
    client = Metadata(service.url)
    assert await client.notice() is None
    service.forget_tokens()
    service.notice = LAUNCHED
    notice = await client.notice()
    assert notice is not None
    assert notice.action == "terminate"


async def test_notices_appear_as_soon_as_they_are_up(service: Service) -> None:
    """No notice is None; the next look after it is put up has it, with the time it names."""
    client = Metadata(service.url)
    assert await client.notice() is None
    assert await client.rebalance() is None
    service.notice = LAUNCHED
    service.rebalance = True
    notice = await client.notice()
    assert notice is not None
    assert notice.time == LAUNCHED
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
async def test_a_machine_without_credits_still_learns_its_slot(service: Service) -> None:
    """What takes a busy machine many seconds is no reason to do without the slot."""
    service.delay = 0.5
    facts = await read_facts(environ_of(service), log_of(LogCapture()))
    assert facts is not None
    assert facts.slot == datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@pytest.mark.long
async def test_a_service_that_fails_is_an_event_and_empty_facts(service: Service) -> None:
    """A run on a machine whose service is broken goes on without facts, in bounded time."""
    service.status = 500
    capture = LogCapture()
    began = time.monotonic()
    facts = await read_facts(environ_of(service), log_of(capture))
    assert facts == HostFacts()
    assert time.monotonic() - began < FACTS_SECONDS + SLACK
    assert [entry["event"] for entry in capture.entries] == ["metadata.unavailable"]
    assert "HTTP 500" in capture.entries[0]["reason"]


async def test_a_service_that_forbids_is_an_error_at_once(service: Service) -> None:
    """An instance whose metadata is switched off answers 403, which no retry changes."""
    service.status = 403
    with pytest.raises(MetadataError, match="no token") as caught:
        await Metadata(service.url).facts()
    assert "metadata options" in caught.value.remedy
    assert [method for method, *_ in service.requests] == ["PUT"]


async def test_a_service_that_hangs_is_bounded(service: Service) -> None:
    """A look at the notices ends, so that there can be another one."""
    service.delay = 60
    began = time.monotonic()
    with pytest.raises(MetadataError):
        await Metadata(service.url).notice()
    assert time.monotonic() - began < NOTICE_SECONDS + SLACK


async def test_nobody_at_the_address_is_bounded() -> None:
    """A refused connection is tried again, and then an error."""
    with refused() as address, pytest.raises(MetadataError):
        await Metadata(f"http://{address}").notice()


async def test_an_endless_answer_is_cut(service: Service) -> None:
    """A service that sends megabytes fills no memory and no manifest."""
    service.said["meta-data/instance-id"] = "i-" + "0" * 5_000_000
    facts = await Metadata(service.url).facts()
    assert facts.instance_id is None
    assert facts.zone == "ap-northeast-3a"


async def test_a_laptop_has_no_facts_and_no_delay(tmp_path: Path) -> None:
    """Without EC2's marks in the firmware nothing is asked, so nothing is waited for."""
    (tmp_path / "sys_vendor").write_text("LENOVO\n")
    for firmware in (tmp_path, tmp_path / "nothing"):
        assert metadata_endpoint({}, firmware) is None
        assert await read_facts({}, log_of(LogCapture()), firmware) is None


async def test_the_environment_may_switch_the_service_off(service: Service) -> None:
    """`AWS_EC2_METADATA_DISABLED` holds here as it does for boto3."""
    environ = {**environ_of(service), "AWS_EC2_METADATA_DISABLED": "TRUE"}
    assert await read_facts(environ, log_of(LogCapture())) is None
    assert service.requests == []


async def test_proxies_of_the_environment_are_not_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's address is the machine's own, whatever proxy the environment has."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert (await Metadata(service.url).facts()).instance_id


def test_an_instance_is_known_by_its_firmware(tmp_path: Path) -> None:
    """On EC2 the well-known address is used."""
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert metadata_endpoint({}, tmp_path) == ENDPOINT


class _Portal(QuietHandler):
    """Somebody else at the service's address, who sends everybody to a page that has no address."""

    def do_PUT(self) -> None:  # noqa: N802 -- the name is the library's
        self.answer(302, headers={"Location": "http://["})


async def test_a_redirect_to_nowhere_is_no_answer() -> None:
    """It is not followed, and must not end who asks: the watch for a notice, or the run."""
    with LoopbackHttp(_Portal) as portal, pytest.raises(MetadataError):
        await Metadata(portal.url).notice()
