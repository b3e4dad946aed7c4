"""How a run is divided that could not send everything, and what the next run leaves out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.core.catchup import Beginning, Earlier, caught_up
from agent.core.continuation import cut
from agent.core.ids import is_run_id
from agent.core.journal import Journal
from agent.core.manifest import HostRecord, RunRecord, Unsent
from agent.core.results import JobResult, JobStatus, RunStatus

START = datetime(2026, 11, 22, 18, 0, 30, tzinfo=UTC)
RUN = RunRecord(
    run_id="20261122T180030Z-aaaaaa",
    status=RunStatus.SUCCEEDED,
    started=START,
    finished=START + timedelta(minutes=5),
    agent="1",
    host=HostRecord(name="h", system="s"),
    jobs=(
        JobResult(name="a", status=JobStatus.SUCCEEDED, state="state/a/x.tar.gz"),
        JobResult(name="b", status=JobStatus.SUCCEEDED, state="state/b/x.tar.gz"),
        JobResult(name="c", status=JobStatus.FAILED),
    ),
    slot=START,
)
LATE = (Unsent(path="b/one", bytes=5, job="b"), Unsent(path="c/two", bytes=6, job="c"))


def test_a_job_whose_files_are_late_counts_where_the_last_of_them_arrive() -> None:
    """In the run it is interrupted and leaves no memory; in the follow-up it is what it was, with its memory."""
    parts = cut(RUN, LATE, {"b"}, b"\0\0\1")
    first = {job.name: (job.status, job.state) for job in parts.run.jobs}
    assert first == {
        "a": (JobStatus.SUCCEEDED, "state/a/x.tar.gz"),
        "b": (JobStatus.INTERRUPTED, None),
        "c": (JobStatus.FAILED, None),
    }
    later = parts.follow_up
    assert {job.name: (job.status, job.state) for job in later.jobs} == {
        "b": (JobStatus.SUCCEEDED, f"state/b/{later.run_id}.tar.gz"),
        "c": (JobStatus.FAILED, None),
    }
    assert (parts.run.status, later.status) == (RunStatus.INTERRUPTED, RunStatus.SUCCEEDED)
    assert parts.run.unsent == LATE
    assert (later.continues, later.slot, later.unsent) == (RUN.run_id, START, ())


def test_a_follow_up_is_the_next_run_of_the_same_day() -> None:
    """Its id sorts behind the run's, and it begins one second later, so that no day gets a result of another."""
    later = cut(RUN, LATE, (), b"\0\0\0").follow_up
    assert is_run_id(later.run_id)
    assert later.run_id > RUN.run_id
    assert later.started == START + timedelta(seconds=1)


def test_the_follow_up_takes_the_runs_place_in_the_spool() -> None:
    """It holds what was late and nothing else, and its shard's next commit is its own."""
    parts = cut(RUN, LATE, (), b"\0\0\1")
    journal = Journal(run=parts.run, sealed=True, follow_up=parts.follow_up, place=3)
    after = journal.continued()
    assert after is not None
    assert (after.late, after.concluded, after.sealed) == (("b/one", "c/two"), True, False)
    assert (after.planned, after.place, after.continued()) == (("b", "c"), 4, None)


NOW = START + timedelta(hours=1)
FIRST = Earlier(
    run_id="20261122T180030Z-aaaaaa",
    started=START,
    finished=START + timedelta(minutes=5),
    status=RunStatus.INTERRUPTED,
    slot=START,
    interruption="spot: gone",
    continues=None,
    shard=None,
    succeeded=frozenset({"a"}),
    wanted="v*",
)
BEGINS = Beginning(NOW, timedelta(hours=6), START, "v*")


def test_what_an_interrupted_run_finished_is_not_done_again() -> None:
    """Each job that is left out says in which run it succeeded."""
    assert caught_up([FIRST], BEGINS) == {
        "a": f"succeeded in {FIRST.run_id}, which was interrupted"
    }
    assert set(caught_up([FIRST], replace(BEGINS, slot=None))) == {"a"}


@pytest.mark.parametrize(
    ("run", "begins"),
    [
        (replace(FIRST, status=RunStatus.PARTIAL), BEGINS),
        (replace(FIRST, interruption="SIGINT"), BEGINS),
        (replace(FIRST, shard=0), BEGINS),
        (replace(FIRST, wanted="develop"), BEGINS),
        (FIRST, replace(BEGINS, window=timedelta(minutes=54))),
        (FIRST, replace(BEGINS, slot=START + timedelta(days=1))),
        (replace(FIRST, slot=None), BEGINS),
    ],
    ids=["whole", "by-hand", "shard", "other-track", "long-ago", "other-slot", "no-slot"],
)
def test_everything_is_done_again_otherwise(run: Earlier, begins: Beginning) -> None:
    """Another day's slot, another track, too long ago, ended by a person, or not interrupted at all."""
    assert caught_up([run], begins) == {}


def test_two_interruptions_in_a_row_add_up_and_a_follow_up_counts_with_its_run() -> None:
    """A job that the first finished is not done in the third; what arrived late counts, too."""
    second = replace(FIRST, run_id="20261122T182000Z-bbbbbb", succeeded=frozenset({"b"}))
    late = replace(
        FIRST,
        run_id="20261122T180031Z-cccccc",
        status=RunStatus.SUCCEEDED,
        continues=FIRST.run_id,
        succeeded=frozenset({"c"}),
    )
    assert set(caught_up([late, FIRST, second], BEGINS)) == {"a", "b", "c"}
    whole = replace(second, status=RunStatus.SUCCEEDED)
    assert caught_up([late, FIRST, whole], BEGINS) == {}
