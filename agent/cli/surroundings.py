"""What the agent's commands take from the process: environment, terminal, configuration."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import IO, Any

import click

from agent.base.errors import MetadataError
from agent.base.logs import Sink, console_sink, json_sink
from agent.config.faults import ConfigurationError, Fault
from agent.config.locate import (
    LAUNCH,
    Locations,
    Surroundings,
    bucket_override,
    is_machine,
    load_settings,
    locate,
)
from agent.config.overrides import Loaded, Override
from agent.machine.metadata import ENDPOINT_VARIABLE, Metadata, metadata_endpoint


def surroundings() -> Surroundings:
    """Return this process's environment and computer."""
    environ, machine = dict(os.environ), is_machine(Path.is_dir)
    return Surroundings(
        environ=environ,
        machine=machine,
        cwd=Path.cwd(),
        read=lambda path: path.read_text(encoding="utf-8"),
        launch=_launch(environ, machine=machine),
    )


def _launch(environ: Mapping[str, str], *, machine: bool) -> str | Fault | None:
    """Return the machine's user data, on a machine of its own, or if the environment names the metadata service.

    On any other EC2 instance, user data is somebody else's.
    """
    endpoint = metadata_endpoint(environ)
    if endpoint is None or not (machine or ENDPOINT_VARIABLE in environ):
        return None
    try:
        return Metadata(endpoint).user_data()
    except MetadataError as error:
        return Fault(LAUNCH, "", f"cannot be read: {error}", error.remedy)


@dataclass(frozen=True, slots=True)
class Options:
    """`--config`, `--set` and `--store`, which every command has that reads the configuration."""

    config: Path | None
    pairs: tuple[str, ...]
    store: str | None

    def load(self, around: Surroundings, single: Sequence[Override] = ()) -> Loaded:
        """Return the configuration with all its faults; `single` are values that come last."""
        named = [bucket_override(self.store, around.cwd)] if self.store else []
        return load_settings(self.config, around, self.pairs, [*named, *single])

    def load_or_fail(self, around: Surroundings) -> tuple[Loaded, Locations]:
        """Return the configuration and where things are.

        Raises:
            ConfigurationError: It has faults; all of them.
        """
        loaded = self.load(around)
        if loaded.faults:
            raise ConfigurationError(loaded.faults)
        return loaded, locate(loaded.settings.paths, around)


def configuration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command, which gets them as one `options`."""

    @wraps(command)
    def with_options(
        *arguments: Any,
        config: Path | None,
        pairs: tuple[str, ...],
        store: str | None,
        **others: Any,
    ) -> Any:
        return command(*arguments, options=Options(config, pairs, store), **others)

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
        with_options = option(with_options)
    return with_options


def kept_in(
    place: Path, source: str, around: Surroundings, store: str | None = None
) -> list[Override]:
    """Return the overrides that keep a run in a folder, and this computer's power on.

    Args:
        place: The folder.
        source: Who overrides, for `mayfly check --explain`.
        around: This computer.
        store: The bucket; None for one in the folder.
    """
    return [
        Override("paths.state", source, str(place / "state")),
        Override("power.after", source, "nothing"),
        bucket_override(store or str(place / "bucket"), around.cwd),
    ]


def colors(stream: IO[str], around: Surroundings) -> bool:
    """Tell whether a stream gets colours (https://no-color.org)."""
    return stream.isatty() and not around.environ.get("NO_COLOR")


log_option = click.option(
    "--log",
    "style",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="How the log is written to stderr.",
)


def log_sink(style: str, around: Surroundings) -> Sink:
    """Return the log's sink: `json`, `console`, or `auto` (console on a terminal, else JSON)."""
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        return console_sink(sys.stderr, colors=colors(sys.stderr, around))
    return json_sink(sys.stderr)
