"""What the commands at home have in common: which bucket, what is known of it, how to exit, how to write."""

import asyncio
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click
from pydantic import ValidationError

from agent.base.errors import UsageError
from agent.base.units import parse_duration, parse_size
from agent.batch.named import run_named
from agent.bucket.address import LocalBucket, bucket_at
from agent.config.credentials import static_credentials
from agent.config.faults import ConfigurationError, Fault
from agent.config.locate import (
    MACHINE,
    Locations,
    Surroundings,
    bucket_override,
    load_settings,
    locate,
)
from agent.config.overrides import Loaded
from agent.config.settings import Settings
from agent.contract.entries import Invalid
from agent.contract.facts import Schedule
from agent.contract.ids import JOB
from consumer.bucket import ReadOnlyBucket
from consumer.follow import poll
from consumer.judge import Judged, Rules, judge
from consumer.model import Batch, History, Run
from consumer.objects import Objects
from consumer.page.given import Visit
from consumer.page.words import language
from consumer.pull.hooks import Hook
from consumer.pull.plan import Wish
from consumer.schedule import times_of
from consumer.store import Store, default_name

PIPE_WIDTH = 10_000
"""Columns of a line that goes to a pipe or a file."""
NEVER_BEGAN = (
    "A machine that began no run has none here, and said why on its console: `aws ec2 get-console-output --latest "
    "--output text --instance-id i-...`, or, with LogRetentionDays, in CloudWatch, group /mayfly/STACK"
)
Function = TypeVar("Function", bound=Callable[..., Any])


class Units(click.ParamType[float]):
    """A duration or a size, as in the configuration."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds or bytes."""
        parse = parse_size if self.name == "size" else parse_duration
        try:
            text = str(value)
            return parse(float(text) if self.name != "size" and _is_number(text) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit()


@dataclass(frozen=True, slots=True)
class Options:
    """What the options say that many commands have: which bucket, and how its runs are judged."""

    store: str | None
    config: Path | None
    pairs: tuple[str, ...]
    as_json: bool
    history: Path | None = None
    schedule: str | None = None
    grace: float = 0.0
    timezone: str | None = None


BUCKET = (
    click.option("--store", metavar="URL", help="Bucket: s3://..., file:///... or a folder."),
    click.option(
        "--config", type=click.Path(path_type=Path), help="Configuration file (agent.toml)."
    ),
    click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Override a key."),
    click.option("--json", "as_json", is_flag=True, help="JSON on stdout."),
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
)
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


def bucket_command(function: Function, more: tuple[Callable[..., Any], ...] = ()) -> Function:
    """Give a command options that say which bucket, as one value `options`, and let it exit with what it returns."""

    @functools.wraps(function)
    def guarded(**given: Any) -> None:
        names = [one.name for one in fields(Options) if one.name in given]
        options = Options(**{name: given.pop(name) for name in names})
        sys.exit(int(function(options=options, **given)))

    for option in reversed((*BUCKET, *more)):
        guarded = option(guarded)
    return guarded  # type: ignore[return-value]  # click adds its options to the function it is given


def known_command(function: Function) -> Function:
    """Give a command the options of `bucket_command`, and those that say how runs are judged."""
    return bucket_command(function, JUDGED)


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
    now, timezone = datetime.now(UTC), options.timezone
    try:
        zone = ZoneInfo(timezone) if timezone else None
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"there is no time zone {timezone!r}", remedy="such as --timezone Asia/Tokyo"
        ) from error
    if options.schedule is None:
        return Rules(now, zone)
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
    return Rules(now, zone, said)


def open_bucket(options: Options) -> ReadOnlyBucket:
    """Return the bucket that flags, environment and configuration file name.

    Raises:
        ConfigurationError: They have faults.
        StoreError: There is no such bucket, or there are no credentials for it.
    """
    loaded, places = _loaded(options)
    faults, settings = list(loaded.faults), loaded.settings
    address = bucket_at(settings.store, places.bucket)
    if not isinstance(address, LocalBucket) and settings.store.credentials != "default":
        faults.append(
            Fault(
                loaded.source,
                "store.credentials",
                "keys in SSM are the machine's, and are not used at home",
                "set MAYFLY_STORE_CREDENTIALS=default, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        )
    if faults:
        raise ConfigurationError(faults)
    return ReadOnlyBucket.open(address, static_credentials(os.environ))


def history_file(options: Options, bucket: ReadOnlyBucket) -> Path:
    """Return the file for what was read of a bucket; by default each has its own."""
    return options.history or _loaded(options)[1].state / "home" / default_name(bucket.identity)


def loaded_settings(options: Options) -> Settings:
    """Return what the configuration says; the defaults where it has faults."""
    return _loaded(options)[0].settings


def _loaded(options: Options) -> tuple[Loaded, Locations]:
    around = Surroundings(os.environ, MACHINE.exists(), Path.cwd(), Path.read_text)
    overrides = [bucket_override(options.store, around.cwd)] if options.store else []
    loaded = load_settings(options.config, around, options.pairs, overrides)
    return loaded, locate(loaded.settings.paths, around)


def check_interval(option: str, seconds: float) -> None:
    """Refuse polls in quick succession: each is a request that somebody pays for.

    Raises:
        UsageError: They are less than a second apart.
    """
    if seconds < 1:
        raise UsageError(f"{option} takes 1 seconds or more")


def width() -> int:
    """Return how many columns a line may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def english() -> Visit:
    """Return the language of a terminal, in the form of a page."""
    return Visit(language("en"))


def colours() -> bool:
    """Tell whether stdout is a terminal that wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """Return text in a colour, where stdout wants colours."""
    return click.style(text, fg=colour) if colours() else text


def dump(value: object) -> None:
    """Write JSON to stdout."""
    # ASCII only: no byte of it means anything to a terminal.
    click.echo(json.dumps(value, indent=1))
