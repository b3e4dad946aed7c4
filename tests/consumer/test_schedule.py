"""When runs are due, by the expressions that schedulers take."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.entries import Invalid
from agent.contract.facts import Schedule
from consumer.schedule import MOST, Cron, Times, between, times_of

ANCHOR = datetime(2026, 11, 1, 1, 30, tzinfo=UTC)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def read(expression: str, timezone: str = "UTC") -> Times | Invalid:
    """Return what an expression means."""
    schedule = Schedule(expression=expression, timezone=timezone, grace_seconds=0)
    return times_of(schedule, ANCHOR)


def usable(expression: str, timezone: str = "UTC") -> Times:
    """Return what a good expression means."""
    times = read(expression, timezone)
    assert not isinstance(times, Invalid), times
    return times


@pytest.mark.parametrize(
    ("expression", "last", "following"),
    [
        ("10 4 * * *", "11-26 04:10", "11-27 04:10"),
        ("*/15 * * * *", "11-26 11:45", "11-26 12:15"),
        ("0 3 * * MON-FRI", "11-26 03:00", "11-27 03:00"),
        ("0 3 * * 0", "11-22 03:00", "11-29 03:00"),
        ("cron(0 3 * * ? *)", "11-26 03:00", "11-27 03:00"),
        ("cron(0 3 ? * 1 *)", "11-22 03:00", "11-29 03:00"),  # Sunday is 1
        ("cron(0 3 ? * 2-6 *)", "11-26 03:00", "11-27 03:00"),
        ("cron(0 3 ? * SAT,SUN *)", "11-22 03:00", "11-28 03:00"),
        ("cron(0 3 ? * L *)", "11-21 03:00", "11-28 03:00"),
        ("cron(0 3 ? * 6L *)", "10-30 03:00", "11-27 03:00"),  # the last Friday
        ("cron(0 3 ? * 3#2 *)", "11-10 03:00", "12-08 03:00"),  # the second Tuesday
        ("cron(0 3 L * ? *)", "10-31 03:00", "11-30 03:00"),
        ("cron(0 3 15W * ? *)", "11-16 03:00", "12-15 03:00"),  # the 15th is a Sunday
        ("cron(0 3 1W * ? *)", "11-02 03:00", "12-01 03:00"),  # and so is the 1st
        ("cron(0 3 31W * ? *)", "10-30 03:00", "12-31 03:00"),  # a Saturday; November has none
        ("cron(0/20 8-17 ? * * 2026-2027)", "11-26 11:40", "11-26 12:20"),
        ("cron(0 3 1 1 ? 2026/2)", "01-01 03:00", None),
        ("rate(1 hour)", "11-26 11:30", "11-26 12:30"),
        ("rate(5 minutes)", "11-26 11:55", "11-26 12:05"),
        ("rate(7 days)", "11-22 01:30", "11-29 01:30"),
        ("at(2026-11-26T03:00:00)", "11-26 03:00", None),
        ("at(2026-12-24T03:00:00)", None, "12-24 03:00"),
        ("  cron( 0   3 * * ?  * ) ", "11-26 03:00", "11-27 03:00"),
    ],
)
def test_expressions(expression: str, last: str | None, following: str | None) -> None:
    """EventBridge's, and the five fields of cron."""
    times = usable(expression)
    found = between(times, NOW - timedelta(days=400), NOW)
    assert (f"{found[-1]:%m-%d %H:%M}" if found else None) == last
    after = times.after(NOW)
    shown = f"{after:%m-%d %H:%M}" if after and after.year == NOW.year else None
    assert shown == following


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "nonsense",
        "* * * *",
        "60 3 * * *",
        "0 0 31 2 *",
        "cron(0 3 * * *)",
        "cron(0 3 ? * 8 *)",
        "cron(0 3 ? * 0 *)",
        "cron(0 3 32W * ? *)",
        "cron(0 3 * * ? 26)",
        "cron(0 3 * * ? *",
        "rate(0 hours)",
        "rate(1 week)",
        "rate(-1 day)",
        "rate(99999999 days)",
        "at(2026-02-30T00:00:00)",
        "at(tomorrow)",
        "@daily",
        "\x1b[31m0 3 * * *",
    ],
)
def test_what_cannot_be_read_has_a_reason(expression: str) -> None:
    """Which can be shown to a person."""
    times = read(expression)
    assert isinstance(times, Invalid)
    assert times.reason.isprintable()


@pytest.mark.parametrize(
    "timezone",
    ["../../etc/passwd", "/etc/passwd", "Asia", "\0", "Mars/Olympus", "a" * 300, "Ünicode", "."],
)
def test_a_time_zone_that_is_none_has_a_reason(timezone: str) -> None:
    """Whatever a stranger writes for one: no file is read for it."""
    times = read("0 3 * * *", timezone)
    assert isinstance(times, Invalid)
    assert times.reason.isprintable()


def test_times_are_those_of_the_wall_clock() -> None:
    """In the schedule's zone."""
    (last,) = islice(usable("0 3 * * *", "Asia/Tokyo").back(NOW, NOW - timedelta(days=2)), 1)
    assert last == datetime(2026, 11, 25, 18, tzinfo=UTC)


def test_what_does_not_exist_is_not_next() -> None:
    """On 2026-03-29 there is no 02:30 in Berlin."""
    times = usable("30 2 * * *", "Europe/Berlin")
    saturday = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert times.after(saturday) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_what_was_due_before_clocks_were_set_back_is_found_after() -> None:
    """At 02:30 for the second time, 02:45 is over."""
    times = usable("45 2 * * *", "Europe/Berlin")
    now = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    due = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    assert between(times, due, now) == [due]
    assert times.after(due - timedelta(minutes=1)) == due


def test_a_schedule_of_each_minute_is_bounded() -> None:
    """A year of it has half a million times."""
    assert len(between(usable("* * * * *"), NOW - timedelta(days=400), NOW)) == MOST


def test_days_without_a_time_are_looked_at_once() -> None:
    """And not each minute of them, whatever year somebody asks for."""
    asked: list[date] = []

    def fits(day: date) -> bool:
        asked.append(day)
        return False

    times = Cron("* * * * *", ZoneInfo("Europe/Berlin"), fits)
    assert between(times, NOW - timedelta(days=400), NOW) == []
    assert len(asked) == len(set(asked)) <= 403


EXPRESSIONS = (
    "30 2 * * *",
    "0 */5 * * *",
    "cron(30 2 ? * SUN *)",
    "cron(15 0/3 * * ? *)",
    "rate(7 hours)",
    "cron(0 2 L * ? *)",
    "cron(0/20 0,23 15W * ? 2025/2)",
    "at(2026-10-25T02:30:00)",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.integers(0, 3 * 366 * 24 * 60),
    st.integers(0, 40 * 24 * 60),
)
def test_forward_and_back_agree(expression: str, zone: str, minute: int, span: int) -> None:
    """What is due from one moment to another, counted from either end; in order, and each once."""
    times = usable(expression, zone)
    since = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    until = since + timedelta(minutes=span)
    back = between(times, since, until)
    forward = []
    time = times.after(since - timedelta(seconds=1))
    while time is not None and time < until:
        forward.append(time)
        time = times.after(time)
    assert back == forward == sorted(set(back))


@pytest.mark.parametrize(
    "expression",
    [
        "rate(999999 days)",
        "cron(0 0 1 1 ? 1971)",
        "cron(0 0 29 2 ? 2199)",
        "cron(0 0 1 1 ? 9999)",
        "at(9999-12-31T23:59:59)",
        "at(0001-01-01T00:00:00)",
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "Asia/Tokyo", "America/Anchorage"])
def test_no_expression_leads_beyond_the_calendar(expression: str, timezone: str) -> None:
    """Anybody may write one into an entry, and home judges all of them: its times can be shown in every zone."""
    times = read(expression, timezone)
    if not isinstance(times, Invalid):
        assert len(between(times, NOW - timedelta(days=400), NOW)) <= 2
        found = times.after(NOW)
        assert found is None or found.year <= 2200
