"""What the service knows while it goes on: threads read it that make metrics and pages."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

from agent.base.errors import UsageError
from consumer.home import MOST_PROBLEMS, Home, Known
from consumer.judge import Rules
from consumer.model import History
from consumer.pull.report import Delayed, Event, Hooked, Installed, Note, Rejected, Report

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = "20261122T120000Z-aaaaaa"
HOOKED = Hooked(RUN, "notes", "exit code 1")
DELAYED = Delayed(RUN, "quotes", "the bucket said no", store=True)
INSTALLED = Installed(RUN, "quotes", "/x", 1, 1, "succeeded")


def new_home() -> Home:
    """Return what is known of an empty bucket."""
    return Home("bucket", Known.of(History(), Rules(NOW)), NOW, 900)


def watched(home: Home, *events: Event) -> Iterator[Event]:
    """Yield what came of a pull; what is wrong is as it was before, until all is noted."""
    before = home.problems
    for event in events:
        yield event
        assert home.problems is before


def test_what_a_thread_reads_does_not_change_under_it() -> None:
    """A scrape counts problems by kind: it sees those before a pull, or those after it."""
    home = new_home()
    seen = home.problems
    home.note_failed_pull(UsageError("another pull"), NOW)
    assert (dict(seen), list(home.problems)) == ({}, [("disk", "")])
    seen = home.problems
    events = watched(home, INSTALLED, HOOKED)
    home.note_pull(Report(cast("tuple[Event, ...]", events)), NOW)
    assert list(seen) == [("disk", "")]
    assert list(home.problems) == [("hook", f"{RUN} notes")]


def test_a_problem_that_stays_is_told_since_when() -> None:
    """And one that has gone is not told any more; what was rejected keeps no pull from ending well."""
    home, later = new_home(), NOW + timedelta(minutes=5)
    home.note_pull(Report((DELAYED, HOOKED)), NOW)
    home.note_pull(Report((DELAYED,)), later)
    ((key, problem),) = home.problems.items()
    assert (key, problem.since, home.pulled) == (("store", f"{RUN} quotes"), NOW, None)
    home.note_pull(Report((INSTALLED,)), later)
    assert (dict(home.problems), home.pulled) == ({}, later)


def test_only_what_the_folder_does_is_told_of_the_folder() -> None:
    """Shards that are late, and an entry that nobody can have written, keep no pull from ending well."""
    home = new_home()
    talk = (
        Note("group n: 2 of 3 shards are done", fault=True),
        Note("x cannot be used", fault=True),
    )
    home.note_pull(Report(talk), NOW)
    assert (dict(home.problems), home.pulled) == ({}, NOW)
    home.note_pull(Report((Note("no room", fault=True, folder=True),), pending=3), NOW)
    assert list(home.problems) == [("disk", "")]


def test_many_problems_of_one_kind_hide_none_of_another() -> None:
    """Who forges hundreds of jobs keeps neither a full disk nor a bucket that is gone from being told."""
    home = new_home()
    forged = tuple(Rejected(RUN, f"job-{number}", ("forged",)) for number in range(300))
    report = Report((*forged, Note("no room", fault=True, folder=True)), "no route to it")
    home.note_pull(report, NOW)
    kinds = Counter(kind for kind, _ in home.problems)
    assert (kinds, home.pulled) == ({"invalid": MOST_PROBLEMS, "disk": 1, "store": 1}, None)


def test_nobody_knows_what_is_at_home_before_a_pull_has_looked() -> None:
    """Neither what is not there, nor that all is."""
    home = new_home()
    home.pulls = True
    home.note_failed_pull(UsageError("another pull"), NOW)
    pull = home.health().pull
    assert pull
    assert (pull.ended, pull.pending) == (NOW, None)
    home.note_pull(Report((DELAYED,), pending=7), NOW)
    pull = home.health().pull
    assert pull
    assert pull.pending == 7
