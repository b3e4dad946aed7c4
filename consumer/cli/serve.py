"""`mayfly serve`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from agent import __version__
from agent.base.errors import ExitCode, UsageError
from agent.config.faults import ConfigurationError, Fault
from consumer.cli.command import Options, Units, check_interval, open_bucket
from consumer.cli.known import history_file, known_command, rules_of
from consumer.cli.pull import pull_command
from consumer.pull.folder import Destination, FolderError
from consumer.pull.hooks import Hook
from consumer.pull.plan import Wish
from consumer.pull.watch import until_stopped

EXTRA = "run `.venv/bin/uv sync --inexact --extra home` in Mayfly's checkout"


@click.command()
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1:9464", show_default=True)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Name by which browsers call it, such as mayfly.example.org; repeatable.",
)
@click.option(
    "--interval",
    type=Units("duration"),
    default="60s",
    show_default=True,
    help="Time between polls of the bucket.",
)
@click.option(
    "--unhealthy-after",
    type=Units("duration"),
    default="15m",
    show_default=True,
    help="Time without a successful poll after which /healthz answers 503.",
)
@click.option(
    "--pull",
    "dest",
    metavar="DEST",
    type=click.Path(path_type=Path, file_okay=False),
    help="Pull jobs into DEST as well.",
)
@pull_command
@click.option(
    "--print-logs",
    is_flag=True,
    help="Print runs' logs on stdout as they arrive, for whatever collects those.",
)
@known_command
def serve(
    *,
    options: Options,
    listen: str,
    hosts: tuple[str, ...],
    interval: float,
    unhealthy_after: float,
    dest: Path | None,
    wish: Wish,
    hook: Hook | None,
    print_logs: bool,
) -> ExitCode:
    """Serve metrics, health and the pages of what the bucket says, until SIGTERM.

    Its own log goes to stderr: lines on a terminal, else (or with --json) JSON.
    """
    try:
        from consumer import service  # noqa: PLC0415
        from consumer.web.logs import make_log  # noqa: PLC0415
        from consumer.web.server import parse_address  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("the service needs more packages", remedy=EXTRA) from error
    check_interval("--interval", interval)
    host, port = parse_address(listen)
    rules = rules_of(options)
    terminal = sys.stderr.isatty() and not options.as_json
    log = make_log(sys.stderr, terminal=terminal, colours=not os.environ.get("NO_COLOR"))
    bucket = open_bucket(options)
    with ExitStack() as stack:
        pulling = None
        if dest is not None:
            pulling = service.Pulling(stack.enter_context(_destination(dest)), wish, hook)
        wanted = service.Options(
            host=host,
            port=port,
            hosts=hosts,
            history=history_file(options, bucket),
            interval=interval,
            stale_after=unhealthy_after,
            rules=rules,
            pulling=pulling,
            print_logs=click.echo if print_logs else None,
            version=__version__,
        )
        work = service.serve(bucket, wanted, log)
        code = asyncio.run(until_stopped(work, stopped=ExitCode.DONE))
    log.info("serve.stopped")
    return code


@contextmanager
def _destination(dest: Path) -> Iterator[Destination]:
    try:
        with Destination.open(dest) as place:
            yield place
    except FolderError as error:
        raise ConfigurationError([Fault("--pull", str(dest), str(error), error.remedy)]) from error
