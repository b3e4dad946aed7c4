"""The nights that people have, each as a row: a history, what home says of it, and which alerts fire.

The machines of these histories cost a dollar an hour, so what is told of money is left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agent.contract.ids import Batch as Id
from consumer.judge import Judged
from tests.consumer.nights import (
    BERLIN,
    DAY,
    EARLY,
    FAILED,
    HOUR,
    TOKYO,
    Runs,
    attempt,
    nightly,
    shards,
    started_by,
    tokyo,
)

MISSED = "MayflyRunMissed"
LOST = "MayflyRunLost"
FAILING = "MayflyJobFailing"
LATE = "MayflyGroupLate"
LATE_NIGHT = nightly("cron(30 23 * * ? *)")
JITTERY = nightly("cron(59 23 * * ? *)")
HOURLY = nightly("cron(0 * * * ? *)", "10m")
WEEKLY = nightly("cron(0 3 ? * SUN *)")
SUMMER = nightly("cron(30 2 * * ? *)", timezone="Europe/Berlin")
SPRING = datetime(2026, 3, 27, 2, 30, tzinfo=BERLIN)
OLD = {"quotes": "succeeded", "old": "failed"}
NEVER = {"missed": [], "job missed": {"quotes": []}, "next": []}
Said = Mapping[str, Mapping[str, object]]
"""What `seen` has at a moment, or a part of it."""


def seen(said: Judged, schedule: str = "main", job: str = "quotes") -> dict[str, object]:
    """Return what is said of a schedule and its jobs, and of the days of one, as plain values in Tokyo's time."""
    (one,) = [each for each in said.schedules if each.name == schedule]
    jobs = {each.name: each for each in said.jobs if each.schedule == schedule}
    days = jobs[job].days if job in jobs else ()
    return {
        "missed": _times(one.missed),
        "states": [each.state.value for each in one.occurrences],
        "due": _times(each.due for each in one.occurrences),
        "late": [each.late for each in one.occurrences],
        "runs": [len(each.groups) for each in one.occurrences],
        "next": _times([one.next_due] if one.next_due else []),
        "failures": {name: each.failures for name, each in jobs.items()},
        "failed days": {name: each.failed_days for name, each in jobs.items()},
        "job missed": {name: _times(each.missed) for name, each in jobs.items()},
        "days": {day.day.day: day.state.value for day in days},
    }


def _times(moments: Iterable[datetime]) -> list[str]:
    return [f"{one.astimezone(TOKYO):%d %H:%M}" for one in moments]


@dataclass(frozen=True)
class Row:
    """A history, and what comes of it; moments are as `tokyo` takes them.

    Attributes:
        told: How many alerts of a name fire at a moment; all others do not.
        quiet: More moments at which nothing is missed, with commas between them.
    """

    name: str
    runs: Runs
    told: Mapping[datetime | str, Mapping[str, int]]
    said: Said = field(default_factory=dict)
    quiet: str = ""

    def __str__(self) -> str:
        return self.name


ROWS = [
    # It ends on the next day, belongs to the day on which it was due, and is never missed while it runs.
    Row(
        "nightly at half past eleven, takes an hour",
        started_by(LATE_NIGHT, "20 23:30", 3, minutes=60),
        {"22 23:40": {}, "23 00:20": {}, "24 00:20": {}, "24 00:40": {MISSED: 1}},
        {
            "23 00:10": {"states": ["succeeded", "succeeded", "running"]},
            "23 12:00": {"days": dict.fromkeys([20, 21, 22], "succeeded")},
            "24 00:31": {"missed": ["23 23:30"]},
        },
        "22 23:29, 22 23:31, 23 00:10, 23 00:29, 23 00:31, 23 23:29, 24 00:29",
    ),
    # The grace is for its beginning; its own deadline says when it should have ended.
    Row(
        "at two, takes five hours",
        started_by(EARLY, "20 02:00", 3, minutes=300, limit=6 * HOUR),
        {"22 03:30": {}, "22 06:50": {}, "23 02:50": {}, "23 03:20": {MISSED: 1}},
        {
            "22 05:00": {"states": ["succeeded", "succeeded", "running"]},
            "23 03:01": {"missed": ["23 02:00"]},
        },
        ", ".join(f"22 {hour:02d}:30" for hour in range(24)),
    ),
    # A run that comes minutes later is that day's, and the next day is not done by it.
    Row(
        "a minute to midnight, with jitter over midnight",
        [
            attempt(start, schedule=JITTERY)
            for start in ("21 00:03", "22 00:04", "22 23:59", "24 00:07")
        ],
        {"22 23:58": {}, "24 00:05": {}, "25 00:50": {}, "25 01:10": {MISSED: 1}},
        {
            "24 12:00": {
                "days": dict.fromkeys([20, 21, 22, 23], "succeeded"),
                "states": ["succeeded"] * 4,
            },
            "25 01:00": {"missed": ["24 23:59"]},
        },
        "25 00:58",
    ),
    # Nobody scheduled anything, so nothing is missed, for ever.
    Row(
        "one run by hand, and then nothing",
        [attempt("20 18:00")],
        {"21 18:30": {}, "22 19:50": {}},
        {"20 18:05": NEVER, "21 18:05": NEVER, "29 18:05": NEVER},
    ),
    # It is expected in a week, and not tomorrow.
    Row(
        "a new weekly batch",
        started_by(WEEKLY, "15 03:00", 1),
        {"22 02:50": {}, "22 03:50": {}, "22 04:20": {MISSED: 1}},
        {
            "22 04:01": {
                "missed": ["22 03:00"],
                "job missed": {"quotes": ["22 03:00"]},
                "next": ["29 03:00"],
            }
        },
        "16 04:30, 18 03:00, 22 02:59, 22 03:59",
    ),
    Row(
        "hourly, dead since two",
        started_by(HOURLY, "20 00:00", 26, HOUR, minutes=5),
        {"21 02:04": {}, "21 02:20": {MISSED: 1}, "21 03:50": {MISSED: 1}},
        {
            "21 02:11": {"missed": ["21 02:00"]},
            "21 09:59": {"missed": [f"21 {hour:02d}:00" for hour in range(2, 10)]},
        },
        "21 02:09",
    ),
    # The success of the same day does not hide it.
    Row(
        "hourly, failing since one after a success at half past midnight",
        [
            *started_by(HOURLY, "20 00:00", 24, HOUR, minutes=5),
            attempt("21 00:30", minutes=5),
            *started_by(HOURLY, "21 01:00", 31, HOUR, minutes=5, jobs=FAILED),
        ],
        {"21 04:50": {}, "21 05:20": {FAILING: 1}},
        {
            "21 07:30": {
                "failures": {"quotes": 7},
                "failed days": {"quotes": 0},
                "days": {20: "succeeded", 21: "partial"},
            },
            "22 07:30": {
                "failures": {"quotes": 31},
                "failed days": {"quotes": 1},
                "days": {20: "succeeded", 21: "partial", 22: "failed"},
            },
        },
    ),
    # The next plan does not name it: nobody is told of its failures, or that it does not come, any more.
    Row(
        "a job that is removed",
        [*started_by(EARLY, "19 02:00", 3, jobs=OLD), *started_by(EARLY, "22 02:00", 1)],
        {"21 23:00": {FAILING: 1}, "22 02:50": {}},
        {
            "21 12:00": {"failures": {"quotes": 0, "old": 3}},
            "22 02:05": {"failures": {"quotes": 0}},
        },
    ),
    Row(
        "clocks are set forward: half past two does not exist on the 29th",
        [attempt(SPRING + DAY * n, schedule=SUMMER, slot=SPRING + DAY * n) for n in (0, 1, 3)],
        {
            datetime(2026, 3, 29, 4, 50, tzinfo=BERLIN): {},
            datetime(2026, 3, 30, 3, 50, tzinfo=BERLIN): {},
            datetime(2026, 3, 31, 3, 50, tzinfo=BERLIN): {MISSED: 1},
        },
    ),
    Row(
        "a day with three runs",
        [
            *started_by(EARLY, "21 02:00", 1, jobs=FAILED),
            attempt("21 09:00", FAILED),
            attempt("21 10:00"),
        ],
        {"21 09:30": {}, "21 11:00": {}},
    ),
    Row(
        "shards of which one succeeded",
        shards(tokyo("21 02:00"), {"j0": "succeeded"}),
        {"21 02:30": {}, "21 04:00": {LATE: 1}},
    ),
    Row(
        "three days of failures, and a success",
        [*started_by(EARLY, "19 02:00", 3, jobs=FAILED), *started_by(EARLY, "22 02:00", 1)],
        {"21 01:50": {}, "21 02:20": {FAILING: 1}, "22 02:50": {}},
    ),
    Row(
        "a machine that was lost with one of two jobs done, and a second one that does the rest",
        [
            *started_by(EARLY, "21 02:00", 1, minutes=None, planned=["notes"]),
            attempt(
                "21 05:00",
                {"notes": "succeeded"},
                batch=Id.of_slot("main", tokyo("21 02:00")),
                schedule=EARLY,
                slot=tokyo("21 02:00"),
                left_out=["quotes"],
            ),
        ],
        {"21 03:50": {}, "21 04:20": {LOST: 1}, "21 06:00": {}},
        {
            "21 04:30": {"states": ["lost"], "failures": {"quotes": 0, "notes": 1}},
            "21 06:00": {"states": ["succeeded"], "failures": {"quotes": 0, "notes": 0}},
        },
    ),
]
