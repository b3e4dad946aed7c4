"""Waits until the services of a stack serve: their health checks, else their ports, for a Selenium a session."""

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from agent.base.engine import Engine
from agent.base.errors import BrowserError, ContainerError
from agent.base.logs import Log
from agent.browser.session import answers, wait_for_session
from agent.jobs.containers.leftovers import PROJECT, SERVICE
from agent.jobs.containers.services import SELENIUM_PORT, Look, Sign, look, meets, never_meets
from agent.jobs.containers.state import containers_of

READY_SECONDS = 60.0
"""For all of them together; a job whose services take longer begins all the same, as it would with compose."""
POLL_SECONDS = 0.25
CONNECT_SECONDS = 1.0


async def wait_until_ready(
    engine: Engine, project: str, services: Collection[str], log: Log
) -> None:
    """Wait for services, all at once; log those that are not ready in time, or of which the engine tells nothing."""
    if services:
        log.info("job.services_awaited", services=services)
    await asyncio.gather(*(_report(engine, project, name, log) for name in services))


async def wait_for_conditions(
    engine: Engine, project: str, conditions: Mapping[str, Mapping[str, Any]]
) -> None:
    """Wait for services until each meets the condition of its `depends_on`, for as long as that takes.

    Raises:
        ContainerError: One that is required never will, or the engine did not answer.
    """
    for service, wanted in conditions.items():
        condition = str(wanted["condition"])
        labels = (f"{PROJECT}={project}", f"{SERVICE}={service}")
        while found := await containers_of(engine, *labels):
            if reason := next(filter(None, (never_meets(one, condition) for one in found)), ""):
                if not wanted.get("required", True):
                    break
                raise ContainerError(f"{service} did not become {condition}: {reason}")
            if all(meets(one, condition) for one in found):
                break
            await asyncio.sleep(POLL_SECONDS)


async def _report(engine: Engine, project: str, service: str, log: Log) -> None:
    began = time.monotonic()
    reason = await _wait(engine, project, service)
    took = round(time.monotonic() - began, 1)
    if reason:
        log.warning("job.service_not_ready", service=service, reason=reason, seconds=took)
    else:
        log.info("job.service_ready", service=service, seconds=took)


async def _wait(engine: Engine, project: str, service: str) -> str:
    """Wait for a service, and return why it does not serve; empty when it does."""
    reason = "it did not start"
    until = time.monotonic() + READY_SECONDS
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                found = await _look(engine, project, service)
                if found.sign is Sign.SERVES:
                    return ""
                if found.sign is Sign.STARTING:
                    reason = "its health check did not pass"
                else:
                    reason = f"none of its ports answered: {', '.join(map(str, found.ports))}"
                    if await _serves(found, until):
                        return ""
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return f"{reason} within {READY_SECONDS:g} s"
    except (BrowserError, ContainerError) as error:
        return str(error)


async def _look(engine: Engine, project: str, service: str) -> Look:
    found = map(look, await containers_of(engine, f"{PROJECT}={project}", f"{SERVICE}={service}"))
    # Of several containers of a service, the one that is furthest from serving counts.
    rank = (Sign.SERVES, Sign.PORTS, Sign.STARTING)
    return max(found, key=lambda one: rank.index(one.sign), default=Look(Sign.STARTING))


async def _serves(found: Look, until: float) -> bool:
    """Tell whether a service serves; a Selenium has until shortly before that time to open a session."""
    open_ports = [port for port in found.ports if await _connects(found.address, port)]
    if SELENIUM_PORT not in open_ports:
        return bool(open_ports)
    url = f"http://{found.address}:{SELENIUM_PORT}"
    if await answers(url):
        # The reason is known before time is over.
        seconds = max(until - time.monotonic() - 1.0, 0.1)
        await wait_for_session(
            url, seconds=seconds, alive=lambda: asyncio.sleep(0, result=True), shared=True
        )
    return True


async def _connects(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
