"""Which services start beside a job, and when one serves."""

from typing import Any

import pytest

from agent.base.engine import Engine
from agent.base.logs import RunLogger
from agent.jobs.containers.ready import wait_until_ready
from agent.jobs.containers.services import (
    COMPLETED,
    Beside,
    Look,
    Sign,
    beside,
    has_init,
    look,
    meets,
    never_meets,
    waits_with,
)

HUB = {"batch", "hub", "node"}


def depends(*names: str, condition: str = "service_started") -> dict[str, Any]:
    """A service that depends on others, as compose prints it."""
    return {"depends_on": {name: {"condition": condition, "required": True} for name in names}}


@pytest.mark.parametrize(
    ("services", "active", "expected"),
    [
        ({"batch": {}}, {"batch"}, Beside((), (), ())),
        # Nobody depends on anybody: all start.
        (dict.fromkeys(HUB), HUB, Beside(("hub", "node"), (), ())),
        # A node points at the hub, and nobody at the node.
        (
            {"batch": depends("hub"), "hub": {}, "node": depends("hub")},
            *(HUB, Beside(("hub", "node"), (), ("hub",))),
        ),
        # What the job waits for is not its start.
        (
            {"batch": depends("db", condition="service_healthy"), "db": {}},
            {"batch", "db"},
            Beside(*(("db",), (), ()), {"db": {"condition": "service_healthy", "required": True}}),
        ),
        # What depends on the job cannot start before it.
        (
            {
                "batch": {},
                "after": depends("batch"),
                "last": depends("after"),
                "side": {"network_mode": "service:batch"},
            },
            {"batch", "after", "last", "side"},
            Beside((), ("after", "last", "side"), ()),
        ),
        # A profile switches a service off, unless something that runs needs it.
        ({"batch": depends("db"), "db": {}, "tools": {}}, {"batch"}, Beside(("db",), (), ("db",))),
        (
            {"batch": {"links": ["chrome:selenium"]}, "chrome": {}},
            *({"batch"}, Beside(("chrome",), (), ())),
        ),
        (
            {"batch": {"pid": "service:other"}, "other": {"depends_on": ["batch2"]}, "batch2": {}},
            *({"batch"}, Beside(("batch2", "other"), (), ("batch2",))),
        ),
    ],
)
def test_the_whole_stack_starts_as_compose_would_start_it(
    services: dict[str, Any], active: set[str], expected: Beside
) -> None:
    """All but the job's own, what a profile switches off, and what comes after the job."""
    assert beside({"services": services}, active, "batch") == expected


def container(**changes: Any) -> dict[str, Any]:
    """What the engine says of a container that runs, in one network."""
    return {
        "State": {"Running": True, **changes.pop("state", {})},
        "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.18.0.2"}}},
        "Config": {"ExposedPorts": {"4444/tcp": {}, "53/udp": {}}},
        **changes,
    }


@pytest.mark.parametrize(
    ("inspected", "expected"),
    [
        (container(), Look(Sign.PORTS, "172.18.0.2", (4444,))),
        (container(state={"Running": False}), Look(Sign.SERVES)),
        (container(state={"Health": {"Status": "healthy"}}), Look(Sign.SERVES)),
        (container(state={"Health": {"Status": "starting"}}), Look(Sign.STARTING)),
        (container(state={"Health": {"Status": "unhealthy"}}), Look(Sign.STARTING)),
        (container(Config={"ExposedPorts": None}), Look(Sign.SERVES)),
        (container(Config={"ExposedPorts": {"53/udp": {}}}), Look(Sign.SERVES)),
        (container(NetworkSettings={"Networks": {"host": {"IPAddress": ""}}}), Look(Sign.SERVES)),
        ({}, Look(Sign.SERVES)),
    ],
)
def test_a_service_serves_by_its_health_check_else_by_its_ports(
    inspected: dict[str, Any], expected: Look
) -> None:
    """What says nothing of itself is not waited for."""
    assert look(inspected) == expected


@pytest.mark.parametrize(
    ("entry", "own", "expected"),
    [
        (["/init"], {}, False),
        (["/init"], {"entrypoint": ["sh"]}, True),
        (None, {"entrypoint": ["/init", "x"]}, False),
        (["python"], {}, True),
        (None, {}, True),
    ],
)
def test_an_image_that_has_to_be_process_one_is_left_alone(
    entry: list[str] | None, own: dict[str, Any], *, expected: bool
) -> None:
    """Images built upon s6-overlay end at once under another init."""
    assert has_init({"Config": {"Entrypoint": entry}}, own) is expected


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({"command": ["crond", "-l", "2", "-f"]}, "crond -l 2 -f"),
        ({"command": ["python", "scrape.py", "--mode", "cron"]}, ""),
        ({"command": ["sh", "-c", "crontab /app/crontab && exec cron -f"]}, "cron -f"),
        ({"entrypoint": ["/bin/supercronic"], "command": ["/app/crontab"]}, "supercronic"),
        ({"command": ["tail", "-f", "/dev/null"]}, "tail -f /dev/null"),
        ({"command": ["sleep", "infinity"]}, "sleep infinity"),
        ({"command": ["python", "crontab_reader.py"]}, ""),
        ({"command": ["sh", "-c", "sleep 5; python cron.py"]}, ""),
        ({"command": None}, ""),
    ],
)
def test_a_service_that_only_waits_is_known_by_its_command(
    service: dict[str, Any], expected: str
) -> None:
    """Something else was to start the work in it, and the job would wait until its time is over."""
    assert waits_with(service) == expected


async def test_an_engine_that_tells_nothing_of_services_keeps_no_job_waiting() -> None:
    """Each service is told as not ready, and no wait is left behind that somebody else would have to end."""
    events: list[dict[str, Any]] = []
    nowhere = Engine({"PATH": "/nonexistent"})
    await wait_until_ready(nowhere, "p", ("db", "grid"), RunLogger(events.append).log)
    told = [event for event in events if event["event"] == "job.service_not_ready"]
    assert sorted(event["service"] for event in told) == ["db", "grid"]
    assert "docker could not be started" in told[0]["reason"]


@pytest.mark.parametrize(
    ("condition", "state", "met", "reason"),
    [
        (COMPLETED, {"Status": "running"}, False, ""),
        (COMPLETED, {"Status": "exited", "ExitCode": 0}, True, ""),
        (COMPLETED, {"Status": "exited", "ExitCode": 3}, True, "it ended with exit code 3"),
        ("service_healthy", {"Health": {"Status": "starting"}}, False, ""),
        ("service_healthy", {"Health": {"Status": "healthy"}}, True, ""),
        ("service_healthy", {"Health": {"Status": "unhealthy"}}, False, "it is unhealthy"),
        ("service_healthy", {"Status": "running"}, False, "it has no health check"),
        (
            "service_healthy",
            {"Status": "exited", "ExitCode": 0},
            False,
            "it ended with exit code 0",
        ),
    ],
)
def test_when_a_condition_is_met(
    condition: str, state: dict[str, Any], met: bool, reason: str
) -> None:
    """As compose has it: a service that ended without success, or has no health check, is not waited for in vain."""
    assert meets({"State": state}, condition) is met
    assert never_meets({"State": state}, condition) == reason
