"""What all commands at home have in common: which bucket, how to exit, how to write."""

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.base.errors import UsageError
from agent.base.units import parse_duration, parse_size
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
from consumer.bucket import ReadOnlyBucket

PIPE_WIDTH = 10_000
"""Columns of a line that goes to a pipe or a file."""
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
    ended: tuple[str, ...] = ()


BUCKET = (
    click.option("--store", metavar="URL", help="Bucket: s3://..., file:///... or a folder."),
    click.option(
        "--config", type=click.Path(path_type=Path), help="Configuration file (agent.toml)."
    ),
    click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Override a key."),
    click.option("--json", "as_json", is_flag=True, help="JSON on stdout."),
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


def open_bucket(options: Options) -> ReadOnlyBucket:
    """Return the bucket that flags, environment and configuration file name.

    Raises:
        ConfigurationError: They have faults.
        StoreError: There is no such bucket, or there are no credentials for it.
    """
    loaded, places = configured(options)
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


def configured(options: Options) -> tuple[Loaded, Locations]:
    """Return what the configuration says, with the defaults where it has faults, and where things are."""
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
