"""`mayfly pull`."""

import asyncio
import functools
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, open_bucket
from consumer.options import Since, Units

if TYPE_CHECKING:
    from consumer.bucket import ReadOnlyBucket
    from consumer.pull.hooks import Hook
    from consumer.pull.place import Destination
    from consumer.pull.plan import Wishes
    from consumer.pull.report import Report

SHORTEST_WATCH = 1.0
"""Seconds between two looks into the bucket, at least: each is a request that somebody pays for."""


@click.command()
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path, file_okay=False))
@click.option("--job", "jobs", metavar="NAME", multiple=True, help="Only this job; repeatable.")
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Only runs that began since a date, or a duration ago.",
)
@click.option("--partial", is_flag=True, help="Also what jobs left that did not succeed.")
@click.option(
    "--complete-groups",
    is_flag=True,
    help="Shards only when their whole group is committed.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1),
    help="Remove all but the N newest runs of each job.",
)
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD (by sh) once for each run and job; MAYFLY_PATH, ...",
)
@click.option(
    "--exec-timeout",
    type=Units("duration"),
    default="10m",
    show_default=True,
    help="Limit of CMD.",
)
@click.option(
    "--max-bytes",
    type=Units("size"),
    default="10GiB",
    show_default=True,
    help="Most that a run may hold.",
)
@click.option("--again", is_flag=True, help="Try runs once more that were refused.")
@click.option(
    "--lock-timeout",
    type=Units("duration"),
    default="5m",
    show_default=True,
    help="How long to wait for another pull into DEST.",
)
@click.option(
    "--watch",
    is_flag=False,
    flag_value="60",
    type=Units("duration"),
    metavar="[SECONDS]",
    help="Pull again and again; every 60 s by default.",
)
@bucket_command
def pull(
    *,
    dest: Path,
    jobs: tuple[str, ...],
    since: datetime | None,
    partial: bool,
    complete_groups: bool,
    keep: int | None,
    command: str | None,
    exec_timeout: float,
    max_bytes: int,
    again: bool,
    lock_timeout: float,
    watch: float | None,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Fetch new runs into DEST: verified, each job of a run at once, as DEST/JOB/RUN, with a link DEST/JOB/latest."""
    from agent.config.faults import ConfigurationError, Fault  # noqa: PLC0415
    from agent.config.jobsfile import is_job_name  # noqa: PLC0415
    from consumer.pull.hooks import Hook  # noqa: PLC0415
    from consumer.pull.place import Destination, PlaceError  # noqa: PLC0415
    from consumer.pull.plan import Wishes  # noqa: PLC0415

    for job in jobs:
        if not is_job_name(job):
            raise UsageError(f"{job!r} cannot be the name of a job")
    if watch is not None and watch < SHORTEST_WATCH:
        raise UsageError(f"--watch takes {SHORTEST_WATCH:g} seconds or more")
    if watch is not None and again:
        raise UsageError("--again is for one pull, not for a watch")
    wishes = Wishes(frozenset(jobs), partial, since, keep, max_bytes, again, complete_groups)
    hook = Hook(command, dict(os.environ), exec_timeout) if command else None
    bucket = open_bucket(store, config, pairs)
    try:
        with Destination.open(dest) as place:
            return _pull(
                bucket=bucket,
                place=place,
                wishes=wishes,
                hook=hook,
                lock_timeout=lock_timeout,
                watch=watch,
                as_json=as_json,
            )
    except PlaceError as error:
        raise ConfigurationError([Fault("DEST", str(dest), str(error), error.remedy)]) from error


def _pull(
    *,
    bucket: "ReadOnlyBucket",
    place: "Destination",
    wishes: "Wishes",
    hook: "Hook | None",
    lock_timeout: float,
    watch: float | None,
    as_json: bool,
) -> ExitCode:
    from consumer.pull.progress import watching  # noqa: PLC0415
    from consumer.pull.session import pull_once  # noqa: PLC0415
    from consumer.pull.watch import for_ever, once, until_stopped  # noqa: PLC0415

    def say(line: str, problem: bool) -> None:
        click.echo(line, err=problem or as_json)

    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with watching(say, terminal=terminal, colours=not os.environ.get("NO_COLOR")) as watcher:
        pull = functools.partial(
            pull_once, bucket, place, wishes, watcher, hook=hook, lock_seconds=lock_timeout
        )
        done = functools.partial(
            _show_pull, bucket.name, str(place.path), as_json=as_json, watching=watch is not None
        )
        if watch is None:
            work, stopped = once(pull, done), ExitCode.INTERRUPTED
        else:
            work, stopped = for_ever(pull, done, watch), ExitCode.DONE
        return asyncio.run(until_stopped(work, stopped=stopped))


def _show_pull(bucket: str, dest: str, report: "Report", *, as_json: bool, watching: bool) -> None:
    from consumer.pull.report import report_json, summary_line  # noqa: PLC0415

    if watching and not report.events and not report.unreachable:
        return
    if as_json:
        # A document for one pull, a line for each of many.
        document = report_json(report, bucket, dest)
        click.echo(json.dumps(document, indent=None if watching else 1))
    else:
        click.echo(summary_line(report), err=bool(report.unreachable))
