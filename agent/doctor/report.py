"""Findings for people and for programs."""

from collections.abc import Callable, Sequence

from agent.base.console import aligned, printable
from agent.base.errors import ExitCode
from agent.doctor.examine import Finding, State

COLOURS = {State.OK: "green", State.FAILED: "red", State.SKIPPED: "bright_black"}


def as_lines(findings: Sequence[Finding], paint: Callable[[str, str], str]) -> list[str]:
    """Return a table: state, check, detail, and below a failure its remedy; `paint` colours a text."""
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        first, *more = [printable(line) for line in finding.detail.splitlines()] or [""]
        rows.append((finding.state.value, finding.name, first))
        rows += [("", "", line) for line in more]
        if finding.state is State.FAILED and finding.remedy:
            rows.append(("", "", f"-> {printable(finding.remedy)}"))
    lines = aligned(rows)
    states = [row[0] for row in rows]
    return [
        paint(state, COLOURS[State(state)]) + line[len(state) :] if state else line
        for state, line in zip(states, lines, strict=True)
    ]


def as_data(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return the findings as JSON data."""
    return [
        {"check": one.name, "state": one.state.value, "detail": one.detail, "remedy": one.remedy}
        for one in findings
    ]


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """Return 0 if nothing failed, otherwise 4: something is not set up as a run needs it."""
    broken = any(finding.state is State.FAILED for finding in findings)
    return ExitCode.CONFIGURATION if broken else ExitCode.DONE
