"""What the commands at home have in common: which bucket, how to exit, how to write."""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from agent.config.locate import Loaded, Locations
    from agent.config.settings import Settings
    from consumer.bucket import ReadOnlyBucket

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
