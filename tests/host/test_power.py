"""Decisions about the machine's power: lease, limits of the units, time line."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import UsageError
from agent.config.settings import Limits
from agent.machine.guard import complaint, deadline_of, parse_span
from agent.machine.lease import LONGEST, granted, seconds_left
from agent.machine.timeline import before_the_run, manager_times

SYSTEMD = Path(__file__).parent.parent.parent / "systemd"
HOUR = 3600.0


@given(st.floats(0, LONGEST - 1), st.floats(1, 1e9))
def test_a_lease_never_goes_beyond_its_longest(uptime: float, seconds: float) -> None:
    """However much is asked for, the machine may go off a day after power-on."""
    until = granted(uptime, seconds)
    assert until <= LONGEST
    assert 0 <= seconds_left(str(until), uptime) <= seconds


def test_a_lease_that_comes_too_late_is_refused() -> None:
    """A machine that has been on for a day is held no longer."""
    with pytest.raises(UsageError, match="24 h"):
        granted(LONGEST, 60)


@given(st.text())
def test_a_lease_that_nobody_can_read_is_none(text: str) -> None:
    """Rubbish in the file holds nothing, and nothing in it holds for ever."""
    assert 0 <= seconds_left(text, 10) <= LONGEST


@pytest.mark.parametrize(
    ("text", "left"), [("100\n", 90), ("5", 0), ("", 0), ("-5", 0), ("1e9", 0)]
)
def test_what_is_left_of_a_lease(text: str, left: float) -> None:
    """The file has the uptime until which it holds."""
    assert seconds_left(text, 10) == left


@pytest.mark.parametrize("script", ["lease.sh", "deadman.sh"])
def test_the_scripts_know_the_same_longest_lease(script: str) -> None:
    """The number stands in three places, because the dead-man shares no code with anybody."""
    found = re.search(r"^LONGEST=(\d+)", (SYSTEMD / script).read_text("utf-8"), re.MULTILINE)
    assert found
    assert int(found[1]) == LONGEST


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h 15min", 8100),
        ("30s", 30),
        ("1min 30s", 90),
        ("1d", 86400),
        ("infinity", None),
        ("", None),
    ],
)
def test_times_as_systemd_shows_them(text: str, seconds: float | None) -> None:
    """`systemctl show` prints spans for people."""
    assert parse_span(text) == seconds


def test_the_deadline_is_read_from_the_timer() -> None:
    """The dead-man's `TimersMonotonic` names the time after power-on."""
    shown = "{ OnUnitInactiveUSec=1min ; next_elapse=0 } { OnBootUSec=3h ; next_elapse=3h }"
    assert deadline_of(shown) == 3 * HOUR
    assert deadline_of("") is None


def test_the_units_that_are_delivered_fit_the_default_limit() -> None:
    """A machine that nobody changed has nothing to complain about."""
    service = (SYSTEMD / "mayfly.service").read_text("utf-8")
    timer = (SYSTEMD / "mayfly-deadman.timer").read_text("utf-8")
    longest = re.search(r"^RuntimeMaxSec=2h15min$", service, re.MULTILINE)
    deadline = re.search(r"^OnBootSec=(\S+)$", timer, re.MULTILINE)
    assert longest
    assert deadline
    assert complaint(Limits().run, 2.25 * HOUR, parse_span(deadline[1])) == ""


@pytest.mark.parametrize(
    ("run", "longest", "deadline", "words"),
    [
        (4 * HOUR, 2.25 * HOUR, 3 * HOUR, "mayfly.service is ended"),
        (2 * HOUR, 2.25 * HOUR, 2 * HOUR, "the dead-man switches off"),
        (2 * HOUR, None, None, "not installed"),
    ],
)
def test_limits_that_do_not_fit(
    run: float, longest: float | None, deadline: float | None, words: str
) -> None:
    """What would cut a run short, or never come, is named."""
    assert words in complaint(run, longest, deadline)


def test_the_time_line_before_the_run() -> None:
    """From power-on to the beginning of the run there is no gap, and each phase has its place."""
    now = datetime(2026, 11, 22, 6, 0, 0, tzinfo=UTC)
    shown = (
        "FirmwareTimestampMonotonic=2500000\nLoaderTimestampMonotonic=500000\n"
        "UserspaceTimestampMonotonic=1500000\nGeneratorsTimestampMonotonic=\n"
    )
    phases = before_the_run(manager_times(shown), uptime=20, process=9, ago=10, now=now)
    assert [(phase.name, phase.seconds) for phase in phases] == [
        ("firmware", 2.5),
        ("kernel", 1.5),
        ("userspace", 7.5),
        ("agent-start", 1.0),
    ]
    ends = [phase.started + timedelta(seconds=phase.seconds) for phase in phases]
    assert ends[:-1] == [phase.started for phase in phases[1:]]
    assert ends[-1] == now - timedelta(seconds=10)
