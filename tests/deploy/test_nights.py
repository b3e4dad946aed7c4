"""The nights that people have, through the real exporter and the rules as shipped: what is told, and when.

Each row is a history as `tests/consumer/nights.py` writes it. The exporter is asked every four minutes of it, what it
says becomes the series of a `promtool test rules`, and promtool says what fires. The machines of these histories cost a
dollar an hour, so what is told of money is left out.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from agent.batch.fold import Arrived
from agent.contract.ids import Batch as Id
from consumer.home import Home, Known
from consumer.judge import Rules, judge
from consumer.page.verdict import Kind, verdict
from consumer.web.metrics import HomeCollector
from tests.consumer.nights import BERLIN, attempt, history, nightly, tokyo
from tests.deploy.tools import MONITORING, accepts

STEP = timedelta(minutes=4)
"""Less than the five minutes for which Prometheus remembers a series."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FAILED = {"quotes": "failed"}
NIGHTLY = nightly("cron(0 2 * * ? *)")
HOURLY = nightly("cron(0 * * * ? *)", "10m")
MISSED, LOST, FAILING, LATE = (
    "MayflyRunMissed",
    "MayflyRunLost",
    "MayflyJobFailing",
    "MayflyGroupLate",
)
Runs = list[list[Arrived]]


@dataclass(frozen=True)
class Row:
    """A history, and what is told of it.

    Attributes:
        begin, end: Between which somebody looks.
        told: How many alerts of a name fire at a moment; all others do not.
    """

    name: str
    runs: Runs
    begin: datetime
    end: datetime
    told: dict[datetime, dict[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def nights(first: datetime, count: int, schedule: Any = NIGHTLY, **how: Any) -> Runs:
    """Return runs at equal distances that a schedule started."""
    every = HOUR if schedule is HOURLY else DAY
    starts = [first + number * every for number in range(count)]
    return [attempt(start, schedule=schedule, slot=start, **how) for start in starts]


def shards(first: datetime, ends: list[str], of: int) -> Runs:
    """Return shards of a group, each with a job of its own."""
    return [
        attempt(
            first + timedelta(seconds=shard),
            {f"j{shard}": end},
            batch=Id.of_shard("main", "job-21", shard, of),
            schedule=nightly("0 2 * * *"),
        )
        for shard, end in enumerate(ends)
    ]


LATE_NIGHT = nightly("cron(30 23 * * ? *)")
JITTERY = nightly("cron(59 23 * * ? *)")
WEEKLY = nightly("cron(0 3 ? * SUN *)")
SUMMER = nightly("cron(30 2 * * ? *)", timezone="Europe/Berlin")
SPRING = datetime(2026, 3, 27, 2, 30, tzinfo=BERLIN)
REMOVED = {"quotes": "succeeded", "old": "failed"}

ROWS = [
    Row(
        "nightly at half past eleven, takes an hour",
        nights(tokyo("20 23:30"), 3, LATE_NIGHT, minutes=60),
        tokyo("22 23:00"),
        tokyo("24 01:30"),
        {
            tokyo("22 23:40"): {},
            tokyo("23 00:20"): {},
            tokyo("24 00:20"): {},
            tokyo("24 00:40"): {MISSED: 1},
        },
    ),
    Row(
        "at two, takes five hours",
        nights(tokyo("20 02:00"), 3, minutes=300, limit=6 * HOUR),
        tokyo("22 01:00"),
        tokyo("23 04:00"),
        {
            tokyo("22 03:30"): {},
            tokyo("22 06:50"): {},
            tokyo("23 02:50"): {},
            tokyo("23 03:20"): {MISSED: 1},
        },
    ),
    Row(
        "a minute to midnight, with jitter over midnight",
        [
            attempt(start, schedule=JITTERY)
            for start in (
                tokyo("21 00:03"),
                tokyo("22 00:04"),
                tokyo("22 23:59"),
                tokyo("24 00:07"),
            )
        ],
        tokyo("22 23:00"),
        tokyo("25 01:30"),
        {
            tokyo("22 23:58"): {},
            tokyo("24 00:05"): {},
            tokyo("25 00:50"): {},
            tokyo("25 01:10"): {MISSED: 1},
        },
    ),
    Row(
        "one run by hand, and then nothing",
        [attempt(tokyo("20 18:00"))],
        tokyo("21 17:00"),
        tokyo("22 20:00"),
        {tokyo("21 18:30"): {}, tokyo("22 19:50"): {}},
    ),
    Row(
        "a new weekly batch",
        nights(tokyo("15 03:00"), 1, WEEKLY),
        tokyo("21 20:00"),
        tokyo("22 05:00"),
        {tokyo("22 02:50"): {}, tokyo("22 03:50"): {}, tokyo("22 04:20"): {MISSED: 1}},
    ),
    Row(
        "hourly, dead since two",
        nights(tokyo("20 20:00"), 6, HOURLY, minutes=5),
        tokyo("21 01:00"),
        tokyo("21 04:00"),
        {tokyo("21 02:04"): {}, tokyo("21 02:20"): {MISSED: 1}, tokyo("21 03:50"): {MISSED: 1}},
    ),
    Row(
        "hourly, failing since one after a success at half past midnight",
        [
            *nights(tokyo("20 20:00"), 5, HOURLY, minutes=5),
            attempt(tokyo("21 00:30"), minutes=5),
            *nights(tokyo("21 01:00"), 8, HOURLY, minutes=5, jobs=FAILED),
        ],
        tokyo("21 03:00"),
        tokyo("21 08:00"),
        {tokyo("21 04:50"): {}, tokyo("21 05:20"): {FAILING: 1}},
    ),
    Row(
        "a job that is removed",
        [
            *nights(tokyo("19 02:00"), 3, jobs=REMOVED),
            *nights(tokyo("22 02:00"), 1),
        ],
        tokyo("21 22:00"),
        tokyo("22 04:00"),
        {tokyo("21 23:00"): {FAILING: 1}, tokyo("22 02:50"): {}},
    ),
    Row(
        "clocks are set forward: half past two does not exist on the 29th",
        [attempt(SPRING + DAY * n, schedule=SUMMER, slot=SPRING + DAY * n) for n in (0, 1, 3)],
        SPRING + DAY * 2 - HOUR,
        SPRING + DAY * 4 + 2 * HOUR,
        {
            datetime(2026, 3, 29, 4, 50, tzinfo=BERLIN): {},
            datetime(2026, 3, 30, 3, 50, tzinfo=BERLIN): {},
            datetime(2026, 3, 31, 3, 50, tzinfo=BERLIN): {MISSED: 1},
        },
    ),
    Row(
        "a day with three runs",
        [
            *nights(tokyo("21 02:00"), 1, jobs=FAILED),
            attempt(tokyo("21 09:00"), FAILED),
            attempt(tokyo("21 10:00")),
        ],
        tokyo("21 02:00"),
        tokyo("21 12:00"),
        {tokyo("21 09:30"): {}, tokyo("21 11:00"): {}},
    ),
    Row(
        "shards of which one succeeded",
        shards(tokyo("21 02:00"), ["succeeded"], of=4),
        tokyo("21 02:00"),
        tokyo("21 05:00"),
        {tokyo("21 02:30"): {}, tokyo("21 04:00"): {LATE: 1}},
    ),
    Row(
        "three days of failures, and a success",
        [*nights(tokyo("19 02:00"), 3, jobs=FAILED), *nights(tokyo("22 02:00"), 1)],
        tokyo("21 01:00"),
        tokyo("22 04:00"),
        {tokyo("21 01:50"): {}, tokyo("21 02:20"): {FAILING: 1}, tokyo("22 02:50"): {}},
    ),
    Row(
        "a machine that was lost with one of two jobs done, and a second one that does the rest",
        [
            *nights(tokyo("21 02:00"), 1, minutes=None, planned=["notes"]),
            attempt(
                tokyo("21 05:00"),
                {"notes": "succeeded"},
                batch=Id.of_slot("main", tokyo("21 02:00")),
                schedule=NIGHTLY,
                slot=tokyo("21 02:00"),
                left_out=["quotes"],
            ),
        ],
        tokyo("21 02:00"),
        tokyo("21 07:00"),
        {tokyo("21 03:50"): {}, tokyo("21 04:20"): {LOST: 1}, tokyo("21 06:00"): {}},
    ),
]


def exported(row: Row) -> dict[str, list[str]]:
    """Return what the exporter says at each step, by series; times count from the row's begin."""
    moments = [row.begin + STEP * n for n in range((row.end - row.begin) // STEP + 1)]
    home = Home("b", Known.of(history(row.begin), Rules(row.begin)), row.begin, 900)
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
            series.append(f"{float(value) - (row.begin.timestamp() if is_time else 0):.3f}")
    return found


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_told_of_a_night(row: Row, tmp_path: Path) -> None:
    """Promtool agrees on every moment: these alerts fire then, and no others."""
    series = [
        {"series": name, "values": " ".join(values)} for name, values in exported(row).items()
    ]
    asked = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing",alertname!~"MayflyCost.*"})',
            "eval_time": f"{(moment - row.begin) // timedelta(seconds=1)}s",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": count}
                for name, count in told.items()
            ],
        }
        for moment, told in row.told.items()
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


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_status_says_the_same(row: Row) -> None:
    """`mayfly status` and the page judge by the same values: what an alert tells is wrong there, and no more."""
    for moment, told in row.told.items():
        found = verdict(judge(history(moment, *row.runs), Rules(moment)))
        kinds = {trouble.kind for trouble in found.troubles}
        assert (Kind.MISSED in kinds) == (MISSED in told), moment
        assert (Kind.LOST in kinds) == (not told.keys().isdisjoint({LOST, LATE})), moment
        assert not told or not found.fine, moment


def test_the_rows_are_all_of_them() -> None:
    """A row that is told nothing at all would prove nothing: each alert of a night fires in one."""
    fired = {name for row in ROWS for told in row.told.values() for name in told}
    assert fired == {MISSED, LOST, FAILING, LATE}
