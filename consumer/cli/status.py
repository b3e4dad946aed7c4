"""`mayfly status`."""

from collections.abc import Iterator
from datetime import datetime

import click

from agent.base.console import aligned, cut, printable
from agent.base.errors import ExitCode
from agent.base.units import show_duration
from consumer.cli.command import Options, dump, paint, width
from consumer.cli.known import known_command, known_of
from consumer.judge import Judged
from consumer.page.document import status_document
from consumer.page.front import attempts, run_lines
from consumer.page.given import Health
from consumer.page.sentences import trouble_details, trouble_remedy, trouble_title, verdict_text
from consumer.page.verdict import Verdict, verdict
from consumer.page.words import language
from consumer.spending import MonthCosts, month_costs, month_of

HEADINGS = ("STATUS", "BEGAN", "AGO", "JOBS", "FILES", "TOOK", "RUN")
RIGHT = frozenset({2, 3, 4, 5})
COLOURS = {
    "succeeded": "green",
    "partial": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
}


@click.command()
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many of the newest runs to list.",
)
@click.option(
    "--check",
    is_flag=True,
    help="For cron: print only what fails, and exit with 3 if something does.",
)
@known_command
def status(*, options: Options, limit: int, check: bool) -> ExitCode:
    """Tell whether the last runs worked, what fails now, and when the next run is due.

    Below that, the newest runs. The first time it reads the whole bucket, later only what is new.
    """
    known = known_of(options)
    judged, now = known.judged, known.judged.now
    health = Health(known.bucket.name, now, rejected=known.history.invalid)
    costs = month_costs(known.history, month_of(now, judged.zone), now, options.ended)
    found = verdict(judged, health)
    failing = ExitCode.PARTIAL if check and not found.fine else ExitCode.DONE
    if options.as_json:
        dump(status_document(judged, costs, health, limit))
    elif not check:
        for line in (*lines(judged, found), *shards(judged), "", *table(judged, costs, limit)):
            click.echo(line, color=True)
    elif failing:
        for line in lines(judged, found):
            click.echo(line, color=True)
    return failing


def lines(judged: Judged, found: Verdict) -> Iterator[str]:
    """Yield the verdict, and what is wrong."""
    _, columns = language("en"), width()
    for text in verdict_text(_, found):
        yield paint(text, COLOURS.get(found.state.value, "white"))
    for one in found.troubles:
        yield ""
        yield paint(cut(trouble_title(_, one), columns), "yellow" if one.mild else "red")
        details = ", ".join(trouble_details(_, one, judged.now, judged.zone))
        for text in (details, printable(one.message), trouble_remedy(_, one)):
            if text:
                yield cut(f"    {text}", columns)
        if one.run:
            job = one.jobs[0] if one.jobs else ""
            yield f"    mayfly show {one.run} {job}".rstrip()


def shards(judged: Judged) -> Iterator[str]:
    """Yield how the newest groups of shards are."""
    for number, one in enumerate(judged.sharded):
        if not number:
            yield ""
        state = one.state(judged.now).value
        word = paint(state, COLOURS.get(state, "white"))
        line = f"group {one.name}: {word}, {one.done} of {one.shards} shards done"
        if one.running:
            line += f", {one.running} running"
        if one.is_late(judged.now):
            # Counted from 1, as `--shard` does.
            line += "; missing " + ", ".join(str(shard + 1) for shard in one.missing)
            line += ", ..." if len(one.missing) < one.shards - one.done else ""
        yield line


def table(judged: Judged, costs: MonthCosts, limit: int) -> Iterator[str]:
    """Yield the newest runs."""
    runs = run_lines(judged, attempts(judged)[: -limit - 1 : -1], costs)
    cells = [
        (
            one.status.value,
            f"{one.started.astimezone(judged.zone):%m-%d %H:%M}",
            age(one.started, judged.now),
            one.jobs,
            str(one.files),
            show_duration(one.seconds),
            " ".join(filter(None, (one.run, one.shard, one.schedule))),
        )
        for one in runs
    ]
    if not cells:
        return
    head, *rows = aligned([HEADINGS, *cells], RIGHT)
    yield head
    for one, row in zip(runs, rows, strict=True):
        word = one.status.value
        yield paint(word, COLOURS.get(word, "white")) + row[len(word) :]
    yield f"(times in {judged.zone})"


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
