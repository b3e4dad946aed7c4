"""`mayfly pull`."""

import asyncio
import functools
import json
import os
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, open_bucket
from consumer.options import Since, Units

SHORTEST_WATCH = 1.0
"""Seconds between two looks into the bucket, at least: each is a request that somebody pays for."""


@click.command()
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path, file_okay=False))
@click.option("--job", "jobs", metavar="NAME", multiple=True, help="Only this job; repeatable.")
@click.option(
    "--run",
    "runs",
    metavar="RUN",
    multiple=True,
    help="Only this run, also if you removed it; repeatable.",
)
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
    help="Shards only when their whole group is done.",
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
    help="Most that a job of a run may hold.",
)
@click.option("--again", is_flag=True, help="Try jobs once more that were rejected.")
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
    runs: tuple[str, ...],
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
    """Fetch jobs into DEST as they end: verified, each at once, as DEST/JOB/RUN, with a link DEST/JOB/latest."""
    from agent.config.faults import ConfigurationError, Fault  # noqa: PLC0415
    from consumer.pull.folder import Destination, FolderError  # noqa: PLC0415
    from consumer.pull.hooks import Hook  # noqa: PLC0415
    from consumer.pull.plan import Wish  # noqa: PLC0415
    from consumer.pull.progress import watching  # noqa: PLC0415
    from consumer.pull.report import Report, report_json, summary_line  # noqa: PLC0415
    from consumer.pull.session import pull as pull_once  # noqa: PLC0415
    from consumer.pull.watch import for_ever, once, until_stopped  # noqa: PLC0415
    from consumer.store import HistoryError, Store, default_name  # noqa: PLC0415

    if watch is not None and watch < SHORTEST_WATCH:
        raise UsageError(f"--watch takes {SHORTEST_WATCH:g} seconds or more")
    if watch is not None and again:
        raise UsageError("--again is for one pull, not for a watch")
    wish = Wish(
        frozenset(jobs), frozenset(runs), since, keep, partial, complete_groups, max_bytes, again
    )
    hook = Hook(command, dict(os.environ), exec_timeout) if command else None
    bucket = open_bucket(store, config, pairs)

    def say(line: str, problem: bool) -> None:
        click.echo(line, err=problem or as_json)

    def done(report: Report) -> None:
        if watch is not None and not report.events and not report.unreachable:
            return
        if as_json:
            # A document for one pull, a line for each of many.
            document = report_json(report, bucket.name, str(dest.absolute()))
            click.echo(json.dumps(document, indent=None if watch is not None else 1))
        else:
            click.echo(summary_line(report), err=bool(report.unreachable))

    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    try:
        with ExitStack() as stack:
            destination = stack.enter_context(Destination.open(dest))
            path = destination.own_file(default_name(bucket.identity))
            history = Store.open(path, bucket.identity, datetime.now(UTC))
            stack.callback(history.close)
            watcher = stack.enter_context(
                watching(say, terminal=terminal, colours=not os.environ.get("NO_COLOR"))
            )
            pulls = functools.partial(
                pull_once,
                bucket,
                history,
                destination,
                wish,
                watcher,
                hook=hook,
                lock_seconds=lock_timeout,
            )
            if watch is None:
                work, stopped = once(bucket, history, pulls, done), ExitCode.INTERRUPTED
            else:
                work, stopped = for_ever(bucket, history, pulls, done, watch), ExitCode.DONE
            return asyncio.run(until_stopped(work, stopped=stopped))
    except (FolderError, HistoryError) as error:
        raise ConfigurationError([Fault("DEST", str(dest), str(error), error.remedy)]) from error
