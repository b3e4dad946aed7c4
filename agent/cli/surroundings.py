"""What the agent's commands take from the process: environment, terminal, configuration."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from agent.base.errors import MetadataError
from agent.base.logs import Sink, console_sink, json_sink
from agent.config.faults import ConfigurationError, Fault
from agent.config.locate import (
    LAUNCH,
    MACHINE,
    Loaded,
    Locations,
    Surroundings,
    bucket_override,
    load_settings,
    locate,
)
from agent.config.overrides import Override
from agent.machine.metadata import ENDPOINT_VARIABLE, Metadata, metadata_endpoint

Command = TypeVar("Command", bound=Callable[..., Any])


def surroundings() -> Surroundings:
    """Return what this process knows of its computer."""
    environ, machine = dict(os.environ), MACHINE.is_dir()
    return Surroundings(
        environ=environ,
        machine=machine,
        cwd=Path.cwd(),
        read=lambda path: path.read_text(encoding="utf-8"),
        launch=_launch(environ, machine=machine),
    )


def _launch(environ: Mapping[str, str], *, machine: bool) -> str | Fault | None:
    """Return what the machine was launched with, on a machine of its own, or where the environment names the service.

    On any other computer of EC2's, user data is somebody else's.
    """
    endpoint = metadata_endpoint(environ)
    if endpoint is None or not (machine or ENDPOINT_VARIABLE in environ):
        return None
    try:
        return Metadata(endpoint).user_data()
    except MetadataError as error:
        return Fault(LAUNCH, "", f"cannot be read: {error}", error.remedy)


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
    config: Path | None,
    pairs: tuple[str, ...],
    store: str | None,
    around: Surroundings,
    single: Sequence[Override] = (),
) -> Loaded:
    """Return the configuration with all its faults; `single` are values that come last."""
    named = [bucket_override(store, around.cwd)] if store else []
    return load_settings(config, around, pairs, [*named, *single])


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
