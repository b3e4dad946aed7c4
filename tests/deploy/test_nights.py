"""The nights that people have, through the real exporter and the rules as shipped: what is told, and when.

The exporter is asked every four minutes of a row's history, what it says becomes the series of a `promtool test rules`,
and promtool says what fires.
"""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from consumer.home import Home, Known
from consumer.judge import Rules
from consumer.web.metrics import HomeCollector
from tests.consumer.nights import HOUR, history, tokyo
from tests.consumer.rows import FAILING, LATE, LOST, MISSED, ROWS, Row
from tests.deploy.tools import MONITORING, accepts

STEP = timedelta(minutes=4)
"""Less than the five minutes for which Prometheus remembers a series."""


def exported(row: Row, begin: datetime, end: datetime) -> dict[str, list[str]]:
    """Return what the exporter says at each step, by series; times count from the begin."""
    moments = [begin + STEP * n for n in range((end - begin) // STEP + 1)]
    home = Home("b", Known.of(history(begin), Rules(begin)), begin, 900)
    registry = CollectorRegistry()
    registry.register(HomeCollector(home, "1"))
    found: dict[str, list[str]] = {}
    for step, now in enumerate(moments):
        home.known = Known.of(history(now, *row.runs), Rules(now))
        home.read, home.up, home.pulls, home.pulled = now, True, True, now
        for line in generate_latest(registry).decode().splitlines():
            if line.startswith("#"):
                continue
            name, _, value = line.rpartition(" ")
            is_time = name.partition("{")[0].endswith("_timestamp_seconds")
            series = found.setdefault(name, [])
            series += ["_"] * (step - len(series))
            series.append(f"{float(value) - (begin.timestamp() if is_time else 0):.3f}")
    return found


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_told_of_a_night(row: Row, tmp_path: Path) -> None:
    """Promtool agrees on every moment: these alerts fire then, and no others."""
    told = {tokyo(when): alerts for when, alerts in row.told.items()}
    begin, end = min(told) - HOUR, max(told) + 2 * STEP
    series = [
        {"series": name, "values": " ".join(values)}
        for name, values in exported(row, begin, end).items()
    ]
    asked = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing",alertname!~"MayflyCost.*"})',
            "eval_time": f"{(moment - begin) // timedelta(seconds=1)}s",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": count}
                for name, count in alerts.items()
            ],
        }
        for moment, alerts in told.items()
    ]
    test = {
        "rule_files": [str(MONITORING / "rules" / name) for name in ("limits.yml", "mayfly.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": f"{STEP // timedelta(minutes=1)}m",
                "input_series": series,
                "promql_expr_test": asked,
            }
        ],
    }
    file = tmp_path / "night.yml"
    file.write_text(yaml.safe_dump(test), "utf-8")
    accepts("promtool", "test", "rules", file)


def test_the_rows_are_all_of_them() -> None:
    """A row that is told nothing at all would prove nothing: each alert of a night fires in one."""
    fired = {name for row in ROWS for told in row.told.values() for name in told}
    assert fired == {MISSED, LOST, FAILING, LATE}
