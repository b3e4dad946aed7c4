"""Histories, written shortly."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from agent.core.ids import run_id
from agent.core.results import JobCause, JobStatus, RunStatus
from consumer.facts.rows import BegunRow, JobRow, RunRow

FIRST = datetime(2026, 11, 2, 6, 42, tzinfo=UTC)
"""A Monday."""
STATUSES = {
    "s": (JobStatus.SUCCEEDED, None),
    "f": (JobStatus.FAILED, JobCause.PAGE_CHANGED),
    "t": (JobStatus.TIMED_OUT, JobCause.TIMEOUT),
    "i": (JobStatus.INTERRUPTED, JobCause.INTERRUPTED),
    "e": (JobStatus.EMPTY, JobCause.EXPECTATION),
    "-": (JobStatus.SKIPPED, None),
    "x": (JobStatus.SKIPPED, JobCause.ERROR),
}


def run_on(day: int, number: int = 0, first: datetime = FIRST) -> str:
    """The id of a run of a day, counted from the first; `number` tells those of one day apart."""
    return run_id(first + timedelta(days=day, hours=number), bytes([day % 256, day // 256, number]))


def job_rows(days: str, name: str = "quotes", first: datetime = FIRST) -> list[JobRow]:
    """A job's rows, one character a day: s, f, t, i, e as statuses begin, - not due, x needed a failed one, . no run.

    Several runs of one day are written in brackets: `s(fs).`.
    """
    rows = []
    for day, runs in enumerate(split(days)):
        for number, letter in enumerate(runs):
            began = (first + timedelta(days=day, hours=number)).timestamp()
            status, cause = STATUSES[letter]
            rows.append(
                JobRow(
                    run=run_on(day, number, first),
                    name=name,
                    started=began,
                    finished=began + 60,
                    status=status,
                    cause=cause,
                    files=10 if letter == "s" else 0,
                )
            )
    return rows


def split(days: str) -> list[str]:
    """The runs of each day."""
    found: list[str] = []
    inside = False
    for letter in days:
        if letter in "()":
            inside = letter == "("
            if inside:
                found.append("")
        elif inside:
            found[-1] += letter
        else:
            found.append(letter.replace(".", ""))
    return found


def run_rows(days: str, *, cost: float | None = None, first: datetime = FIRST) -> list[RunRow]:
    """Runs, one character a day: s(ucceeded), p(artial), f(ailed), i(nterrupted), 0 failed without a job, . no run."""
    words = {"s": "succeeded", "p": "partial", "f": "failed", "i": "interrupted", "0": "failed"}
    return [
        RunRow(
            run=run_on(day, first=first),
            started=(first + timedelta(days=day)).timestamp(),
            finished=(first + timedelta(days=day, minutes=3)).timestamp(),
            status=RunStatus(words[letter]),
            release="v1",
            commit="c" * 40,
            cost=cost,
            jobs=0 if letter == "0" else 2,
        )
        for day, letter in enumerate(days)
        if letter != "."
    ]


def begun(days: Iterable[int]) -> list[BegunRow]:
    """Runs that began on these days and were never committed."""
    return [
        BegunRow(
            run_on(day),
            (FIRST + timedelta(days=day)).timestamp(),
            (FIRST + timedelta(days=day, hours=2)).timestamp(),
        )
        for day in days
    ]


def after(days: int, hours: float = 0.0) -> float:
    """A moment so long after the first run (Unix seconds)."""
    return (FIRST + timedelta(days=days, hours=hours)).timestamp()
