"""Env files and news: texts that are read or written with care."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.entries import Ended
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.notify.news import MAX_BYTES, compose
from agent.notify.outcome import Outcome
from agent.secrets.envfile import parse_env

RUN = "20261122T064205Z-3f9a1c"


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
        Ended(name="a", status=JobStatus.SUCCEEDED),
        Ended(name="b", status=JobStatus.FAILED, cause=JobCause.PAGE_CHANGED, message="no table"),
        Ended(name="c", status=JobStatus.SKIPPED, message="it runs on sun"),
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
    job = Ended(name="a", status=JobStatus.SUCCEEDED, refused=1, message="1 file: a link")
    news = compose(outcome(jobs=(job,)), RUN)
    assert news.title == "mayfly: partial, 1 of 1 jobs"
    assert "a incomplete: 1 file: a link" in news.text.splitlines()


def test_news_of_what_needs_a_person_come_first() -> None:
    """Files that wait on the machine, and a day without a release."""
    late = compose(outcome(delivered=False, undelivered="no route"), RUN)
    assert late.title.endswith(", not delivered")
    assert "the files wait on the machine: no route" in late.text
    lost = compose(outcome(status=RunStatus.FAILED, jobs=(), released=False), RUN)
    assert lost.title == "mayfly: failed, no release could run"


@given(st.lists(st.text(max_size=2000), max_size=60))
def test_news_fit_into_a_ping(messages: list[str]) -> None:
    """Whatever jobs say, the text is short and encodes."""
    jobs = tuple(
        Ended.model_construct(name="j", status=JobStatus.FAILED, cause=None, message=message)
        for message in messages
    )
    news = compose(outcome(jobs=jobs), RUN)
    assert len(news.text.encode()) <= MAX_BYTES
