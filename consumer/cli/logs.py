"""`mayfly logs`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click

from agent.base.console import printable
from agent.base.errors import ExitCode, StoreError, UsageError
from agent.contract.descriptor import Role
from agent.contract.ids import Batch as Id
from agent.contract.layout import JobKey
from agent.contract.package import Package
from agent.contract.results import RunStatus
from consumer.cli.command import Options, Units, check_interval, paint
from consumer.cli.known import Known, catch_up, known_command, known_of
from consumer.objects import MOST_READ_BYTES, AbsentError, file_of
from consumer.page.logtext import filtered, log_lines
from consumer.page.render import shown_text

COLOURS = {"warning": "yellow", "error": "red"}
LONGEST_LINE = 1024**2
"""Bytes of a line that are held until its end comes; then it is cut."""


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("job", metavar="[JOB]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Only events of this level or above.",
)
@click.option(
    "--interval",
    type=Units("duration"),
    default="15s",
    show_default=True,
    help="Time between polls with --follow; each is one or two LIST requests.",
)
@known_command
def logs(
    *, options: Options, run: str, job: str | None, follow: bool, level: str | None, interval: float
) -> ExitCode:
    """Print the log of a run; of one job, what it printed itself.

    RUN is a run's id, as `mayfly status` lists them, or `latest`. While a run goes on, its log arrives in parts, at
    least one each five minutes; of a job that did not end yet there is what the run says of it. --json prints the
    events as they are.
    """
    check_interval("--interval", interval)
    known = known_of(options)
    batch, found = known.run(run)
    ended = job is not None and any(one.name == job for one in found.jobs)
    if ended and job is not None and not follow:
        for option, given in (("--json", options.as_json), ("--level", level)):
            if given:
                raise UsageError(
                    f"{option} is for events, and {job} has ended: there is what it printed",
                    remedy=f"leave out {option}, or leave out {job} for the events of the run",
                )
        asyncio.run(_printed(known, found.id, job))
    else:
        wanted = (level or "", job or "", options.as_json)
        asyncio.run(_log(known, batch.id, found.id, wanted, interval if follow else None))
    return ExitCode.DONE


async def _log(
    known: Known, batch: Id, run: str, wanted: tuple[str, str, bool], interval: float | None
) -> None:
    done = 0
    while True:
        # Asked before the parts are: of a run that is over, all parts are there.
        now = known.store.batch(batch)
        mine = next((one for one in now.runs if one.id == run), None) if now else None
        parts = known.store.log_parts(batch, run)
        for part in parts[done:]:
            try:
                text = await known.objects.end(part, MOST_READ_BYTES)
                _print(text.content, wanted, known)
            except StoreError as error:
                _warn(f"{part.key}: {error}")
                if interval is not None and not isinstance(error, AbsentError):
                    break  # it comes with the next poll
            done += 1
        over = now is None or mine is None or now.status(mine) is not RunStatus.RUNNING
        if interval is None or (over and done == len(parts)):
            return
        await asyncio.sleep(interval)
        try:
            await catch_up(known.bucket, known.store, datetime.now(UTC))
        except StoreError as error:
            _warn(str(error))


def _warn(problem: str) -> None:
    click.echo(f"warning: {printable(problem)}", err=True)


def _print(text: bytes, wanted: tuple[str, str, bool], known: Known) -> None:
    level, job, as_json = wanted
    for line in filtered(log_lines(text), level, job):
        shown = line.json if as_json else line.text(known.judged.zone)
        click.echo(
            paint(shown, COLOURS[line.level]) if line.level in COLOURS else shown, color=True
        )


async def _printed(known: Known, run: str, job: str) -> None:
    objects = known.objects
    package = await objects.package({run: known.run(run)}, run, job)
    if not isinstance(package, Package):
        raise AbsentError(
            f"there is nothing of {job}: {package.reason if package else 'no package'}"
        )
    for one in package.resources:
        if one.role is Role.LOG:
            async for lines in _lines(objects.pieces(file_of(JobKey(run, job), one).object)):
                click.echo("".join(f"{_shown(line)}\n" for line in lines), nl=False)


def _shown(line: bytes) -> str:
    """Return a line that a job printed, printable; its spaces stay, since tables and tracebacks are made of them."""
    text = shown_text(line).expandtabs()
    return text if text.isprintable() else " ".join(map(printable, text.split(" ")))


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a text, some at a time."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        yield lines
    yield [rest] if rest else []
