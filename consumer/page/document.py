"""How everything stands, as JSON: the same for `mayfly status --json` and `/status.json`."""

from typing import Any

from consumer.judge import Judged
from consumer.page.given import Health
from consumer.spending import MonthCosts


def status_document(judged: Judged, costs: MonthCosts, health: Health) -> dict[str, Any]:
    """Return the verdict, what fails, schedules, jobs, recent runs, the month's cost, and how home is."""
    raise NotImplementedError
