"""`mayfly status`."""

import asyncio
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.base.errors import ExitCode
from consumer.cli.command import bucket_command, dump, open_bucket, paint

PIPE_WIDTH = 10_000
"""Columns where nobody's terminal limits them."""


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--history",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read the database of `mayfly serve` instead of the bucket.",
)
@bucket_command
def status(
    *,
    limit: int,
    history: Path | None,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Show recent runs, from the bucket alone, and which jobs do not go well."""
    from consumer.status import (  # noqa: PLC0415
        facts_now,
        group_lines,
        job_lines,
        past_of,
        status_json,
        status_lines,
    )

    now = datetime.now(UTC)
    here = now.astimezone().tzinfo or UTC
    if history is None:
        from consumer.history import recent  # noqa: PLC0415

        bucket = open_bucket(store, config, pairs)
        name, rows = bucket.name, asyncio.run(recent(bucket, now=now, limit=limit))
        past, cut_off = past_of(rows, now), len(rows) == limit
    else:
        from consumer.archive.reader import Reader  # noqa: PLC0415
        from consumer.archive.recall import recall  # noqa: PLC0415

        reader = Reader(history)
        name, rows, past = reader.bucket(), recall(reader, now, limit), reader.past()
        cut_off = False
    facts = facts_now(past, here, now)
    if as_json:
        dump(status_json(rows, facts, name, cut_off=cut_off))
        return ExitCode.DONE
    click.echo(f"{name} (times in {now.astimezone():%Z})")
    if not rows:
        click.echo("no runs yet")
        return ExitCode.DONE
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
    for line in status_lines(rows, paint=paint, zone=None, width=width):
        click.echo(line, color=True)
    for line in group_lines(facts, cut_off=cut_off, paint=paint, zone=None):
        click.echo(line, color=True)
    for line in job_lines(facts, paint=paint, zone=None):
        click.echo(line, color=True)
    return ExitCode.DONE
