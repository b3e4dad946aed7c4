"""What the agent's commands take from the process: environment, terminal, configuration."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from agent.base.logs import Sink, console_sink, json_sink
from agent.config.faults import ConfigurationError
from agent.config.locate import (
    MACHINE,
    Loaded,
    Locations,
    Surroundings,
    bucket_override,
    load_settings,
    locate,
)
from agent.config.overrides import Override

Command = TypeVar("Command", bound=Callable[..., Any])


def surroundings() -> Surroundings:
    """Return what this process knows of its computer."""
    return Surroundings(
        environ=dict(os.environ),
        machine=MACHINE.is_dir(),
        cwd=Path.cwd(),
        read=lambda path: path.read_text(encoding="utf-8"),
    )


def configuration_options(command: Command) -> Command:
    """Add `--config`, `--set` and `--store`, which every command has that reads the configuration."""
    for option in (
        click.option("--store", metavar="URL", help="The bucket: s3://bucket/prefix, or a folder."),
        click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Override a key of the configuration.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="Configuration file [default: $MAYFLY_CONFIG, else /etc/mayfly/agent.toml].",
        ),
    ):
        command = option(command)
    return command


def load(
    config: Path | None, pairs: tuple[str, ...], store: str | None, around: Surroundings
) -> Loaded:
    """Return the configuration with all its faults."""
    overrides: list[Override] = [bucket_override(store, around.cwd)] if store else []
    return load_settings(config, around, pairs, overrides)


def load_or_fail(
    config: Path | None, pairs: tuple[str, ...], store: str | None, around: Surroundings
) -> tuple[Loaded, Locations]:
    """Return the configuration and where things are.

    Raises:
        ConfigurationError: It has faults; all of them.
    """
    loaded = load(config, pairs, store, around)
    if loaded.faults:
        raise ConfigurationError(loaded.faults)
    return loaded, locate(loaded.settings.paths, around)


def colors(stream: IO[str], around: Surroundings) -> bool:
    """Tell whether a stream wants colours (https://no-color.org)."""
    return stream.isatty() and not around.environ.get("NO_COLOR")


def log_sink(style: str, around: Surroundings) -> Sink:
    """Return where the log goes: `json`, `console`, or `auto` (console on a terminal, else JSON)."""
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        return console_sink(sys.stderr, colors=colors(sys.stderr, around))
    return json_sink(sys.stderr)
