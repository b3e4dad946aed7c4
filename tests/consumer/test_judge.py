"""What home says of schedules and jobs: the nights that people have, each as a row."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batch.fold import Arrived
from agent.contract.facts import Schedule
from agent.contract.ids import Batch as Id
from consumer.groups import State
from consumer.judge import JobFacts, Judged, Rules, ScheduleFacts, judge
from consumer.model import History
from tests.consumer.nights import BERLIN, DONE, attempt, history, nightly, tokyo

FAILED = {"quotes": "failed"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def judged(now: datetime, *attempts: list[Arrived], **rules: object) -> Judged:
    """Return what home says at a moment."""
    return judge(history(now, *attempts), Rules(now, **rules))  # type: ignore[arg-type]


def schedule_of(said: Judged, name: str = "main") -> ScheduleFacts:
    """Return what it says of a schedule."""
    return next(one for one in said.schedules if one.name == name)


def job_of(said: Judged, name: str = "quotes") -> JobFacts:
    """Return what it says of a job."""
    return next(one for one in said.jobs if one.name == name)


def missed_at(now: datetime, *attempts: list[Arrived], **rules: object) -> int:
    """Return how many times in a row are missed."""
    return len(schedule_of(judged(now, *attempts, **rules)).missed)


def nights(
    schedule: Schedule, first: datetime, count: int, every: timedelta = DAY, **how: object
) -> list[list[Arrived]]:
    """Return runs at equal distances that the schedule started."""
    return [
        attempt(start, schedule=schedule, slot=start, **how)  # type: ignore[arg-type]
        for start in (first + number * every for number in range(count))
    ]


# The rows of issue 21.


def test_nightly_at_half_past_eleven_that_takes_an_hour() -> None:
    """It ends on the next day, belongs to the day on which it was due, and is never missed while it runs."""
    late = nightly("cron(30 23 * * ? *)")
    runs = nights(late, tokyo("20 23:30"), 3, minutes=60)
    for now in ("22 23:29", "22 23:31", "23 00:10", "23 00:29", "23 00:31", "23 23:29", "24 00:29"):
        assert missed_at(tokyo(now), *runs) == 0, now
    assert missed_at(tokyo("24 00:31"), *runs) == 1
    assert [day.day.day for day in job_of(judged(tokyo("23 12:00"), *runs)).days] == [20, 21, 22]
    assert schedule_of(judged(tokyo("23 00:10"), *runs)).occurrences[-1].state is State.RUNNING


def test_at_two_that_takes_five_hours() -> None:
    """The grace is for its beginning; its own deadline says when it should have ended."""
    early = nightly("cron(0 2 * * ? *)")
    runs = nights(early, tokyo("20 02:00"), 3, minutes=300, limit=6 * HOUR)
    for hour in range(24):
        assert missed_at(tokyo(f"22 {hour:02d}:30"), *runs) == 0, hour
    assert schedule_of(judged(tokyo("22 05:00"), *runs)).occurrences[-1].state is State.RUNNING
    assert missed_at(tokyo("23 03:01"), *runs) == 1


def test_a_minute_to_midnight_with_jitter_over_midnight() -> None:
    """A run that comes four minutes later is that day's, and the next day is not done by it."""
    jittery = nightly("cron(59 23 * * ? *)")
    starts = [tokyo("21 00:03"), tokyo("22 00:04"), tokyo("22 23:59"), tokyo("24 00:07")]
    runs = [attempt(start, schedule=jittery) for start in starts]
    said = judged(tokyo("24 12:00"), *runs)
    assert [day.day.day for day in job_of(said).days] == [20, 21, 22, 23]
    assert [one.state for one in schedule_of(said).occurrences] == [State.SUCCEEDED] * 4
    assert missed_at(tokyo("25 00:58"), *runs) == 0
    assert missed_at(tokyo("25 01:00"), *runs) == 1


def test_one_manual_run_and_then_nothing() -> None:
    """Nobody scheduled anything, so nothing is missed, for ever."""
    runs = [attempt(tokyo("20 18:00"))]
    for now in ("20 18:05", "21 18:05", "29 18:05"):
        said = judged(tokyo(now), *runs)
        assert (missed_at(tokyo(now), *runs), job_of(said).missed) == (0, ())
        assert schedule_of(said).next_due is None


def test_a_new_weekly_batch() -> None:
    """It is expected in a week, and not tomorrow."""
    weekly = nightly("cron(0 3 ? * SUN *)")
    runs = nights(weekly, tokyo("15 03:00"), 1)
    for now in ("16 04:30", "18 03:00", "22 02:59", "22 03:59"):
        assert missed_at(tokyo(now), *runs) == 0, now
    said = judged(tokyo("22 04:01"), *runs)
    assert schedule_of(said).missed == (tokyo("22 03:00"),)
    assert job_of(said).missed == (tokyo("22 03:00"),)
    assert schedule_of(said).next_due == tokyo("29 03:00")


def test_an_hourly_job_that_is_dead_since_two() -> None:
    """It is told within the grace."""
    hourly = nightly("cron(0 * * * ? *)", "10m")
    runs = nights(hourly, tokyo("20 00:00"), 26, HOUR, minutes=5)  # the last at 01:00 on the 21st
    assert missed_at(tokyo("21 02:09"), *runs) == 0
    said = judged(tokyo("21 02:11"), *runs)
    assert schedule_of(said).missed == (tokyo("21 02:00"),)
    assert missed_at(tokyo("21 09:59"), *runs) == 8


def test_hourly_failing_since_one_after_a_success_at_half_past_midnight() -> None:
    """The success of the same day does not hide it."""
    hourly = nightly("cron(0 * * * ? *)", "10m")
    good = nights(hourly, tokyo("20 00:00"), 24, HOUR, minutes=5)
    by_hand = [attempt(tokyo("21 00:30"), minutes=5)]
    bad = nights(hourly, tokyo("21 01:00"), 7, HOUR, minutes=5, jobs=FAILED)
    job = job_of(judged(tokyo("21 07:30"), *good, *by_hand, *bad))
    assert (job.failures, job.failing_since) == (7, tokyo("21 01:00"))
    assert job.failed_days == 0  # there was a success on this day
    assert job.days[-1].state is State.PARTIAL
    more = nights(hourly, tokyo("21 08:00"), 24, HOUR, minutes=5, jobs=FAILED)
    job = job_of(judged(tokyo("22 07:30"), *good, *by_hand, *bad, *more))
    assert (job.failures, job.failed_days, job.days[-1].state) == (31, 1, State.FAILED)


def test_a_job_that_is_removed_ends_at_once() -> None:
    """The next plan does not name it: nobody is told of its failures, or that it does not come, any more."""
    early = nightly("cron(0 2 * * ? *)")
    runs = nights(early, tokyo("20 02:00"), 2, jobs={"quotes": "succeeded", "old": "failed"})
    assert job_of(judged(tokyo("21 12:00"), *runs), "old").failures == 2
    removed = nights(early, tokyo("22 02:00"), 1)
    assert [job.name for job in judged(tokyo("22 02:05"), *runs, *removed).jobs] == ["quotes"]


def test_a_job_is_not_removed_by_a_run_that_never_knew_its_jobs() -> None:
    """No release could run: everything failed that the run before knew; the same for a machine that was lost."""
    early = nightly("cron(0 2 * * ? *)")
    good = nights(early, tokyo("20 02:00"), 1, jobs={"quotes": "succeeded", "notes": "succeeded"})
    barren = nights(early, tokyo("21 02:00"), 1, jobs=None)
    lost = nights(early, tokyo("22 02:00"), 1, jobs=None, minutes=None)
    said = judged(tokyo("22 12:00"), *good, *barren, *lost)
    assert [(job.name, job.failures, job.failed_days) for job in said.jobs] == [
        ("notes", 2, 2),
        ("quotes", 2, 2),
    ]
    assert schedule_of(said).occurrences[-1].state is State.LOST
    assert schedule_of(said).missed == ()


def test_who_runs_another_release_by_hand_removes_nothing() -> None:
    """A developer's run with one job of his own is no plan of the schedule."""
    early = nightly("cron(0 2 * * ? *)")
    runs = nights(early, tokyo("20 02:00"), 2, jobs={"quotes": "succeeded", "old": "failed"})
    said = judged(tokyo("21 12:00"), *runs, attempt(tokyo("21 11:00"), {"mine": "succeeded"}))
    assert job_of(said, "old").failures == 2


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
    schedule = nightly(expression, timezone="Europe/Berlin")
    run = attempt(first, schedule=schedule, slot=first)
    said = judged(datetime(2026, 3, 30, 12, tzinfo=BERLIN), run)
    found = [one.due.astimezone(BERLIN) for one in schedule_of(said).occurrences]
    assert [f"{due:%d %H:%M}" for due in found] == dues


def test_clocks_are_set_back() -> None:
    """What comes twice is due once; and once is enough."""
    schedule = nightly("cron(30 2 * * ? *)", timezone="Europe/Berlin")
    first = datetime(2026, 10, 24, 2, 30, tzinfo=BERLIN)
    runs = [attempt(first + DAY * n, schedule=schedule, slot=first + DAY * n) for n in range(3)]
    said = judged(datetime(2026, 10, 26, 12, tzinfo=BERLIN), *runs)
    assert len(schedule_of(said).occurrences) == 3
    assert schedule_of(said).missed == ()
    assert [day.day.day for day in job_of(said).days] == [24, 25, 26]


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
    early = nightly("cron(0 2 * * ? *)")
    slot = attempt(tokyo("21 02:00"), {"quotes": ends[0]}, schedule=early, slot=tokyo("21 02:00"))
    by_hand = [
        attempt(tokyo(when), {"quotes": end})
        for when, end in zip(("21 09:00", "21 10:00"), ends[1:], strict=True)
    ]
    job = job_of(judged(tokyo("21 12:00"), slot, *by_hand))
    assert [(day.day.day, day.state) for day in job.days] == [(21, state)]
    assert (job.failures, job.failed_days) == (failures, failed_days)
    assert len(job.days[0].runs) == 3


def shards(
    slot: datetime, *ends: dict[str, str] | None, minutes: float | None = 10
) -> list[list[Arrived]]:
    """Return the shards of a group, of which four are to be."""
    return [
        attempt(
            slot + timedelta(seconds=shard),
            jobs,
            batch=Id.of_shard("main", f"job-{slot:%d}", shard, 4),
            schedule=nightly("0 2 * * *"),
            minutes=minutes,
        )
        for shard, jobs in enumerate(ends)
    ]


def test_shards_of_which_one_succeeded() -> None:
    """The group is no success: what is missing is waited for, and then told."""
    before = shards(tokyo("20 02:00"), *({f"j{n}": "succeeded"} for n in range(4)))
    one = shards(tokyo("21 02:00"), {"j0": "succeeded"})
    now = tokyo("21 02:30")
    group = schedule_of(judged(now, *before, *one)).groups[-1]
    assert (group.done, group.missing, group.state(now)) == (1, (1, 2, 3), State.RUNNING)
    now = tokyo("21 12:00")
    said = judged(now, *before, *one)
    group = schedule_of(said).groups[-1]
    assert (group.state(now), group.is_late(now)) == (State.PARTIAL, True)
    # It came, so nothing is missed; and the jobs of the missing shards are not taken for removed.
    assert schedule_of(said).missed == ()
    assert [job.name for job in said.jobs] == ["j0", "j1", "j2", "j3"]


def test_shards_of_which_three_were_lost() -> None:
    """Their jobs failed, whether or not they had a plan."""
    before = shards(tokyo("20 02:00"), *({f"j{n}": "succeeded"} for n in range(4)))
    good = shards(tokyo("21 02:00"), {"j0": "succeeded"})
    lost = shards(tokyo("21 02:00"), {}, None, None, None, minutes=None)[1:]
    now = tokyo("21 12:00")
    said = judged(now, *before, *good, *lost)
    assert {job.name: job.failures for job in said.jobs} == {"j0": 0, "j1": 1, "j2": 1, "j3": 1}
    assert schedule_of(said).groups[-1].state(now) is State.PARTIAL


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Tokyo", "Pacific/Kiritimati"])
def test_the_computer_s_zone_changes_nothing(zone: str, clock_zone: Iterator[None]) -> None:
    """Days are those of the schedule's time zone, or of the one that a person names."""
    late = nightly("cron(30 23 * * ? *)")
    runs = nights(late, tokyo("18 23:30"), 3, jobs=FAILED, minutes=60)
    os.environ["TZ"] = zone
    time.tzset()
    job = job_of(judged(tokyo("22 12:00"), *runs))
    assert (job.failures, job.failed_days, len(job.missed)) == (3, 3, 1)
    assert [day.day for day in job.days] == [date(2026, 11, day) for day in (18, 19, 20, 21)]
    job = job_of(judged(tokyo("22 12:00"), *runs, zone=UTC))
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


# More of the same.


def test_a_schedule_that_a_person_gives() -> None:
    """It holds where the runs name none, from the first that is known on; and is ignored where they do."""
    given = nightly("10 4 * * *")
    runs = [attempt(tokyo("20 04:10")), attempt(tokyo("21 04:12"))]
    assert missed_at(tokyo("22 05:11"), *runs, schedule=given) == 1
    assert missed_at(tokyo("22 05:09"), *runs, schedule=given) == 0
    own = nights(nightly("cron(0 2 * * ? *)"), tokyo("20 02:00"), 2)
    assert schedule_of(judged(tokyo("21 12:00"), *own, schedule=given)).next_due == tokyo(
        "22 02:00"
    )


def test_a_job_is_removed_where_a_person_gives_the_schedule_too() -> None:
    """No run names one, and so each may end a job."""
    runs = [attempt(tokyo("20 04:10"), {"quotes": "succeeded", "old": "failed"})]
    runs.append(attempt(tokyo("21 04:10")))
    said = judged(tokyo("21 12:00"), *runs, schedule=nightly("10 4 * * *"))
    assert [job.name for job in said.jobs] == ["quotes"]


def test_a_machine_that_never_came_is_missed_from_when_home_began_to_watch() -> None:
    """With a schedule that a person gives; nothing else could tell."""
    rules = Rules(tokyo("22 05:11"), schedule=nightly("10 4 * * *"))
    said = judge(History(since=tokyo("20 12:00")), rules)
    assert schedule_of(said).missed == (tokyo("21 04:10"), tokyo("22 04:10"))
    assert said.jobs == ()


def test_a_late_run_heals_what_was_missed_and_is_called_late() -> None:
    """Whoever started it."""
    early = nightly("cron(0 2 * * ? *)")
    runs = nights(early, tokyo("20 02:00"), 1)
    assert missed_at(tokyo("21 09:00"), *runs) == 1
    healed = judged(tokyo("21 12:00"), *runs, attempt(tokyo("21 09:30")))
    assert job_of(healed).missed == ()
    said = schedule_of(healed)
    assert said.missed == ()
    assert said.occurrences[-1].late
    slot = attempt(tokyo("21 09:30"), batch=Id.of_slot("main", tokyo("21 02:00")))
    said = schedule_of(judged(tokyo("21 12:00"), *runs, slot))
    assert [one.late for one in said.occurrences] == [False, True]


def test_what_is_due_while_a_run_is_under_way_is_not_missed() -> None:
    """An engine starts no second one; a run that was lost covers nothing after its deadline."""
    hourly = nightly("0 * * * *", "10m")
    before = nights(hourly, tokyo("20 00:00"), 2, HOUR, minutes=5)
    long = nights(hourly, tokyo("20 02:00"), 1, minutes=200, limit=6 * HOUR)
    assert missed_at(tokyo("20 04:30"), *before, *long) == 0
    assert missed_at(tokyo("20 05:59"), *before, *long) == 0
    assert missed_at(tokyo("20 06:11"), *before, *long) == 1
    lost = nights(hourly, tokyo("20 02:00"), 1, minutes=None)
    assert missed_at(tokyo("20 03:55"), *before, *lost) == 0
    assert missed_at(tokyo("20 04:11"), *before, *lost) == 2


def test_a_job_that_is_not_due_on_sundays_is_not_missed_then() -> None:
    """When no machine comes: as it was on the same day of the week before."""
    early = nightly("cron(0 2 * * ? *)")
    runs = []
    for back in range(14):
        start = tokyo("02 02:00") + back * DAY
        rests = start.weekday() == 6
        jobs = {"quotes": "succeeded"} | ({} if rests else {"weekly": "succeeded"})
        left = ["weekly"] if rests else []
        runs.append(attempt(start, jobs, schedule=early, slot=start, left_out=left))
    said = judged(tokyo("23 12:00"), *runs)  # dead since Monday the 16th
    assert len(schedule_of(said).missed) == 8
    assert len(job_of(said).missed) == 8
    assert len(job_of(said, "weekly").missed) == 7


def test_a_retry_of_a_slot_heals_it() -> None:
    """The first machine was lost after one job; the second left that out, and did the other."""
    early = nightly("cron(0 2 * * ? *)")
    slot = tokyo("21 02:00")
    batch = Id.of_slot("main", slot)
    lost = attempt(slot, DONE, schedule=early, slot=slot, planned=["notes"], minutes=None)
    again = attempt(
        tokyo("21 05:00"),
        {"notes": "succeeded"},
        batch=batch,
        schedule=early,
        slot=slot,
        left_out=["quotes"],
    )
    said = judged(tokyo("21 04:30"), lost)
    assert (job_of(said, "notes").failures, job_of(said).failures) == (1, 0)
    assert schedule_of(said).occurrences[-1].state is State.LOST
    said = judged(tokyo("21 06:00"), lost, again)
    assert [job.failures for job in said.jobs] == [0, 0]
    assert schedule_of(said).occurrences[-1].state is State.SUCCEEDED


def test_a_success_that_is_incomplete_is_told() -> None:
    """It is no failure, and not silent."""
    job = job_of(judged(tokyo("21 12:00"), attempt(tokyo("21 02:00"), {"quotes": "incomplete"})))
    assert (job.failures, job.incomplete is not None) == (0, True)


def test_a_schedule_that_changes() -> None:
    """The first run by the new one stands for the last time by the old."""
    early, later = nightly("cron(0 2 * * ? *)"), nightly("cron(0 5 * * ? *)")
    runs = [*nights(early, tokyo("18 02:00"), 3), *nights(later, tokyo("21 05:00"), 2)]
    said = schedule_of(judged(tokyo("22 12:00"), *runs))
    assert [one.state for one in said.occurrences] == [State.SUCCEEDED] * 5
    grace = nightly("cron(0 2 * * ? *)", "15m")
    runs = [*nights(early, tokyo("18 02:00"), 3), *nights(grace, tokyo("21 02:00"), 2)]
    said = schedule_of(judged(tokyo("22 12:00"), *runs))
    assert [one.state for one in said.occurrences] == [State.SUCCEEDED] * 5


def test_a_schedule_that_is_told_anew_in_between_counts_no_time_twice() -> None:
    """By a run that somebody started by hand, half an hour after the one that was due."""
    early, grace = nightly("cron(0 2 * * ? *)"), nightly("cron(0 2 * * ? *)", "15m")
    runs = nights(early, tokyo("18 02:00"), 3)
    by_hand = attempt(tokyo("20 02:10"), schedule=grace)
    said = schedule_of(judged(tokyo("20 12:00"), *runs, by_hand))
    assert [len(one.groups) for one in said.occurrences] == [1, 1, 2]


def test_a_clock_that_is_behind_makes_no_run_too_early() -> None:
    """It seems to begin two minutes before it is due."""
    early = nightly("cron(0 2 * * ? *)")
    runs = [attempt(tokyo(f"{day} 01:58"), schedule=early) for day in (19, 20, 21)]
    said = schedule_of(judged(tokyo("21 12:00"), *runs))
    assert said.missed == ()
    assert [one.due.day for one in said.occurrences] == [18, 19, 20]  # in UTC
    assert all(len(one.groups) == 1 for one in said.occurrences)


def test_a_run_by_hand_in_the_week_belongs_to_its_own_day() -> None:
    """And not to the Sunday whose run it follows."""
    weekly = nightly("cron(0 3 ? * SUN *)")
    runs = nights(weekly, tokyo("15 03:00"), 1)
    said = judged(tokyo("19 12:00"), *runs, attempt(tokyo("18 10:00"), FAILED))
    assert [(day.day.day, day.state) for day in job_of(said).days] == [
        (15, State.SUCCEEDED),
        (18, State.FAILED),
    ]


def test_a_job_was_not_missed_before_there_was_one() -> None:
    """Its days begin with its first run."""
    early = nightly("cron(0 2 * * ? *)")
    runs = [*nights(early, tokyo("16 02:00"), 1), *nights(early, tokyo("18 02:00"), 1)]
    both = {"quotes": "succeeded", "new": "succeeded"}
    runs += nights(early, tokyo("19 02:00"), 1, jobs=both)
    said = judged(tokyo("19 12:00"), *runs)
    assert [day.day.day for day in job_of(said, "new").days] == [19]
    assert [(day.day.day, day.state) for day in job_of(said).days][1] == (17, State.MISSED)
    assert job_of(said).missed == ()  # it came since


def test_what_is_due_since_home_began_to_watch() -> None:
    """A machine that came for the first time after two days did not come before."""
    runs = history(tokyo("22 12:00"), attempt(tokyo("22 04:10")), since=tokyo("20 12:00"))
    rules = Rules(tokyo("22 12:00"), schedule=nightly("10 4 * * *"))
    states = [one.state for one in schedule_of(judge(runs, rules)).occurrences]
    assert states == [State.MISSED, State.SUCCEEDED]


@pytest.mark.parametrize(
    "expression", ["nonsense", "cron(0 0 31 2 ? *)", "\x1b[31m", "rate(0 days)"]
)
def test_a_schedule_that_cannot_be_read_is_told_and_nothing_is_missed(expression: str) -> None:
    """Home goes on by the runs alone."""
    runs = nights(nightly(expression), tokyo("18 02:00"), 2)
    said = schedule_of(judged(tokyo("22 12:00"), *runs))
    assert said.problem
    assert said.problem.isprintable()
    assert said.missed == ()


def test_two_schedules_in_one_bucket_do_not_meet() -> None:
    """The one that comes does not hide the one that does not."""
    early = nightly("cron(0 2 * * ? *)")
    prod = nights(early, tokyo("18 02:00"), 2, name="prod")
    trial = nights(early, tokyo("18 02:00"), 5, name="test")
    said = judged(tokyo("22 12:00"), *prod, *trial)
    assert len(schedule_of(said, "prod").missed) == 3
    assert len(schedule_of(said, "test").missed) == 0
    assert [(job.name, job.schedule, len(job.missed)) for job in said.jobs] == [
        ("quotes", "prod", 3),
        ("quotes", "test", 0),
    ]


# Properties.

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
    said = judged(tokyo("25 00:00"), *attempts)
    one = schedule_of(said)
    dues = [each.due for each in one.occurrences]
    assert dues == sorted(set(dues))
    placed = [group.at for each in one.occurrences for group in each.groups]
    assert len(placed) == len(set(placed)) <= len(runs)
    assert all((each.state is State.MISSED) <= (not each.groups) for each in one.occurrences)
    newest = max(group.at for group in one.groups)
    assert all(due > newest - timedelta(minutes=5) for due in one.missed)
    assert job_of(said).failures <= len(runs)
