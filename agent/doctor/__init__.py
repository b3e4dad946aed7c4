"""`mayfly doctor`: tries every part that a run needs, all at once, and has a remedy for each failure."""

from agent.doctor.checks import CHECKS
from agent.doctor.examine import Check, Finding, Installation, State, examine, failed, ok, skipped
from agent.doctor.report import as_data, as_lines, exit_code

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Installation",
    "State",
    "as_data",
    "as_lines",
    "examine",
    "exit_code",
    "failed",
    "ok",
    "skipped",
]
