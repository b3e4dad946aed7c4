"""What home says of schedules and jobs."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batch.fold import Arrived
from agent.contract.ids import Batch as Id
from consumer.groups import State
from consumer.judge import (
    MOST_CHANGES,
    MOST_SCHEDULES,
    JobFacts,
    Judged,
    Rules,
    ScheduleFacts,
    judge,
)
from consumer.model import History
from consumer.page.verdict import Kind, verdict
from consumer.schedule import MOST
from tests.consumer.nights import (
    BERLIN,
    DAY,
    DONE,
    EARLY,
    FAILED,
    HOUR,
    Runs,
    attempt,
    history,
    nightly,
    shards,
    started_by,
    tokyo,
)
from tests.consumer.rows import LATE, LATE_NIGHT, LOST, MISSED, OLD, ROWS, WEEKLY, Row, Said, seen

BOTH = {"quotes": "succeeded", "notes": "succeeded"}
AT_TEN_PAST_FOUR = nightly("10 4 * * *")
AT_FIVE = nightly("cron(0 5 * * ? *)")
IMPATIENT = nightly("cron(0 2 * * ? *)", "15m")
EACH_HOUR = nightly("0 * * * *", "10m")


def judged(now: datetime | str, *attempts: list[Arrived], **rules: object) -> Judged:
    """Return what home says at a moment."""
    moment = tokyo(now)
    return judge(history(moment, *attempts), Rules(moment, **rules))  # type: ignore[arg-type]


def schedule_of(said: Judged) -> ScheduleFacts:
    """Return what it says of the one schedule."""
    (found,) = said.schedules
    return found


def job_of(said: Judged) -> JobFacts:
    """Return what it says of the job `quotes`."""
    return next(one for one in said.jobs if one.name == "quotes")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_said_of_a_night(row: Row) -> None:
    """Status and page say the same as the alerts: what one of those tells is wrong there, and no more."""
    for when in filter(None, row.quiet.split(", ")):
        assert seen(judged(when, *row.runs))["missed"] == [], when
    for when, expected in row.said.items():
        assert expected.items() <= seen(judged(when, *row.runs)).items(), when
    for moment, told in row.told.items():
        found = verdict(judged(moment, *row.runs))
        kinds = {trouble.kind for trouble in found.troubles}
        assert (Kind.MISSED in kinds) == (MISSED in told), moment
        assert (Kind.LOST in kinds) == (not told.keys().isdisjoint({LOST, LATE})), moment
        assert not told or not found.fine, moment


def with_sundays_off() -> Runs:
    """Return two weeks of which one job is left out on Sundays."""
    runs = []
    for start in (tokyo("02 02:00") + back * DAY for back in range(14)):
        rests = start.weekday() == 6
        jobs = DONE | ({} if rests else {"weekly": "succeeded"})
        left = ["weekly"] if rests else []
        runs.append(attempt(start, jobs, schedule=EARLY, slot=start, left_out=left))
    return runs


CASES: dict[str, tuple[Runs, Said]] = {
    "no release could run, then a machine is lost: all fails that the run before knew": (
        [
            *started_by(EARLY, "20 02:00", 1, jobs=BOTH),
            *started_by(EARLY, "21 02:00", 1, jobs=None),
            *started_by(EARLY, "22 02:00", 1, jobs=None, minutes=None),
        ],
        {
            "22 12:00": {
                "failures": {"notes": 2, "quotes": 2},
                "failed days": {"notes": 2, "quotes": 2},
                "states": ["succeeded", "failed", "lost"],
                "missed": [],
            }
        },
    ),
    "a run of another release by hand is no plan of the schedule": (
        [*started_by(EARLY, "20 02:00", 2, jobs=OLD), attempt("21 11:00", {"mine": "failed"})],
        {"21 12:00": {"failures": {"mine": 1, "old": 2, "quotes": 0}}},
    ),
    "a late run heals what was missed, whoever started it": (
        [*started_by(EARLY, "20 02:00", 1), attempt("21 09:30")],
        {
            "21 09:00": {"missed": ["21 02:00"]},
            "21 12:00": {"missed": [], "job missed": {"quotes": []}, "late": [False, True]},
        },
    ),
    "a run that comes late for its slot is late": (
        [
            *started_by(EARLY, "20 02:00", 1),
            attempt("21 09:30", batch=Id.of_slot("main", tokyo("21 02:00"))),
        ],
        {"21 12:00": {"late": [False, True]}},
    ),
    "what is due while a run is under way is not missed": (
        [
            *started_by(EACH_HOUR, "20 00:00", 2, HOUR, minutes=5),
            *started_by(EACH_HOUR, "20 02:00", 1, minutes=200, limit=6 * HOUR),
        ],
        {
            "20 04:30": {"missed": []},
            "20 05:59": {"missed": []},
            "20 06:11": {"missed": ["20 06:00"]},
        },
    ),
    "a run that was lost covers nothing once its deadline is past": (
        [
            *started_by(EACH_HOUR, "20 00:00", 2, HOUR, minutes=5),
            *started_by(EACH_HOUR, "20 02:00", 1, minutes=None),
        ],
        {"20 03:55": {"missed": []}, "20 04:11": {"missed": ["20 03:00", "20 04:00"]}},
    ),
    "a job that is not due on Sundays is not missed then": (
        with_sundays_off(),
        {
            "23 12:00": {
                "missed": [f"{day} 02:00" for day in range(16, 24)],
                "job missed": {
                    "quotes": [f"{day} 02:00" for day in range(16, 24)],
                    "weekly": [f"{day} 02:00" for day in (*range(16, 22), 23)],
                },
            }
        },
    ),
    "the first run by a new schedule stands for the last time by the old": (
        [*started_by(EARLY, "18 02:00", 3), *started_by(AT_FIVE, "21 05:00", 2)],
        {"22 12:00": {"states": ["succeeded"] * 5}},
    ),
    "the grace alone changes": (
        [*started_by(EARLY, "18 02:00", 3), *started_by(IMPATIENT, "21 02:00", 2)],
        {"22 12:00": {"states": ["succeeded"] * 5}},
    ),
    "a run by hand that tells the schedule anew counts no time twice": (
        [*started_by(EARLY, "18 02:00", 3), attempt("20 02:10", schedule=IMPATIENT)],
        {"20 12:00": {"runs": [1, 1, 2]}},
    ),
    "a clock that is behind makes no run too early": (
        [attempt(f"{day} 01:58", schedule=EARLY) for day in (19, 20, 21)],
        {
            "21 12:00": {
                "missed": [],
                "due": ["19 02:00", "20 02:00", "21 02:00"],
                "runs": [1, 1, 1],
            }
        },
    ),
    "a run by hand in the week belongs to its own day": (
        [*started_by(WEEKLY, "15 03:00", 1), attempt("18 10:00", FAILED)],
        {"19 12:00": {"days": {15: "succeeded", 18: "failed"}}},
    ),
    "a job that came since is not missing": (
        [*started_by(EARLY, "16 02:00", 1), *started_by(EARLY, "18 02:00", 2)],
        {
            "19 12:00": {
                "days": {16: "succeeded", 17: "missed", 18: "succeeded", 19: "succeeded"},
                "job missed": {"quotes": []},
            }
        },
    ),
}


@pytest.mark.parametrize(("runs", "said"), CASES.values(), ids=CASES)
def test_what_is_said_of_a_history(runs: Runs, said: Said) -> None:
    """Of schedule and jobs, at some moments."""
    for when, expected in said.items():
        assert expected.items() <= seen(judged(when, *runs)).items(), when


def test_a_schedule_that_a_person_gives() -> None:
    """It holds where the runs name none, from the first on, and each run may end a job; else it is ignored."""
    runs = [attempt("20 04:10", OLD), attempt("21 04:12")]
    for when, missed in (("22 05:09", []), ("22 05:11", ["22 04:10"])):
        said = seen(judged(when, *runs, schedule=AT_TEN_PAST_FOUR))
        assert (said["missed"], said["failures"]) == (missed, {"quotes": 0})
    own = started_by(EARLY, "20 02:00", 2)
    assert seen(judged("21 12:00", *own, schedule=AT_TEN_PAST_FOUR))["next"] == ["22 02:00"]


@pytest.mark.parametrize(
    ("expression", "dues"),
    [
        # 02:30 does not exist on 2026-03-29, and comes twice on 2026-10-25.
        ("cron(30 2 * * ? *)", ["27 02:30", "28 02:30", "30 02:30"]),
        ("30 2 * * *", ["27 02:30", "28 02:30", "30 02:30"]),
        ("cron(30 3 * * ? *)", ["27 03:30", "28 03:30", "29 03:30", "30 03:30"]),
        # A rate counts hours, and not the days of people.
        ("rate(1 day)", ["27 02:30", "28 02:30", "29 03:30", "30 03:30"]),
    ],
)
def test_clocks_are_set_forward(expression: str, dues: list[str]) -> None:
    """A time that does not exist is not missed, and the night after it is due as always."""
    first = datetime(2026, 3, 27, int(dues[0][3:5]), 30, tzinfo=BERLIN)
    runs = started_by(nightly(expression, timezone="Europe/Berlin"), first, 1)
    said = judged(datetime(2026, 3, 30, 12, tzinfo=BERLIN), *runs)
    found = [one.due.astimezone(BERLIN) for one in schedule_of(said).occurrences]
    assert [f"{due:%d %H:%M}" for due in found] == dues


def test_clocks_are_set_back() -> None:
    """What comes twice is due once; and once is enough."""
    schedule = nightly("cron(30 2 * * ? *)", timezone="Europe/Berlin")
    runs = started_by(schedule, datetime(2026, 10, 24, 2, 30, tzinfo=BERLIN), 3)
    found = seen(judged(datetime(2026, 10, 26, 12, tzinfo=BERLIN), *runs))
    assert (found["runs"], found["missed"]) == ([1, 1, 1], [])
    assert found["days"] == dict.fromkeys([24, 25, 26], "succeeded")


@pytest.mark.parametrize(
    ("ends", "state", "failures", "failed_days"),
    [
        (["failed", "failed", "succeeded"], State.SUCCEEDED, 0, 0),
        (["failed", "succeeded", "failed"], State.PARTIAL, 1, 0),
        (["failed", "failed", "failed"], State.FAILED, 3, 1),
        (["succeeded", "succeeded", "timed_out"], State.PARTIAL, 1, 0),
    ],
)
def test_a_day_with_three_runs(
    ends: list[str], state: State, failures: int, failed_days: int
) -> None:
    """The last decides whether it fails now; what succeeded on the day is not forgotten."""
    first, *others = ends
    runs = started_by(EARLY, "21 02:00", 1, jobs={"quotes": first})
    runs += [attempt(f"21 {9 + n:02}:00", {"quotes": end}) for n, end in enumerate(others)]
    job = job_of(judged("21 12:00", *runs))
    assert [(day.day.day, day.state, len(day.runs)) for day in job.days] == [(21, state, 3)]
    assert (job.failures, job.failed_days) == (failures, failed_days)


def test_shards_of_which_one_succeeded() -> None:
    """The group is no success: what is missing is waited for, and then told; the jobs of lost shards failed."""
    runs = shards(tokyo("20 02:00"), *({f"j{n}": "succeeded"} for n in range(4)))
    runs += shards(tokyo("21 02:00"), {"j0": "succeeded"})
    now = tokyo("21 02:30")
    group = schedule_of(judged(now, *runs)).groups[-1]
    assert (group.done, group.missing, group.state(now)) == (1, (1, 2, 3), State.RUNNING)
    now = tokyo("21 12:00")
    said = judged(now, *runs)
    group = schedule_of(said).groups[-1]
    assert (group.state(now), group.is_late(now)) == (State.PARTIAL, True)
    # It came, so nothing is missed; and the jobs of the missing shards are not taken for removed.
    assert schedule_of(said).missed == ()
    assert [job.name for job in said.jobs] == ["j0", "j1", "j2", "j3"]
    # Whether or not they had a plan.
    runs += shards(tokyo("21 02:00"), {}, None, None, None, minutes=None)[1:]
    said = judged(now, *runs)
    assert seen(said)["failures"] == {"j0": 0, "j1": 1, "j2": 1, "j3": 1}
    assert schedule_of(said).groups[-1].state(now) is State.PARTIAL


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Tokyo", "Pacific/Kiritimati"])
def test_the_computer_s_zone_changes_nothing(zone: str, clock_zone: Iterator[None]) -> None:
    """Days are those of the schedule's time zone, or of the one that a person names."""
    runs = started_by(LATE_NIGHT, "18 23:30", 3, jobs=FAILED, minutes=60)
    os.environ["TZ"] = zone
    time.tzset()
    job = job_of(judged("22 12:00", *runs))
    assert (job.failures, job.failed_days, len(job.missed)) == (3, 3, 1)
    assert [day.day for day in job.days] == [date(2026, 11, day) for day in (18, 19, 20, 21)]
    job = job_of(judged("22 12:00", *runs, zone=UTC))
    assert [day.day.day for day in job.days] == [18, 19, 20, 21]


@pytest.fixture
def clock_zone() -> Iterator[None]:
    """Give the computer its own zone back."""
    before = os.environ.get("TZ")
    yield
    os.environ.pop("TZ", None)
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def test_a_machine_is_missed_from_when_home_began_to_watch() -> None:
    """With a schedule that a person gives: one that never came, and one that came for the first time after two days."""
    rules, since = Rules(tokyo("22 05:11"), schedule=AT_TEN_PAST_FOUR), tokyo("20 12:00")
    said = judge(History(since=since), rules)
    assert schedule_of(said).missed == (tokyo("21 04:10"), tokyo("22 04:10"))
    assert said.jobs == ()
    said = judge(history(rules.now, attempt("22 04:10"), since=since), rules)
    assert seen(said)["states"] == ["missed", "succeeded"]


def test_a_success_that_is_incomplete_is_told() -> None:
    """It is no failure, and not silent."""
    job = job_of(judged("21 12:00", attempt("21 02:00", {"quotes": "incomplete"})))
    assert (job.failures, job.incomplete is not None) == (0, True)


def test_a_job_was_not_missed_before_there_was_one() -> None:
    """Its days begin with its first run."""
    runs = [*started_by(EARLY, "16 02:00", 1), *started_by(EARLY, "19 02:00", 1, jobs=BOTH)]
    assert seen(judged("19 12:00", *runs), job="notes")["days"] == {19: "succeeded"}


@pytest.mark.parametrize(
    "expression", ["nonsense", "cron(0 0 31 2 ? *)", "\x1b[31m", "rate(0 days)"]
)
def test_a_schedule_that_cannot_be_read_is_told_and_nothing_is_missed(expression: str) -> None:
    """Home goes on by the runs alone."""
    said = schedule_of(judged("22 12:00", *started_by(nightly(expression), "18 02:00", 2)))
    assert said.problem
    assert said.problem.isprintable()
    assert said.missed == ()


def test_two_schedules_in_one_bucket_do_not_meet() -> None:
    """The one that comes does not hide the one that does not."""
    prod = started_by(EARLY, "18 02:00", 2, name="prod")
    said = judged("22 12:00", *prod, *started_by(EARLY, "18 02:00", 5, name="test"))
    for name, missed in (("prod", ["20 02:00", "21 02:00", "22 02:00"]), ("test", [])):
        found = seen(said, name)
        assert (found["missed"], found["job missed"]) == (missed, {"quotes": missed})


def test_forged_schedules_are_told_and_not_judged() -> None:
    """However long ago they say that they ran: the bucket knows when they came. Each would have series of its own."""
    runs = started_by(EARLY, "18 02:00", 3, name="mine")
    for number in range(MOST_SCHEDULES + 30):
        log = attempt("01 02:00", schedule=EARLY, name=f"forged-{number}")
        runs.append([replace(one, at=one.at + 20 * DAY) for one in log])
    said = judged("22 12:00", *runs)
    assert (len(said.schedules), said.not_judged) == (MOST_SCHEDULES, 31)
    assert seen(said, "mine")["missed"] == ["21 02:00", "22 02:00"]
    (told,) = [one for one in verdict(said).troubles if one.kind is Kind.REJECTED]
    assert told.subject == "31 schedules"


def test_a_schedule_that_each_run_changes_has_no_more_times_than_another() -> None:
    """The last ones, however many changes there were."""
    each_minute = [nightly("* * * * *", grace) for grace in ("10m", "15m")]
    runs = [attempt(f"{day:02} 02:00", schedule=each_minute[day % 2]) for day in range(1, 11)]
    found = schedule_of(judged("11 12:00", *runs)).occurrences
    assert len(found) == MOST
    assert (found[-1].due, found[0].due) == (tokyo("11 11:59"), tokyo("10 02:40"))
    hourly = [nightly("0 * * * *", grace) for grace in ("10m", "15m")]
    first = tokyo("01 02:00")
    runs = [attempt(first + n * HOUR, schedule=hourly[n % 2]) for n in range(MOST_CHANGES + 50)]
    found = schedule_of(judged("11 12:00", *runs)).occurrences
    assert found[0].due == first + 50 * HOUR


starts = st.lists(
    st.tuples(
        st.integers(0, 60 * 24 * 20), st.sampled_from(["succeeded", "failed", "lost", "skipped"])
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one[0],
)


@settings(deadline=None, max_examples=60)
@given(
    starts, st.sampled_from(["cron(30 23 * * ? *)", "0 */6 * * *", "rate(9 hours)", "0 3 * * 0"])
)
def test_each_time_is_judged_once_and_each_run_counts_once(
    runs: list[tuple[int, str]], expression: str
) -> None:
    """Whenever they come; and nothing that came is missed."""
    schedule = nightly(expression)
    attempts = [
        attempt(
            tokyo("01 00:00") + timedelta(minutes=minute),
            DONE if end == "lost" else {"quotes": end},
            schedule=schedule,
            minutes=None if end == "lost" else 10,
        )
        for minute, end in sorted(runs)
    ]
    said = judged("25 00:00", *attempts)
    one = schedule_of(said)
    dues = [each.due for each in one.occurrences]
    assert dues == sorted(set(dues))
    placed = [group.at for each in one.occurrences for group in each.groups]
    assert len(placed) == len(set(placed)) <= len(runs)
    assert all((each.state is State.MISSED) <= (not each.groups) for each in one.occurrences)
    newest = max(group.at for group in one.groups)
    assert all(due > newest - timedelta(minutes=5) for due in one.missed)
    assert job_of(said).failures <= len(runs)


def test_a_schedule_that_a_person_ended_misses_nothing() -> None:
    """It was renamed, or is paused: no machine comes for it any more, until it has a run again."""
    runs = started_by(EARLY, "01 02:00", 5, name="nightly", jobs=FAILED)
    runs += started_by(EARLY, "06 02:00", 17, name="shops")
    now = tokyo("22 12:00")

    def told(*ended: str) -> list[tuple[str, int, bool]]:
        judged = judge(history(now, *runs), Rules(now, ended=frozenset(ended)))
        return [(one.name, len(one.missed), one.next_due is None) for one in judged.schedules]

    assert told() == [("nightly", 17, False), ("shops", 0, False)]
    assert told("nightly") == [("nightly", 0, True), ("shops", 0, False)]
    judged = judge(history(now, *runs), Rules(now, ended=frozenset({"nightly"})))
    assert [job.schedule for job in judged.jobs] == ["shops"]
    assert len(judged.schedules[0].days(now)) == 5, "what is past stays"
    assert verdict(judged).fine
