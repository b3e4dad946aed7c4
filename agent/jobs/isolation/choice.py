"""Which isolation a run's jobs get, tried before the first of them starts."""

import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.base.logs import Log
from agent.browser import find_chromedriver
from agent.config.locate import Locations
from agent.config.settings import Limits, Settings
from agent.contract import facts
from agent.jobs.interface import Isolation
from agent.jobs.isolation.confinement import METADATA, Confinement
from agent.jobs.isolation.probe import Reach, reach_of_jobs
from agent.jobs.isolation.process import ProcessIsolation
from agent.jobs.isolation.unit import Systemd, UnitIsolation, can_use_units
from agent.machine.metadata import metadata_endpoint

FENCE = "mayfly-fence.service"

Probe = Callable[[Isolation], Awaitable[Reach]]
"""Tells whether programs under an isolation reach the metadata service."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The isolation of a run's jobs, its record for the manifest, and warnings."""

    isolation: Isolation
    record: facts.Isolation
    warnings: tuple[str, ...] = ()


def wants_units(limits: Limits, environ: Mapping[str, str]) -> bool:
    """Tell whether jobs shall run in units."""
    return limits.isolation == "systemd" or (limits.isolation == "auto" and can_use_units(environ))


def chromedriver_for_jobs(limits: Limits, environ: Mapping[str, str]) -> str | None:
    """Return the path of the chromedriver that jobs may be given, if there is one: none where they run in units.

    Whoever reaches a chromedriver names the program that it starts as the browser, with its arguments; the local one
    runs as the agent's user, outside of every unit.
    """
    return None if wants_units(limits, environ) else find_chromedriver(environ)


async def choose_isolation(
    settings: Settings, places: Locations, run_id: str, environ: Mapping[str, str], log: Log
) -> Chosen:
    """Choose an isolation, and probe it: a program is started as jobs are, and tries to reach the metadata service.

    Args:
        settings: `limits.isolation` and the limits of jobs.
        places: What jobs must not see.
        run_id: The run.
        environ: The agent's environment.
        log: Told of the choice.
    """
    there = metadata_endpoint(environ) is not None
    addresses = METADATA if there else ()
    probe = partial(reach_of_jobs, run_id=run_id, environ=environ, addresses=addresses)
    isolation, reach, trouble = await _try(settings, places, probe, environ, log)
    if not there:
        reach = Reach.ABSENT
    record = facts.Isolation(
        backend="systemd" if isinstance(isolation, UnitIsolation) else "process",
        metadata=reach,
        containers=await _containers(environ, log) if there else Reach.ABSENT,
    )
    log.info("isolation.chosen", **record.model_dump(mode="json"))
    return Chosen(isolation, record, (*trouble, *_warnings(record)))


async def _try(
    settings: Settings, places: Locations, probe: Probe, environ: Mapping[str, str], log: Log
) -> tuple[Isolation, Reach, tuple[str, ...]]:
    """Return an isolation, its reach of the metadata service, and warnings."""
    trouble = ""
    if wants_units(settings.limits, environ):
        units = UnitIsolation(_confinement(settings, places), environ, log)
        try:
            return units, await probe(units), ()
        except OSError as error:
            trouble = f"no job can run in a unit of its own: {error}"
            log.error("isolation.no_units", reason=str(error))
        # Who asks for units by name would rather have no job than an open one.
        if settings.limits.isolation == "systemd":
            return units, Reach.UNKNOWN, (trouble,)
    processes = ProcessIsolation()
    reach = Reach.UNKNOWN
    if metadata_endpoint(environ) is not None:
        with suppress(OSError):
            reach = await probe(processes)
    return processes, reach, (trouble,) if trouble else ()


def _confinement(settings: Settings, places: Locations) -> Confinement:
    bucket = settings.store.url or ""
    folder = [Path(bucket.removeprefix("file://"))] if bucket.startswith("file://") else []
    return Confinement(
        state=_closed_part(places.state),
        closed=(places.cache, places.bucket, *folder),
        interpreter=Path(sys.base_prefix),
        limits=settings.limits,
    )


def _closed_part(state: Path) -> Path:
    """Return the folder that jobs see empty: the state, or the first folder above it that other users cannot pass."""
    for folder in reversed(state.parents):
        with suppress(OSError):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return state


async def _containers(environ: Mapping[str, str], log: Log) -> Reach:
    """Return whether containers reach the metadata service: the fence's unit is active when its rules are in place."""
    if not can_use_units(environ):
        return Reach.UNKNOWN
    fenced = await Systemd(environ, log).do("is-active", "--quiet", FENCE)
    return Reach.UNREACHABLE if fenced else Reach.UNKNOWN


def _warnings(record: facts.Isolation) -> tuple[str, ...]:
    warnings = []
    if record.metadata == Reach.REACHABLE:
        warnings.append("jobs can reach the metadata service, and with it the machine's role")
    if record.metadata == Reach.UNKNOWN:
        warnings.append("it could not be found out whether jobs can reach the metadata service")
    if record.containers == Reach.UNKNOWN:
        warnings.append(f"containers may reach the metadata service: {FENCE} is not in place")
    return tuple(warnings)
