"""`mayfly show`."""

import asyncio
from collections.abc import Iterable, Iterator

import click
from pydantic_core import to_jsonable_python

from agent.base.console import aligned, columns_of, cut, printable
from agent.base.errors import ExitCode, UsageError
from agent.base.units import show_duration, show_size
from agent.contract.entries import Invalid
from agent.contract.layout import JobKey
from agent.contract.package import Package
from consumer.cli.command import Options, dump, paint, width
from consumer.cli.known import Known, known_command, known_of
from consumer.cli.status import COLOURS
from consumer.groups import State
from consumer.model import Batch, Job, Run
from consumer.page.given import Text, Visit
from consumer.page.logtext import log_lines
from consumer.page.render import Page, said, shown_text
from consumer.page.run import JobLine, job_facts, job_lines, notes, progress, run_facts
from consumer.page.sentences import CAUSES, status_text
from consumer.page.words import language
from consumer.spending import month_costs, month_of

LOG_LINES = 20
MOST_FILES = 50
NAME = 17
"""Columns of what a fact is called."""


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("job", metavar="[JOB]", required=False)
@known_command
def show(*, options: Options, run: str, job: str | None) -> ExitCode:
    """Show what happened in a run, or to one job of it: facts, messages, files, the end of the log.

    RUN is a run's id, as `mayfly status` lists them, or `latest`.
    """
    known = known_of(options)
    batch, found = known.run(run)
    if job is not None:
        mine = next((one for one in found.jobs if one.name == job), None)
        if mine is None:
            raise _no_result(batch, found, job)
        package, log = asyncio.run(_of_job(known, found.id, job))
        if options.as_json:
            dump(_json(mine) | {"package": _json(package)})
        else:
            _tell(_job_lines(known, mine, package, log))
        return ExitCode.DONE
    log = asyncio.run(known.objects.log({found.id: (batch, found)}, found.id))
    if options.as_json:
        dump(_json(found) | {"status": batch.status(found).value, "batch": batch.id.name})
    else:
        _tell(_run_lines(known, batch, found, log))
    return ExitCode.DONE


def _no_result(batch: Batch, run: Run, job: str) -> UsageError:
    there = {one.name: one for one in job_lines(batch, run)}
    if job in there:
        line = there[job]
        return UsageError(
            f"{job} has no result in {run.id}: {line.state.value} {line.message}".rstrip()
        )
    names = ", ".join(sorted(there)[:20]) or "none"
    return UsageError(f"{run.id} has no job {job!r}", remedy=f"its jobs: {names}")


async def _of_job(known: Known, run: str, job: str) -> tuple[Package | Invalid | None, Text]:
    objects = known.objects
    package = await objects.package({run: known.run(run)}, run, job)
    return package, await objects.printed(package, JobKey(run, job))


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line, color=True)


def _run_lines(known: Known, batch: Batch, run: Run, log: Text) -> Iterator[str]:
    judged = known.judged
    page = Page(Visit(language("en")), judged.zone)
    _ = page.visit.language
    costs = month_costs(known.history, month_of(run.started, judged.zone), judged.now)
    status = batch.status(run)
    yield paint(f"{run.id}: {status_text(_, status)}", COLOURS.get(status.value, "white"))
    if status.value == "running":
        yield progress(_, run)
    for note in notes(_, batch, run):
        yield from _wrapped(printable(note))
    yield ""
    yield from _facts(said(run_facts(page, judged, costs, batch, run)))
    jobs = job_lines(batch, run)
    if jobs:
        yield ""
        yield from aligned(
            [("JOB", "STATUS", "FILES", "SIZE", "TOOK"), *map(_cells, jobs)], frozenset({2, 3, 4})
        )
    for one in jobs:
        if one.message or one.cause:
            yield ""
            yield from _said(one)
    yield ""
    yield from _log_end(
        log, [line.text(judged.zone) for line in log_lines(log.content, cut=log.cut)], run.id
    )


def _cells(one: JobLine) -> tuple[str, ...]:
    if one.ended is None:
        return (one.name, one.state.value, "", "", "")
    job = one.ended
    return (
        one.name,
        job.status.value,
        str(job.files),
        show_size(job.bytes),
        show_duration(job.seconds),
    )


def _said(one: JobLine) -> Iterator[str]:
    yield f"{one.name}: {CAUSES[one.cause.known]}" if one.cause else f"{one.name}:"
    if one.message:
        yield from _wrapped(printable(one.message), "    ")


def _job_lines(
    known: Known, job: Job, package: Package | Invalid | None, log: Text
) -> Iterator[str]:
    sound = package if isinstance(package, Package) else None
    yield paint(f"{job.name}: {job.status.value}", COLOURS.get(job.status.value, "red"))
    if job.message or job.cause:
        yield from _said(JobLine(job.name, State.NONE, job, job.cause, job.message))
    yield ""
    page = Page(Visit(language("en")), known.judged.zone)
    yield from _facts(said(job_facts(page, job, sound)))
    if isinstance(package, Invalid):
        yield from _wrapped(f"its package cannot be used: {package.reason}")
    if sound is None:
        return
    rows = [
        (show_size(one.bytes), one.role.value, printable(one.original or one.path))
        for one in sound.resources
    ]
    yield ""
    yield from (cut(line, width()) for line in aligned(rows[:MOST_FILES], frozenset({0})))
    if len(rows) > MOST_FILES:
        yield f"... and {len(rows) - MOST_FILES} more"
    yield f"`mayfly pull FOLDER --job {job.name} --partial` brings them home"
    for one in sound.job.refused[:MOST_FILES]:
        yield from _wrapped(f"not handed over: {printable(one.path)}: {printable(one.reason)}")
    yield ""
    yield from _log_end(
        log,
        [printable(line) for line in shown_text(log.content).splitlines()],
        f"{sound.job.run} {job.name}",
    )


def _log_end(log: Text, lines: list[str], which: str) -> Iterator[str]:
    if log.problem:
        yield from _wrapped(f"the log cannot be read: {log.problem}")
    elif not lines:
        yield "nothing was logged"
    else:
        if log.cut or len(lines) > LOG_LINES:
            yield f"the end of the log (`mayfly logs {which}` has all):"
        yield from (cut(line, width()) for line in lines[-LOG_LINES:])


def _facts(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in pairs:
        yield from _wrapped(printable(text), f"{name:<{NAME}} ")


def _wrapped(text: str, lead: str = "") -> Iterator[str]:
    """Yield text in lines that fit, below each other; what has no spaces, such as a command, stays whole."""
    room = width() - len(lead)
    line = ""
    for word in text.split(" "):
        if line and columns_of(line) + 1 + columns_of(word) > room:
            yield f"{lead}{line}"
            lead, line = " " * len(lead), word
        else:
            line = f"{line} {word}" if line else word
    yield f"{lead}{line}"


def _json(value: object) -> dict[str, object]:
    plain = to_jsonable_python(value, by_alias=True, bytes_mode="hex")
    return plain if isinstance(plain, dict) else {}
