"""What `mayfly status` shows, for people and for programs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from agent.core.manifest import JobSummary
from agent.core.results import JobStatus, RunStatus

from agent.base.console import aligned, cut, printable
from agent.base.units import show_duration, show_size
from consumer.answers import Facts, Rules, facts_of
from consumer.archive.intake import IncredibleError, take_entry, take_marker
from consumer.archive.reader import Past
from consumer.facts.groups import GroupFacts, GroupState, groups_of, newest_of
from consumer.facts.jobs import JobFacts
from consumer.facts.rows import BegunRow, JobRow, RunRow, was_due
from consumer.history import Begun, Committed, Row, Unreadable

HEADINGS = ("STATUS", "STARTED", "JOBS", "FILES", "BYTES", "TIME", "RELEASE", "RUN")
RIGHT = frozenset({2, 3, 4, 5})
COLOURS = {
    RunStatus.SUCCEEDED.value: "green",
    RunStatus.PARTIAL.value: "yellow",
    RunStatus.FAILED.value: "red",
    RunStatus.INTERRUPTED.value: "yellow",
    "running": "cyan",
    "vanished": "red",
    "unreadable": "red",
}
GROUP_COLOURS = {
    GroupState.COMPLETE: "green",
    GroupState.INCOMPLETE: "cyan",
    GroupState.LATE: "red",
}
GROUPS_SHOWN = 5
"""The newest ones."""
MAX_CELL = 40
"""Columns of a cell whose text others choose, such as a tag."""

Paint = Callable[[str, str], str]
"""Returns text in a colour; without colours, the text."""


def status_lines(
    rows: Sequence[Row], *, paint: Paint, zone: tzinfo | None, width: int
) -> list[str]:
    """Return the table of recent runs.

    Args:
        rows: The runs, in the order in which they are shown.
        paint: Colours a text.
        zone: Of the times; None is the computer's.
        width: Columns after which what a job says is cut.
    """
    table = aligned([HEADINGS, *(_cells(row, zone) for row in rows)], RIGHT)
    lines = [table[0]]
    for row, line in zip(rows, table[1:], strict=True):
        word = _word(row)
        lines.append(paint(word, COLOURS[word]) + line[len(word) :])
        lines += [cut(f"    {detail}", width) for detail in _details(row, zone)]
    return lines


def _word(row: Row) -> str:
    match row:
        case Committed():
            return row.entry.status.value
        case Begun():
            return "vanished" if row.vanished else "running"
        case Unreadable():
            return "unreadable"


def _cells(row: Row, zone: tzinfo | None) -> tuple[str, ...]:
    match row:
        case Committed(entry=entry):
            due = [job for job in entry.jobs if was_due(job.status, job.cause)]
            succeeded = sum(job.status is JobStatus.SUCCEEDED for job in due)
            release = cut(printable(entry.release or "-"), MAX_CELL)
            return (
                _word(row),
                _local(entry.started, zone),
                f"{succeeded}/{len(due)}",
                str(entry.files),
                show_size(entry.bytes),
                show_duration(max(0.0, (entry.finished - entry.started).total_seconds())),
                release + (" (stale)" if entry.stale else ""),
                row.run,
            )
        case Begun(marker=marker):
            release = cut(printable(marker.release_wanted), MAX_CELL)
            return (_word(row), _local(marker.started, zone), *"----", release, row.run)
        case Unreadable():
            return (_word(row), *"------", row.run)


def _details(row: Row, zone: tzinfo | None) -> list[str]:
    match row:
        case Committed(entry=entry):
            return [
                _job_line(job)
                for job in entry.jobs
                if job.incomplete
                or (job.status is not JobStatus.SUCCEEDED and was_due(job.status, job.cause))
            ]
        case Begun(marker=marker):
            deadline = _local(marker.deadline, zone)
            host = cut(printable(marker.host), MAX_CELL)
            if row.vanished:
                return [f"began on {host}; nothing came of it by its deadline, {deadline}"]
            return [f"on {host}; its deadline is {deadline}"]
        case Unreadable():
            return [f"{printable(row.key)}: {printable(row.problem)}"]


def _job_line(job: JobSummary) -> str:
    cause = f" ({job.cause.value})" if job.cause else ""
    message = f": {printable(job.message)}" if job.message else ""
    status = "incomplete" if job.incomplete else job.status.value
    return f"{cut(printable(job.name), MAX_CELL)} {status}{cause}{message}"


def _local(moment: datetime, zone: tzinfo | None) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def past_of(rows: Sequence[Row], now: datetime) -> Past:
    """Return the history that these runs are; what is not credible is no part of it."""
    runs: list[RunRow] = []
    begun: list[BegunRow] = []
    jobs: dict[str, list[JobRow]] = {}
    for row in sorted(rows, key=lambda row: row.run):
        try:
            if isinstance(row, Committed):
                taken = take_entry(row.key, row.entry)
                runs.append(taken.run)
                for job in taken.jobs:
                    jobs.setdefault(job.name, []).append(job)
            elif isinstance(row, Begun):
                begun.append(take_marker(row.marker, now))
        except IncredibleError:
            continue
    kept = {name: tuple(of_job) for name, of_job in jobs.items()}
    newest = newest_of(groups_of(runs, begun, now.timestamp()))
    mine = frozenset(newest.runs if newest else ())
    grouped = tuple(job for of_job in kept.values() for job in of_job if job.run in mine)
    return Past(tuple(runs), kept, tuple(begun), grouped=grouped)


def facts_now(past: Past, zone: tzinfo, now: datetime) -> Facts:
    """Return what follows from a history, for the days of a zone."""
    return facts_of(past, Rules(zone), now.timestamp())


def job_lines(facts: Facts, *, paint: Paint, zone: tzinfo | None) -> list[str]:
    """Return a line for each job that does not go well now, or of which something did not arrive."""
    return [
        f"{paint(job.name, 'red')}: {', '.join(_worries(job, zone))}"
        for job in facts.jobs
        if job.failure or job.incomplete or job.missed_days
    ]


def group_lines(facts: Facts, *, cut_off: bool, paint: Paint, zone: tzinfo | None) -> list[str]:
    """Return a line for each of the newest groups, newest first.

    Args:
        facts: What is known.
        cut_off: Whether older runs were not looked at: what is missing of a group may be among them.
        paint: Colours a text.
        zone: Of the times; None is the computer's.
    """
    return [
        _group_line(group, cut_off=cut_off, paint=paint, zone=zone)
        for group in facts.groups[: -GROUPS_SHOWN - 1 : -1]
    ]


def _group_line(group: GroupFacts, *, cut_off: bool, paint: Paint, zone: tzinfo | None) -> str:
    state = _group_state(group, cut_off=cut_off)
    word = paint(state.value, GROUP_COLOURS[state]) if state else "not all runs looked at"
    line = f"group {group.name}: {word}, {group.committed} of {group.shards} shards committed"
    if state is None:
        return f"{line} (-n looks at more)"
    if group.running:
        line += f", {group.running} running"
    if state is GroupState.INCOMPLETE:
        due = datetime.fromtimestamp(group.due, UTC)
        line += f", late after {_local(due, zone)}"
    if not group.missing:
        return line
    # Counted from 1, as `--shard` does.
    named = ", ".join(str(shard + 1) for shard in group.missing)
    more = group.shards - group.committed - len(group.missing)
    return f"{line}; missing {named}" + (f" and {more} more" if more else "")


def _group_state(group: GroupFacts, *, cut_off: bool) -> GroupState | None:
    """Return how a group stands, None when that cannot be told."""
    return None if cut_off and group.state is not GroupState.COMPLETE else group.state


def _group_object(group: GroupFacts, *, cut_off: bool) -> dict[str, Any]:
    state = _group_state(group, cut_off=cut_off)
    return {
        "group": group.name,
        "shards": group.shards,
        "committed": group.committed,
        "state": state and state.value,
        "missing": list(group.missing),
        "running": group.running,
        "began": datetime.fromtimestamp(group.began, UTC).isoformat(),
        "due": datetime.fromtimestamp(group.due, UTC).isoformat(),
    }


def _worries(job: JobFacts, zone: tzinfo | None) -> list[str]:
    worries = []
    if job.failure:
        worries.append(_days("failed", job.failed_days, job.consecutive_failures))
    if job.incomplete:
        worries.append(f"incomplete: {printable(job.incomplete.message)}")
    if job.missed_days:
        worries.append(_days("missed", job.missed_days, job.missed_days))
    success = job.last_success
    if success is None:
        return [*worries, "no success among the runs that were looked at"]
    moment = datetime.fromtimestamp(success.started, UTC)
    return [*worries, f"last success {_local(moment, zone)}"]


def _days(what: str, days: int, times: int) -> str:
    if days > 1:
        return f"{what} {days} days in a row"
    return f"{what} {times} times in a row" if times > 1 else what


def status_json(rows: Sequence[Row], facts: Facts, bucket: str, *, cut_off: bool) -> dict[str, Any]:
    """Return recent runs as JSON: each with its `state`, and what the bucket says of it; and how jobs and groups go."""
    jobs = [
        {
            "name": job.name,
            "consecutive_failures": job.consecutive_failures,
            "failed_days": job.failed_days,
            "missed_days": job.missed_days,
            "refused_files": job.last.refused_files if job.last else 0,
            "last_success": job.last_success.run if job.last_success else None,
        }
        for job in facts.jobs
    ]
    groups = [_group_object(one, cut_off=cut_off) for one in facts.groups[: -GROUPS_SHOWN - 1 : -1]]
    runs = [_object(row) for row in rows]
    return {"bucket": bucket, "runs": runs, "jobs": jobs, "groups": groups}


def _object(row: Row) -> dict[str, Any]:
    match row:
        case Committed(entry=entry):
            return {"state": "committed", "key": row.key.key, **entry.model_dump(mode="json")}
        case Begun(marker=marker):
            return {"state": _word(row), **marker.model_dump(mode="json")}
        case Unreadable():
            return {
                "state": "unreadable",
                "key": row.key,
                "run_id": row.run,
                "problem": row.problem,
            }
