"""How everything stands, as JSON: the same for `mayfly status --json` and `/status.json`. Decisions only."""

from dataclasses import asdict
from typing import Any

from pydantic_core import to_jsonable_python

from consumer.groups import Group
from consumer.judge import JobFacts, Judged
from consumer.page.front import attempts, run_lines
from consumer.page.given import Health
from consumer.page.sentences import verdict_text
from consumer.page.verdict import verdict
from consumer.page.words import language
from consumer.spending import MonthCosts, RunCost

RUNS = 10


def status_document(
    judged: Judged, costs: MonthCosts, health: Health, runs: int = RUNS
) -> dict[str, Any]:
    """Return the verdict, what fails, schedules, jobs, recent runs, the month's cost, and how home is."""
    found = verdict(judged, health)
    pairs = attempts(judged)[: -runs - 1 : -1]
    document = {
        "bucket": health.bucket,
        "now": judged.now,
        "fine": found.fine,
        "state": found.state,
        "verdict": verdict_text(language("en"), found),
        "troubles": [asdict(one) for one in found.troubles],
        "schedules": [
            {
                "name": one.name,
                "schedule": one.schedule,
                "problem": one.problem,
                "missed": one.missed,
                "next_due": one.next_due,
            }
            for one in judged.schedules
        ],
        "jobs": [_job(one) for one in judged.jobs],
        "groups": [_group(one, judged) for one in judged.sharded],
        "runs": [
            asdict(line)
            | {
                "cost": line.cost.usd if isinstance(line.cost, RunCost) else line.cost,
                "batch": batch.id.name,
            }
            for line, (batch, _) in zip(run_lines(judged, pairs, costs), pairs, strict=True)
        ],
        "month": {
            "begin": costs.month.begin,
            "so_far_usd": round(costs.so_far_usd, 6),
            "forecast_usd": round(costs.forecast_usd, 6),
        },
        "health": {"read": health.read, "problem": health.problem, "rejected": health.rejected}
        | ({"pull": asdict(health.pull)} if health.pull else {}),
    }
    plain: dict[str, Any] = to_jsonable_python(document)
    return plain


def _job(one: JobFacts) -> dict[str, Any]:
    return {
        "name": one.name,
        "schedule": one.schedule,
        "running": one.running,
        "failures": one.failures,
        "failed_days": one.failed_days,
        "failing_since": one.failing_since,
        "missed": one.missed,
        "state": one.last.state if one.last else None,
        "incomplete": one.incomplete.refused if one.incomplete else 0,
        "last_success": one.last_success.run if one.last_success else None,
    }


def _group(one: Group, judged: Judged) -> dict[str, Any]:
    return {
        "name": one.name,
        "schedule": one.schedule,
        "shards": one.shards,
        "done": one.done,
        "running": one.running,
        "state": one.state(judged.now),
        "late": one.is_late(judged.now),
        "missing": [shard + 1 for shard in one.missing],
    }
