"""What the commands at home have in common: which bucket, what is known of it, how to exit, how to write."""

import asyncio
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consumer.options import Units

if TYPE_CHECKING:
    from agent.config.locate import Loaded, Locations
    from agent.config.settings import Settings
    from consumer.bucket import ReadOnlyBucket
    from consumer.judge import Judged, Rules
    from consumer.model import Batch, History, Run
    from consumer.page.given import Visit
    from consumer.store import Store

PIPE_WIDTH = 10_000
"""Columns where nobody's terminal limits them."""
NEVER_BEGAN = (
    "A machine that began no run has none here, and said why on its console: `aws ec2 get-console-output --latest "
    "--output text --instance-id i-...`, or, with LogRetentionDays, in CloudWatch, group /mayfly/STACK"
)
Function = TypeVar("Function", bound=Callable[..., Any])


def bucket_command(function: Function) -> Function:
    """Give a command the options that say which bucket, and have it exit with the code that it returns."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        sys.exit(int(function(*args, **kwargs)))

    options = (
        click.option("--store", metavar="URL", help="Bucket: s3://..., file:///... or a folder."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="Configuration file (agent.toml)."
        ),
        click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Override a key."),
        click.option("--json", "as_json", is_flag=True, help="JSON on stdout."),
    )
    for option in reversed(options):
        guarded = option(guarded)
    return guarded  # type: ignore[return-value]  # click adds its options to the function it is given


@dataclass(frozen=True, slots=True)
class Options:
    """What the options of a command that judges runs say."""

    store: str | None
    config: Path | None
    pairs: tuple[str, ...]
    as_json: bool
    history: Path | None
    schedule: str | None
    grace: float
    timezone: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a bucket now.

    Attributes:
        bucket: The bucket.
        store: What was read of it, now and before.
        history, judged: What follows.
    """

    bucket: "ReadOnlyBucket"
    store: "Store"
    history: "History"
    judged: "Judged"

    def run(self, name: str) -> "tuple[Batch, Run]":
        """Return the run that a person means: by its id, or the `latest`.

        Raises:
            UsageError: There is no such run.
        """
        from agent.base.errors import UsageError  # noqa: PLC0415

        runs = {run.id: (batch, run) for batch, run in self.history.runs}
        began = [key for key, (_, run) in runs.items() if run.stood_back is None]
        found = runs.get(began[-1] if name == "latest" and began else name)
        if found is None:
            raise UsageError(
                f"no run {name!r} is known in {self.bucket.name}",
                remedy=f"`mayfly status -n 100` lists runs; `latest` is the last one. {NEVER_BEGAN}",
            )
        return found


def known_command(function: Function) -> Function:
    """Give a command the options that say which bucket, and how its runs are judged, as one value `options`."""

    def gathered(**given: Any) -> int:
        options = Options(**{one.name: given.pop(one.name) for one in fields(Options)})
        return int(function(options=options, **given))

    gathered.__name__, gathered.__doc__ = function.__name__, function.__doc__
    command = bucket_command(gathered)
    options = (
        click.option(
            "--history",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Where to keep what was read [as `mayfly serve`].",
        ),
        click.option("--schedule", metavar="CRON", help="When runs are due that do not say it."),
        click.option(
            "--grace",
            type=Units("duration"),
            default="1h",
            help="How late a run of --schedule may begin [1h].",
        ),
        click.option("--timezone", metavar="NAME", help="Whose days and times to show."),
    )
    for option in reversed(options):
        command = option(command)
    return command  # type: ignore[return-value]  # as above


def known_of(options: Options) -> Known:
    """Read what is new in a bucket, and judge.

    Raises:
        MayflyError: The bucket or the history cannot be used.
    """
    from consumer.judge import judge  # noqa: PLC0415
    from consumer.store import Store, default_name  # noqa: PLC0415

    rules = rules_of(options.schedule, options.grace, options.timezone)
    bucket = open_bucket(options.store, options.config, options.pairs)
    folder = state_folder(options.config, options.pairs) / "home"
    path = options.history or folder / default_name(bucket.identity)
    store = Store.open(path, bucket.identity, rules.now)
    asyncio.run(catch_up(bucket, store, rules.now))
    history = store.history()
    return Known(bucket, store, history, judge(history, rules))


async def catch_up(bucket: "ReadOnlyBucket", store: "Store", now: datetime) -> None:
    """Read all that is new."""
    from consumer.follow import poll  # noqa: PLC0415

    read = 0
    while True:
        found = await poll(bucket, store, now)
        read += found.entries
        for batch, problem in found.failed:
            click.echo(f"warning: {batch.schedule}/{batch.name}: {problem}", err=True)
        if not found.more or not found.changed:
            return
        if sys.stderr.isatty():
            click.echo(f"reading the bucket for the first time: {read} entries", err=True)


def rules_of(schedule: str | None, grace: float, timezone: str | None) -> "Rules":
    """Return how to judge, as a person says it.

    Raises:
        UsageError: There is no such time zone, or the schedule cannot be understood.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    from agent.base.errors import UsageError  # noqa: PLC0415
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


def open_bucket(store: str | None, config: Path | None, pairs: tuple[str, ...]) -> "ReadOnlyBucket":
    """Return the bucket that flags, environment and configuration file name.

    Raises:
        ConfigurationError: They have faults.
        StoreError: There is no such bucket, or there are no credentials for it.
    """
    from agent.bucket.address import LocalBucket, bucket_at  # noqa: PLC0415
    from agent.config.credentials import static_credentials  # noqa: PLC0415
    from agent.config.faults import ConfigurationError, Fault  # noqa: PLC0415
    from consumer.bucket import ReadOnlyBucket  # noqa: PLC0415

    loaded, places = _loaded(store, config, pairs)
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


def state_folder(config: Path | None, pairs: tuple[str, ...]) -> Path:
    """Return the folder in which this computer keeps what Mayfly remembers."""
    return _loaded(None, config, pairs)[1].state


def loaded_settings(config: Path | None, pairs: tuple[str, ...]) -> "Settings":
    """Return what the configuration says; the defaults where it has faults."""
    return _loaded(None, config, pairs)[0].settings


def _loaded(
    store: str | None, config: Path | None, pairs: tuple[str, ...]
) -> "tuple[Loaded, Locations]":
    from agent.config.locate import (  # noqa: PLC0415
        MACHINE,
        Surroundings,
        bucket_override,
        load_settings,
        locate,
    )

    around = Surroundings(os.environ, MACHINE.exists(), Path.cwd(), Path.read_text)
    overrides = [bucket_override(store, around.cwd)] if store else []
    loaded = load_settings(config, around, pairs, overrides)
    return loaded, locate(loaded.settings.paths, around)


def width() -> int:
    """Return how many columns a line may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def english() -> "Visit":
    """Return who asks on a terminal."""
    from consumer.page.given import Visit  # noqa: PLC0415
    from consumer.page.words import language  # noqa: PLC0415

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
