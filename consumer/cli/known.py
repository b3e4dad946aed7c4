"""What the commands have in common that tell of runs: what is known of a bucket, and how it is judged."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from pydantic import ValidationError

from agent.base.errors import UsageError
from agent.batch.named import run_named
from agent.contract.entries import Invalid
from agent.contract.facts import Schedule
from consumer.bucket import ReadOnlyBucket
from consumer.cli.command import (
    Function,
    Options,
    Units,
    bucket_command,
    configured,
    open_bucket,
)
from consumer.follow import poll
from consumer.judge import Judged, Rules, judge
from consumer.model import Batch, History, Run
from consumer.objects import Objects
from consumer.schedule import times_of
from consumer.store import Store, default_name

NEVER_BEGAN = (
    "A machine that began no run has none here, and said why on its console: `aws ec2 get-console-output --latest "
    "--output text --instance-id i-...`, or, with LogRetentionDays, in CloudWatch, group /mayfly/STACK"
)
JUDGED = (
    click.option(
        "--history",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File for what was read of the bucket [one for each, in the state directory].",
    ),
    click.option(
        "--schedule",
        metavar="CRON",
        help="When runs are due, such as '10 4 * * *' [as the runs report it].",
    ),
    click.option(
        "--grace",
        type=Units("duration"),
        default="1h",
        help="How late a run may begin by --schedule [1h].",
    ),
    click.option(
        "--timezone",
        metavar="NAME",
        help="Time zone of --schedule and of what is printed, such as Asia/Tokyo [of each schedule].",
    ),
    click.option(
        "--ended-schedule",
        "ended",
        metavar="NAME",
        multiple=True,
        help="A schedule that was removed, renamed or paused: nothing of it is due any more; repeatable.",
    ),
)


def known_command(function: Function) -> Function:
    """Give a command the options of `bucket_command`, and those that say how runs are judged."""
    return bucket_command(function, JUDGED)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a bucket now, from what was read of it now and before."""

    bucket: ReadOnlyBucket
    store: Store
    history: History
    judged: Judged

    @property
    def objects(self) -> Objects:
        """The objects that its entries commit."""
        return Objects(self.bucket, self.store)

    def run(self, name: str) -> tuple[Batch, Run]:
        """Return the run that a person means.

        Raises:
            UsageError: There is no such run.
        """
        runs = self.history.by_id
        stood_back = {key: run.stood_back is not None for key, (_, run) in runs.items()}
        return runs[run_named(name, stood_back, self.bucket.name, NEVER_BEGAN)]


def known_of(options: Options) -> Known:
    """Read what is new in a bucket, and judge.

    Raises:
        MayflyError: The bucket or the history cannot be used.
    """
    rules = rules_of(options)
    bucket = open_bucket(options)
    store = Store.open(history_file(options, bucket), bucket.identity, rules.now)
    asyncio.run(catch_up(bucket, store, rules.now))
    history = store.history()
    return Known(bucket, store, history, judge(history, rules))


async def catch_up(bucket: ReadOnlyBucket, store: Store, now: datetime) -> None:
    """Read all that is new."""
    read = 0
    while True:
        found = await poll(bucket, store, now)
        read += found.entries
        for batch, problem in found.failed:
            click.echo(f"warning: {batch.schedule}/{batch.name}: {problem}", err=True)
        if not found.more:
            return
        if sys.stderr.isatty():
            click.echo(f"reading the bucket for the first time: {read} entries", err=True)


def rules_of(options: Options) -> Rules:
    """Return the rules that the options give.

    Raises:
        UsageError: There is no such time zone, or the schedule cannot be understood.
    """
    now, timezone, ended = datetime.now(UTC), options.timezone, frozenset(options.ended)
    try:
        zone = ZoneInfo(timezone) if timezone else None
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"there is no time zone {timezone!r}", remedy="such as --timezone Asia/Tokyo"
        ) from error
    if options.schedule is None:
        return Rules(now, zone, ended=ended)
    remedy = "such as --schedule '10 4 * * *'"
    try:
        said = Schedule(
            expression=options.schedule, timezone=timezone or "UTC", grace_seconds=options.grace
        )
    except ValidationError as error:
        raise UsageError(f"--schedule: {error.errors()[0]['msg']}", remedy=remedy) from error
    times = times_of(said, now)
    if isinstance(times, Invalid):
        raise UsageError(times.reason, remedy=remedy)
    return Rules(now, zone, said, ended)


def history_file(options: Options, bucket: ReadOnlyBucket) -> Path:
    """Return the file for what was read of a bucket; by default each has its own."""
    return options.history or configured(options)[1].state / "home" / default_name(bucket.identity)
