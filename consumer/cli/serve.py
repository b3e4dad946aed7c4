"""`mayfly serve`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, open_bucket, state_folder
from consumer.options import Units

if TYPE_CHECKING:
    from consumer.pull.place import Destination
    from consumer.serve.service import Pulling

EXTRA = "pip install 'mayfly[home]'"
SHORTEST_INTERVAL = 1.0
"""Seconds between two looks into the bucket, at least: each is a request that somebody pays for."""


@click.command()
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1:9464", show_default=True)
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
    help="Between looks into the bucket.",
)
@click.option(
    "--unhealthy-after",
    type=Units("duration"),
    default="15m",
    show_default=True,
    help="Without a look, /healthz answers 503.",
)
@click.option("--timezone", metavar="NAME", help="Of days and months, such as Asia/Tokyo [TZ].")
@click.option(
    "--expect-every",
    type=Units("duration"),
    metavar="DURATION",
    help="When jobs should run [learnt].",
)
@click.option(
    "--group-limit",
    type=Units("duration"),
    metavar="DURATION",
    help="After it a group is late [its runs' deadlines].",
)
@click.option(
    "--pull",
    "dest",
    metavar="DEST",
    type=click.Path(path_type=Path, file_okay=False),
    help="Pull new runs into DEST as well.",
)
@click.option("--job", "jobs", metavar="NAME", multiple=True, help="Pull only this job.")
@click.option("--partial", is_flag=True, help="Pull also what jobs left that did not succeed.")
@click.option("--complete-groups", is_flag=True, help="Pull shards only when all are committed.")
@click.option("--keep", metavar="N", type=click.IntRange(1), help="Of each job, in DEST.")
@click.option("--exec", "command", metavar="CMD", help="Run CMD for each pulled run and job.")
@click.option("--exec-timeout", type=Units("duration"), default="10m", show_default=True)
@click.option("--max-bytes", type=Units("size"), default="10GiB", show_default=True)
@click.option("--loki", metavar="URL", help="Push logs of runs to Loki.")
@bucket_command
def serve(
    *,
    listen: str,
    history: Path | None,
    interval: float,
    unhealthy_after: float,
    timezone: str | None,
    expect_every: float | None,
    group_limit: float | None,
    dest: Path | None,
    jobs: tuple[str, ...],
    partial: bool,
    complete_groups: bool,
    keep: int | None,
    command: str | None,
    exec_timeout: float,
    max_bytes: int,
    loki: str | None,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Serve metrics, health and a status page of what the bucket says, until SIGTERM.

    Logs go to stderr: lines on a terminal, else (or with --json) JSON.
    """
    _need_extra()
    from agent import __version__  # noqa: PLC0415
    from consumer.answers import Rules  # noqa: PLC0415
    from consumer.archive.schema import default_name  # noqa: PLC0415
    from consumer.pull.watch import until_stopped  # noqa: PLC0415
    from consumer.serve import service  # noqa: PLC0415
    from consumer.serve.listen import parse_address  # noqa: PLC0415
    from consumer.serve.logs import make_log  # noqa: PLC0415
    from consumer.serve.ship import loki_at  # noqa: PLC0415

    if interval < SHORTEST_INTERVAL:
        raise UsageError(f"--interval takes {SHORTEST_INTERVAL:g} seconds or more")
    host, port = parse_address(listen)
    rules = Rules(zone_of(timezone), expect_every, group_limit)
    terminal = sys.stderr.isatty() and not as_json
    log = make_log(sys.stderr, terminal=terminal, colours=not os.environ.get("NO_COLOR"))
    bucket = open_bucket(store, config, pairs)
    with ExitStack() as stack:
        pulling = None
        if dest is not None:
            place = stack.enter_context(_destination(dest))
            wanted = (jobs, partial, keep, max_bytes, complete_groups)
            pulling = _pulling(place, wanted, command, exec_timeout)
        plan = service.Plan(
            host=host,
            port=port,
            history=history or state_folder(config, pairs) / "home" / default_name(bucket.identity),
            interval=interval,
            stale_after=unhealthy_after,
            rules=rules,
            pulling=pulling,
            loki=loki_at(loki, os.environ) if loki else None,
            version=__version__,
        )
        work = service.serve(bucket, plan, log)
        code = asyncio.run(until_stopped(work, stopped=ExitCode.DONE))
    log.info("serve.stopped")
    return code


def zone_of(name: str | None) -> tzinfo:
    """Return a time zone; without a name that of TZ, and without one UTC.

    Raises:
        UsageError: There is no such zone.
    """
    name = name or os.environ.get("TZ", "").removeprefix(":") or "UTC"
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"there is no time zone {name!r}", remedy="such as --timezone Asia/Tokyo"
        ) from error


def _need_extra() -> None:
    try:
        import prometheus_client  # noqa: F401, PLC0415
        import waitress  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError("the service needs more packages", remedy=EXTRA) from error


@contextmanager
def _destination(dest: Path) -> "Iterator[Destination]":
    from agent.config.faults import ConfigurationError, Fault  # noqa: PLC0415
    from consumer.pull.place import Destination, PlaceError  # noqa: PLC0415

    try:
        with Destination.open(dest) as place:
            yield place
    except PlaceError as error:
        raise ConfigurationError([Fault("--pull", str(dest), str(error), error.remedy)]) from error


def _pulling(
    place: "Destination",
    wanted: tuple[tuple[str, ...], bool, int | None, int, bool],
    command: str | None,
    exec_timeout: float,
) -> "Pulling":
    from agent.config.jobsfile import is_job_name  # noqa: PLC0415
    from consumer.pull.hooks import Hook  # noqa: PLC0415
    from consumer.pull.plan import Wishes  # noqa: PLC0415
    from consumer.serve.service import Pulling  # noqa: PLC0415

    jobs, partial, keep, max_bytes, complete = wanted
    for job in jobs:
        if not is_job_name(job):
            raise UsageError(f"{job!r} cannot be the name of a job")
    hook = Hook(command, dict(os.environ), exec_timeout) if command else None
    wishes = Wishes(frozenset(jobs), partial, None, keep, max_bytes, complete_groups=complete)
    return Pulling(place, wishes, hook)
