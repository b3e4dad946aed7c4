"""Env files, news, journals and terminals: texts that are read or written with care."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.journal import Journal, after_death
from agent.core.manifest import HostRecord, RunRecord
from agent.core.outcome import Outcome
from agent.core.results import JobCause, JobResult, JobStatus, RunStatus
from agent.notify.news import MAX_BYTES, compose
from agent.secrets.envfile import parse_env

RUN = "20261122T064205Z-3f9a1c"
BEGAN = datetime(2026, 11, 22, 6, 42, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("A=1", {"A": "1"}),
        ("  export A = 1", None),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A= spaced out ", {"A": "spaced out"}),
        ("A=x=y#z$HOME", {"A": "x=y#z$HOME"}),
        ("# A=1", {}),
        ("   ", {}),
        ("\ufeffA=1\r", {"A": "1"}),
        ("A='a \"b\" \\n # $x'  # comment", {"A": 'a "b" \\n # $x'}),
        ('A="a\\n\\"b\\" \\$x \\\\"', {"A": 'a\n"b" $x \\'}),
        ("A=1 # comment?", None),
        ("A=#1", None),
        ('A="open', None),
        ("A='open", None),
        ('A="x" y', None),
        ('A="\\q"', None),
        ("A", None),
        ("1A=x", None),
        ("A-B=x", None),
        ("A=\0", None),
        ("A=1\nA=2", None),
    ],
)
def test_env_files_are_read_strictly(line: str, values: dict[str, str] | None) -> None:
    """What readers of env files disagree on is a fault, not a guess."""
    found, faults = parse_env(line, "x.env")
    assert (None if faults else found) == values


@given(st.text(), st.text())
def test_no_fault_of_an_env_file_repeats_a_value(name: str, value: str) -> None:
    """Any text is read or refused, by line number only."""
    canary = "canary-" + "7" * 20
    _, faults = parse_env(f"{name}={canary}{value}\n{canary}", "x.env")
    assert faults
    assert all(canary not in str(fault) for fault in faults)
    assert all(fault.key.startswith("line ") for fault in faults)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(
        lambda text: "'" not in text and "\n" not in text and "\r" not in text
    )
)
def test_single_quotes_hold_anything_on_a_line(value: str) -> None:
    """Passwords with any character can be written as they are."""
    assert parse_env(f"A='{value}'", "x") == ({"A": value}, [])


def outcome(**changes: object) -> Outcome:
    """A run with one job that failed, one that was not due, one that succeeded."""
    jobs = (
        JobResult(name="a", status=JobStatus.SUCCEEDED),
        JobResult(
            name="b", status=JobStatus.FAILED, cause=JobCause.PAGE_CHANGED, message="no table"
        ),
        JobResult(name="c", status=JobStatus.SKIPPED, message="it runs on sun"),
    )
    values: dict[str, object] = {"status": RunStatus.PARTIAL, "jobs": jobs, **changes}
    return Outcome(**values)  # type: ignore[arg-type]


def test_news_say_what_failed_and_why() -> None:
    """A line for a phone's lock screen, and below it each job that did not succeed."""
    news = compose(outcome(manifest="s3://b/runs/x/datapackage.json"), RUN)
    assert news.title == "mayfly: partial, 1 of 2 jobs"
    assert news.text.splitlines() == [
        f"run {RUN}, exit code 3",
        "b failed (page_changed): no table",
        "s3://b/runs/x/datapackage.json",
    ]


def test_news_tell_of_a_success_that_is_incomplete() -> None:
    """As they tell of a failure: some of its files were on that machine only."""
    job = JobResult(name="a", status=JobStatus.SUCCEEDED, refused_files=1, message="1 file: a link")
    news = compose(outcome(jobs=(job,)), RUN)
    assert news.title == "mayfly: partial, 1 of 1 jobs"
    assert "a incomplete: 1 file: a link" in news.text.splitlines()


def test_news_of_what_needs_a_person_come_first() -> None:
    """Files that wait on the machine, and a day without a release."""
    late = compose(outcome(delivered=False, undelivered="no route"), RUN)
    assert late.title.endswith(", not handed over")
    assert "the files wait on the machine: no route" in late.text
    lost = compose(outcome(status=RunStatus.FAILED, jobs=(), released=False), RUN)
    assert lost.title == "mayfly: failed, no release could run"


@given(st.lists(st.text(max_size=2000), max_size=60))
def test_news_fit_into_a_ping(messages: list[str]) -> None:
    """Whatever jobs say, the text is short and encodes."""
    jobs = tuple(
        JobResult.model_construct(name="j", status=JobStatus.FAILED, cause=None, message=message)
        for message in messages
    )
    news = compose(outcome(jobs=jobs), RUN)
    assert len(news.text.encode()) <= MAX_BYTES


def journal(*results: JobResult, planned: tuple[str, ...] = ("a", "b"), **more: object) -> Journal:
    """A run as it stands in the spool."""
    run = RunRecord(
        run_id=RUN,
        status=RunStatus.INTERRUPTED,
        started=BEGAN,
        finished=BEGAN,
        agent="0.1.0",
        host=HostRecord(name="host", system="Linux"),
    )
    whole = Journal(run=run, planned=planned, **more)
    for result in results:
        whole = whole.with_result(result)
    return whole


DONE = tuple(JobResult(name=name, status=JobStatus.SUCCEEDED) for name in ("a", "b"))
LATER = BEGAN + timedelta(minutes=5)


def test_a_dead_runs_unfinished_jobs_are_interrupted() -> None:
    """What ended counts as it ended; what ran and what waited are told apart."""
    found = after_death(
        journal(DONE[0], planned=("a", "b", "c")), frozenset({"a", "b"}), "X", LATER
    )
    assert found.run.status is RunStatus.INTERRUPTED
    assert [job.status.value for job in found.run.jobs] == ["succeeded"] + ["interrupted"] * 2
    assert [job.message.rsplit(" died ", 1)[-1] for job in found.run.jobs[1:]] == [
        "while it ran",
        "before it started",
    ]
    assert (found.run.finished, found.run.recovered, found.concluded) == (LATER, "X", True)
    assert found.run.interruption


def test_a_run_that_died_after_its_jobs_is_whole() -> None:
    """Only the hand-off was missing: the jobs decide."""
    found = after_death(journal(*DONE), frozenset({"a", "b"}), "X", LATER)
    assert (found.run.status, found.run.interruption) == (RunStatus.SUCCEEDED, None)


def test_a_run_that_died_before_its_jobs_were_known_is_interrupted() -> None:
    """Nothing was planned, so nothing was done."""
    found = after_death(journal(planned=()), frozenset(), "X", LATER)
    assert (found.run.status, found.run.jobs) == (RunStatus.INTERRUPTED, ())


def test_a_run_that_was_concluded_stays_as_it_was() -> None:
    """Only who found it is added, and no time goes backwards."""
    before = journal(*DONE, concluded=True).with_run(status=RunStatus.SUCCEEDED)
    found = after_death(before, frozenset(), "X", LATER)
    assert found == before.with_run(recovered="X")
    early = after_death(journal(*DONE), frozenset(), "X", BEGAN - timedelta(days=1))
    assert early.run.finished == BEGAN


def test_a_journal_survives_its_file() -> None:
    """What was saved is what is read."""
    before = journal(*DONE, index_keys=("index/x",))
    assert Journal.model_validate_json(before.model_dump_json()) == before
