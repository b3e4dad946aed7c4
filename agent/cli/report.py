"""What a person sees at the end of a run, and what a program gets with `--json`."""

import json
from contextlib import suppress

import click

from agent.base.console import aligned, printable
from agent.base.units import show_duration, show_size
from agent.contract.entries import Ended
from agent.contract.results import JobStatus
from agent.notify.outcome import Outcome

MARKS = {
    JobStatus.SUCCEEDED: ("ok", "green"),
    JobStatus.SKIPPED: ("skipped", "bright_black"),
    JobStatus.INTERRUPTED: ("interrupted", "yellow"),
}


def print_outcome(outcome: Outcome, *, as_json: bool, coloured: bool) -> None:
    """Print a run's outcome to stdout. What follows, such as exit code and power-off, does not depend on it."""
    said = (
        json.dumps(as_data(outcome), indent=1)
        if as_json
        else "\n".join(lines(outcome, coloured=coloured))
    )
    try:
        click.echo(said)
    except OSError as error:  # a full disk, or a reader that left
        with suppress(OSError):
            click.echo(f"the outcome cannot be printed: {error.strerror}", err=True)


def as_data(outcome: Outcome) -> dict[str, object]:
    """Return an outcome as JSON data."""
    return {
        "run_id": outcome.run_id,
        "status": outcome.status.value,
        "exit_code": int(outcome.exit_code),
        "delivered": outcome.delivered,
        "undelivered": outcome.undelivered or None,
        "kept": outcome.kept,
        "manifest": outcome.manifest or None,
        "interruption": outcome.interruption or None,
        "stood_back": outcome.stood_back or None,
        "warnings": list(outcome.warnings),
        "jobs": [job.model_dump(mode="json") for job in outcome.jobs],
    }


def lines(outcome: Outcome, *, coloured: bool) -> list[str]:
    """Return the table of jobs, and below it where the manifest is or why there is none."""
    rows = [["job", "status", "files", "bytes", "time", ""]]
    rows += [_row(job) for job in outcome.jobs]
    if len(outcome.jobs) > 1:
        files, size = (
            sum(getattr(job, what) for job in outcome.jobs) for what in ("files", "bytes")
        )
        rows.append(["total", "", str(files), show_size(size), "", ""])
    table = aligned(rows, right=frozenset({2, 3, 4})) if outcome.jobs else []
    # Beside the heading and the total, which may be missing, stands no job.
    painted = [
        click.style(line, fg=_colour(job)) if job and coloured else line
        for line, job in zip(table, [None, *outcome.jobs, None], strict=False)
    ]
    return [*painted, "", *_closing(outcome)] if painted else _closing(outcome)


def _closing(outcome: Outcome) -> list[str]:
    if outcome.stood_back:
        return [f"nothing to do: {printable(outcome.stood_back)} (exit code {outcome.exit_code:d})"]
    closing = [
        f"run {outcome.run_id or '-'} {outcome.status.value} (exit code {outcome.exit_code:d})"
    ]
    closing += [f"warning: {printable(text)}" for text in outcome.warnings]
    if outcome.manifest:
        closing.append(f"manifest {outcome.manifest}")
    if outcome.undelivered:
        rest = "the next run here delivers the rest" if outcome.kept else "the rest is lost"
        closing.append(f"not delivered ({rest}): {printable(outcome.undelivered)}")
    return closing


def _row(job: Ended) -> list[str]:
    label = "incomplete" if job.incomplete else MARKS.get(job.status, (job.status.value, ""))[0]
    said = printable(job.message)
    if job.cause is not None:
        said = f"{job.cause.value}: {said}" if said else job.cause.value
    return [
        job.name,
        label,
        str(job.files),
        show_size(job.bytes),
        show_duration(job.seconds) if job.attempts else "-",
        said if len(said) <= 100 else f"{said[:99]}…",  # noqa: PLR2004 -- a line of a terminal
    ]


def _colour(job: Ended) -> str:
    return "yellow" if job.incomplete else MARKS.get(job.status, ("", "red"))[1]
