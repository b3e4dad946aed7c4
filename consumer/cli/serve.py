"""`mayfly serve`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, open_bucket, state_folder
from consumer.options import Units

if TYPE_CHECKING:
    from consumer.judge import Rules
    from consumer.pull.folder import Destination
    from consumer.service import Pulling

EXTRA = "pip install 'mayfly[home]'"
SHORTEST_INTERVAL = 1.0
"""Seconds between two polls, at least: each is a request that somebody pays for."""


@click.command()
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1:9464", show_default=True)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Name by which browsers call it, such as mayfly.example.org; repeatable.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Database of what was seen [one of each bucket, in the state directory].",
)
@click.option(
    "--interval",
    type=Units("duration"),
    default="60s",
    show_default=True,
    help="Between polls of the bucket.",
)
@click.option(
    "--unhealthy-after",
    type=Units("duration"),
    default="15m",
    show_default=True,
    help="Without a poll, /healthz answers 503.",
)
@click.option(
    "--schedule",
    metavar="CRON",
    help="When runs are due that name no schedule, such as '10 4 * * *'.",
)
@click.option(
    "--grace",
    type=Units("duration"),
    default="1h",
    show_default=True,
    help="After that a run that did not begin is missed; with --schedule.",
)
@click.option(
    "--timezone",
    metavar="NAME",
    help="Of --schedule, and of days and months, such as Asia/Tokyo [of each schedule].",
)
@click.option(
    "--pull",
    "dest",
    metavar="DEST",
    type=click.Path(path_type=Path, file_okay=False),
    help="Pull jobs into DEST as well.",
)
@click.option("--job", "jobs", metavar="NAME", multiple=True, help="Pull only this job.")
@click.option("--partial", is_flag=True, help="Pull also what jobs left that did not succeed.")
@click.option("--complete-groups", is_flag=True, help="Pull shards only when all are done.")
@click.option("--keep", metavar="N", type=click.IntRange(1), help="Of each job, in DEST.")
@click.option("--exec", "command", metavar="CMD", help="Run CMD for each pulled run and job.")
@click.option("--exec-timeout", type=Units("duration"), default="10m", show_default=True)
@click.option("--max-bytes", type=Units("size"), default="10GiB", show_default=True)
@click.option(
    "--print-logs",
    is_flag=True,
    help="Print runs' logs on stdout as they arrive, for whatever collects those.",
)
@bucket_command
def serve(
    *,
    listen: str,
    hosts: tuple[str, ...],
    history: Path | None,
    interval: float,
    unhealthy_after: float,
    schedule: str | None,
    grace: float,
    timezone: str | None,
    dest: Path | None,
    jobs: tuple[str, ...],
    partial: bool,
    complete_groups: bool,
    keep: int | None,
    command: str | None,
    exec_timeout: float,
    max_bytes: int,
    print_logs: bool,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Serve metrics, health and the pages of what the bucket says, until SIGTERM.

    Its own log goes to stderr: lines on a terminal, else (or with --json) JSON.
    """
    _need_extra()
    from agent import __version__  # noqa: PLC0415
    from consumer import service  # noqa: PLC0415
    from consumer.pull.watch import until_stopped  # noqa: PLC0415
    from consumer.store import default_name  # noqa: PLC0415
    from consumer.web.logs import make_log  # noqa: PLC0415
    from consumer.web.server import parse_address  # noqa: PLC0415

    if interval < SHORTEST_INTERVAL:
        raise UsageError(f"--interval takes {SHORTEST_INTERVAL:g} seconds or more")
    host, port = parse_address(listen)
    rules = rules_of(schedule, grace, timezone)
    terminal = sys.stderr.isatty() and not as_json
    log = make_log(sys.stderr, terminal=terminal, colours=not os.environ.get("NO_COLOR"))
    bucket = open_bucket(store, config, pairs)
    with ExitStack() as stack:
        pulling = None
        if dest is not None:
            place = stack.enter_context(_destination(dest))
            wanted = (jobs, partial, keep, max_bytes, complete_groups)
            pulling = _pulling(place, wanted, command, exec_timeout)
        options = service.Options(
            host=host,
            port=port,
            hosts=hosts,
            history=history or state_folder(config, pairs) / "home" / default_name(bucket.identity),
            interval=interval,
            stale_after=unhealthy_after,
            rules=rules,
            pulling=pulling,
            print_logs=click.echo if print_logs else None,
            version=__version__,
        )
        work = service.serve(bucket, options, log)
        code = asyncio.run(until_stopped(work, stopped=ExitCode.DONE))
    log.info("serve.stopped")
    return code


def rules_of(schedule: str | None, grace: float, timezone: str | None) -> "Rules":
    """Return how to judge, as a person says it.

    Raises:
        UsageError: There is no such time zone, or the schedule cannot be understood.
    """
    from agent.contract.entries import Invalid  # noqa: PLC0415
    from agent.contract.facts import Schedule  # noqa: PLC0415
    from consumer.judge import Rules  # noqa: PLC0415
    from consumer.schedule import times_of  # noqa: PLC0415

    now = datetime.now(UTC)
    try:
        zone = ZoneInfo(timezone) if timezone else None
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"there is no time zone {timezone!r}", remedy="such as --timezone Asia/Tokyo"
        ) from error
    if schedule is None:
        return Rules(now, zone)
    said = Schedule(expression=schedule, timezone=timezone or "UTC", grace_seconds=grace)
    times = times_of(said, now)
    if isinstance(times, Invalid):
        raise UsageError(times.reason, remedy="such as --schedule '10 4 * * *'")
    return Rules(now, zone, said)


def _need_extra() -> None:
    try:
        import prometheus_client  # noqa: F401, PLC0415
        import starlette  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError("the service needs more packages", remedy=EXTRA) from error


@contextmanager
def _destination(dest: Path) -> "Iterator[Destination]":
    from agent.config.faults import ConfigurationError, Fault  # noqa: PLC0415
    from consumer.pull.folder import Destination, FolderError  # noqa: PLC0415

    try:
        with Destination.open(dest) as place:
            yield place
    except FolderError as error:
        raise ConfigurationError([Fault("--pull", str(dest), str(error), error.remedy)]) from error


def _pulling(
    place: "Destination",
    wanted: tuple[tuple[str, ...], bool, int | None, int, bool],
    command: str | None,
    exec_timeout: float,
) -> "Pulling":
    from agent.config.jobsfile import is_job_name  # noqa: PLC0415
    from consumer.pull.hooks import Hook  # noqa: PLC0415
    from consumer.pull.plan import Wish  # noqa: PLC0415
    from consumer.service import Pulling  # noqa: PLC0415

    jobs, partial, keep, max_bytes, complete = wanted
    for job in jobs:
        if not is_job_name(job):
            raise UsageError(f"{job!r} cannot be the name of a job")
    hook = Hook(command, dict(os.environ), exec_timeout) if command else None
    wish = Wish(
        frozenset(jobs), keep=keep, partial=partial, complete_groups=complete, max_bytes=max_bytes
    )
    return Pulling(place, wish, hook)
