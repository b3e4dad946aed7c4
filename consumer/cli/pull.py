"""`mayfly pull`."""

import asyncio
import functools
import json
import os
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from agent.base.errors import ExitCode, UsageError
from agent.base.units import parse_duration
from agent.batch.named import LATEST
from agent.config.faults import ConfigurationError, Fault
from agent.contract.ids import JOB
from consumer.cli.command import (
    Function,
    Options,
    Units,
    bucket_command,
    check_interval,
    open_bucket,
)
from consumer.pull.folder import Destination, FolderError
from consumer.pull.hooks import Hook
from consumer.pull.plan import Wish
from consumer.pull.progress import watching
from consumer.pull.report import Report, report_json, summary_line
from consumer.pull.session import pull as pull_once
from consumer.pull.watch import for_ever, once, until_stopped
from consumer.store import HistoryError, Store, default_name

PULLED = (
    click.option(
        "--job", "jobs", metavar="NAME", multiple=True, help="Pull only this job; repeatable."
    ),
    click.option("--partial", is_flag=True, help="Pull also what jobs left that did not succeed."),
    click.option(
        "--complete-groups", is_flag=True, help="Pull shards only when their whole group is done."
    ),
    click.option(
        "--keep",
        metavar="N",
        type=click.IntRange(1),
        help="Remove all but the N newest runs of each job.",
    ),
    click.option(
        "--exec",
        "command",
        metavar="CMD",
        help="Run CMD (by sh) once for each run and job; MAYFLY_PATH, ...",
    ),
    click.option(
        "--exec-timeout",
        type=Units("duration"),
        default="10m",
        show_default=True,
        help="Limit of CMD.",
    ),
    click.option(
        "--max-bytes",
        type=Units("size"),
        default="10GiB",
        show_default=True,
        help="Most that a job of a run may hold.",
    ),
)


def pull_command(function: Function) -> Function:
    """Give a command options that say what is pulled, as `wish`, and what is called for it, as `hook`."""

    @functools.wraps(function)
    def gathered(
        jobs: tuple[str, ...], command: str | None, exec_timeout: float, **given: Any
    ) -> Any:
        for job in jobs:
            if not re.fullmatch(JOB, job):
                raise UsageError(f"{job!r} cannot be the name of a job")
        said = {
            name: given.pop(name) for name in ("keep", "partial", "complete_groups", "max_bytes")
        }
        hook = Hook(command, dict(os.environ), exec_timeout) if command else None
        return function(wish=Wish(frozenset(jobs), **said), hook=hook, **given)

    for option in reversed(PULLED):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]  # as above


class Since(click.ParamType[datetime]):
    """A date, a time or a duration before now."""

    name = "date or duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return a moment."""
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
        except ValueError:
            text = f"{value!r} is neither a date such as 2026-11-22 nor a duration such as 30d"
            self.fail(text, param, ctx)


@click.command()
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path, file_okay=False))
@pull_command
@click.option(
    "--run",
    "runs",
    metavar="RUN",
    multiple=True,
    help="Only this run (or `latest`), also if you removed it; repeatable.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Only runs that began since a date, or a duration ago.",
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
    options: Options,
    dest: Path,
    wish: Wish,
    hook: Hook | None,
    runs: tuple[str, ...],
    since: datetime | None,
    again: bool,
    lock_timeout: float,
    watch: float | None,
) -> ExitCode:
    """Fetch jobs into DEST as they end: verified, each at once, as DEST/JOB/RUN, with a link DEST/JOB/latest."""
    if watch is not None:
        check_interval("--watch", watch)
        for option, given in (("--again", again), (f"--run {LATEST}", LATEST in runs)):
            if given:
                raise UsageError(f"{option} is for one pull, not for a watch")
    wish = replace(wish, runs=frozenset(runs), since=since, again=again)
    bucket, as_json = open_bucket(options), options.as_json

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
                stopped=done,
            )
            if watch is None:
                work, stopped = once(bucket, history, pulls, done), ExitCode.INTERRUPTED
            else:
                work = for_ever(bucket, history, pulls, watcher, done, seconds=watch)
                stopped = ExitCode.DONE
            return asyncio.run(until_stopped(work, stopped=stopped))
    except (FolderError, HistoryError) as error:
        raise ConfigurationError([Fault("DEST", str(dest), str(error), error.remedy)]) from error
