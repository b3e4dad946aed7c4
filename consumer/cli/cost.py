"""`mayfly cost`."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, dump, loaded_settings, open_bucket

if TYPE_CHECKING:
    from agent.core.manifest import IndexEntry
    from consumer.bucket import ReadOnlyBucket

_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])", re.ASCII)
READS_AT_ONCE = 8


@click.command()
@click.option("--month", "which", metavar="YYYY-MM", help="Another month than this one.")
@bucket_command
def cost(
    *,
    which: str | None,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Show what each run of the month cost, the month so far, its forecast, and an always-on machine beside it.

    Amounts are estimates in US dollars, without taxes, free tiers, data transfer and the bucket.
    """
    from consumer.costs import cost_json, cost_lines, month_costs, month_of  # noqa: PLC0415
    from consumer.facts.runs import COST_DAYS  # noqa: PLC0415

    now = datetime.now(UTC)
    month = month_of(*_year_and_month(which, now), None)
    bucket = open_bucket(store, config, pairs)
    prices = loaded_settings(config, pairs).cost
    entries = asyncio.run(
        _entries(bucket, min(month.begin, now - timedelta(days=COST_DAYS)), month.end)
    )
    costs = month_costs(entries, month, now, prices)
    if as_json:
        dump(cost_json(costs, prices, bucket.name))
        return ExitCode.DONE
    click.echo(f"{bucket.name}, {month.begin:%B %Y} (estimates; times in {month.begin:%Z})")
    for line in cost_lines(costs, prices, None):
        click.echo(line)
    return ExitCode.DONE


def _year_and_month(which: str | None, now: datetime) -> tuple[int, int]:
    if which is None:
        here = now.astimezone()
        return here.year, here.month
    match = _MONTH.fullmatch(which)
    if match is None:
        raise UsageError(f"{which!r} is no month", remedy="write it as 2026-11")
    return int(match.group(1)), int(match.group(2))


async def _entries(bucket: "ReadOnlyBucket", begin: datetime, end: datetime) -> "list[IndexEntry]":
    """Return the sound entries of runs of a month, and of the four weeks before now; what is forged is left out."""
    from agent.core.ids import commit_stamp, run_started  # noqa: PLC0415
    from agent.core.layout import INDEX  # noqa: PLC0415
    from consumer.history import Committed, index_keys, read_entry  # noqa: PLC0415
    from consumer.pull.plan import date_problem  # noqa: PLC0415

    # A run commits after it began, so its key sorts after the first moment.
    keys = await index_keys(bucket, after=f"{INDEX}{commit_stamp(begin)}")
    wanted = [key for key in keys if not date_problem(key) and begin <= run_started(key.run) < end]
    limit = asyncio.Semaphore(READS_AT_ONCE)

    async def read(index: int) -> "IndexEntry | None":
        async with limit:
            found = await read_entry(bucket, wanted[index])
        return found.entry if isinstance(found, Committed) else None

    rows = await asyncio.gather(*(read(index) for index in range(len(wanted))))
    return [row for row in rows if row is not None]
