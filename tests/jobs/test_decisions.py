"""What runs next, how an attempt counts, how a run ends: decisions, as tables and properties."""

import errno
import os
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.jobsfile import Expect, Job
from agent.contract.entries import Output
from agent.contract.package import RefusedFile
from agent.contract.results import JobCause, JobStatus
from agent.jobs.plan import Decision, SchedulerState, backoff, day_problem, next_step
from agent.jobs.resultfile import ResultFile
from agent.jobs.verdict import (
    EX_TEMPFAIL,
    READ_ONLY,
    Ended,
    Produced,
    Strays,
    Verdict,
    broken_expectation,
    judge,
    not_started,
    note_on_strays,
    wants_retry,
)

ASTRAY = 'it wrote 3 files beside its code, such as out.csv; set output = "."'
LINKS = (RefusedFile(path="l", reason="a link"),)
OK, BAD, SKIPPED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.SKIPPED
EMPTY, TIMED_OUT, INTERRUPTED = JobStatus.EMPTY, JobStatus.TIMED_OUT, JobStatus.INTERRUPTED
SILENT = ResultFile()


def job(name: str, *needs: str, browser: bool = False, on: str | None = None) -> Job:
    """A job."""
    return Job(name=name, command=("x",), needs=needs, browser=browser, on=on)


def board(*jobs: Job, parallel: int = 9, sessions: int = 9, **more: Any) -> SchedulerState:
    """A board on which nothing has ended or runs, unless the test says so."""
    state: dict[str, Any] = {"ended": {}, "running": frozenset(), **more}
    return SchedulerState(jobs, parallel=parallel, sessions=sessions, **state)


RUNS_A = frozenset({"a"})
TWO = (job("a"), job("b"))
A_NEEDS_B = (job("a", "b"), job("b"))
BROWSING = (job("a", browser=True), job("b", browser=True))


@pytest.mark.parametrize(
    ("state", "start", "skip"),
    [
        (board(*TWO), ("a", "b"), ()),
        (board(*TWO, parallel=1), ("a",), ()),
        (board(*TWO, parallel=1, running=RUNS_A), (), ()),
        (board(*A_NEEDS_B), ("b",), ()),
        (board(*A_NEEDS_B, ended={"b": OK}), ("a",), ()),
        (board(*A_NEEDS_B, ended={"b": BAD}), (), (("a", 'it needs "b", which did not succeed'),)),
        # Another run has done it: it counts as done, and is not run again.
        (board(*A_NEEDS_B, finished=frozenset({"b"})), ("a",), ()),
        (board(*BROWSING, job("c"), sessions=1), ("a", "c"), ()),
        (board(*BROWSING, sessions=1, running=RUNS_A), (), ()),
        (
            board(*TWO, job("c"), running=RUNS_A, ended={"b": OK}, stopping="late"),
            (),
            (("c", "late"),),
        ),
    ],
)
def test_what_may_start_now(
    state: SchedulerState, start: tuple[str, ...], skip: tuple[tuple[str, str], ...]
) -> None:
    """File order decides between equals; needs, parallelism and sessions limit."""
    assert next_step(state) == Decision(start, skip)


@st.composite
def boards(draw: st.DrawFn) -> tuple[list[Job], set[str]]:
    """Jobs that need earlier ones only, in any order, and which of them fail."""
    names = [f"j{number}" for number in range(draw(st.integers(1, 7)))]
    jobs = [
        job(
            name,
            *draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else (),
            browser=draw(st.booleans()),
        )
        for index, name in enumerate(names)
    ]
    return draw(st.permutations(jobs)), set(draw(st.lists(st.sampled_from(names))))


@given(boards(), st.integers(1, 4), st.integers(1, 3), st.randoms(use_true_random=False))
def test_every_job_ends_within_the_limits(
    drawn: tuple[list[Job], set[str]], parallel: int, sessions: int, luck: object
) -> None:
    """Whatever needs what and whatever fails, each job is started or skipped once, never beyond the limits."""
    assert isinstance(luck, random.Random)
    jobs, failing = drawn
    by_name = {one.name: one for one in jobs}
    ended: dict[str, JobStatus] = {}
    running: set[str] = set()
    while len(ended) < len(jobs):
        step = next_step(SchedulerState(jobs, ended, frozenset(running), parallel, sessions))
        assert step.start or step.skip or running, "it stands still"
        assert not set(step.start) & (ended.keys() | running)
        for name in step.start:
            assert all(ended[need] is OK for need in by_name[name].needs)
        running |= set(step.start)
        ended |= {name: SKIPPED for name, _ in step.skip}
        assert len(running) <= parallel
        assert sum(by_name[name].browser for name in running) <= sessions
        if running:
            done = luck.choice(sorted(running))
            running.remove(done)
            ended[done] = BAD if done in failing else OK
    assert all(ended[name] is OK for name in by_name if not _tainted(name, by_name, failing))


def _tainted(name: str, jobs: dict[str, Job], failing: set[str]) -> bool:
    return name in failing or any(_tainted(need, jobs, failing) for need in jobs[name].needs)


def test_a_job_runs_on_its_days() -> None:
    """2026-11-22 is a Sunday."""
    sunday = datetime(2026, 11, 22, tzinfo=UTC)
    assert day_problem(job("a"), sunday) is None
    assert day_problem(job("a", on="sat..mon"), sunday) is None
    assert (
        day_problem(job("a", on="mon..fri"), sunday)
        == "it runs on mon..fri, and the run is for sun in UTC"
    )


def test_pauses_between_attempts_grow_to_half_a_minute() -> None:
    """2, 4, 8, 16, 30, 30."""
    assert [backoff(number) for number in range(1, 7)] == [2, 4, 8, 16, 30, 30]


DENIED = "PermissionError: [Errno 13] Permission denied: "
NO_SPACE = "[Errno 28] No space left on device"
EROFS = "Error: EROFS: read-only file system, open 'out.csv'"
OS_EROFS = "OSError: [Errno 30] Read-only file system: 'out.csv'"
LATE = "still running after 10m 00s"
STOPPED = "stopped because the run was told to stop"
WROTE = Strays(3, "out.csv")


@pytest.mark.parametrize(
    ("ended", "status", "cause", "message"),
    [
        (Ended(0), OK, None, ""),
        (Ended(3), BAD, "error", "exit code 3"),
        (Ended(3, tail="a\nboom \n"), BAD, "error", "exit code 3: boom"),
        (Ended(signal=9), BAD, "out_of_memory", "killed by signal 9"),
        (Ended(signal=11), BAD, "error", "killed by signal 11"),
        (Ended(1, tail="MemoryError"), BAD, "out_of_memory", "exit code 1: MemoryError"),
        (Ended(1, tail=NO_SPACE), BAD, "out_of_disk", f"exit code 1: {NO_SPACE}"),
        (Ended(1, browser_died=True), BAD, "browser", "exit code 1"),
        (Ended(timed_out=True, limit=600), TIMED_OUT, "timeout", LATE),
        (Ended(0, interrupted=True), INTERRUPTED, "interrupted", STOPPED),
        (Ended(failure="no such program"), BAD, "release", "no such program"),
        (Ended(0, strays=WROTE), EMPTY, "expectation", ASTRAY),
        (Ended(1, strays=WROTE), BAD, "error", f"exit code 1; {ASTRAY}"),
        (
            Ended(1, tail=f"{DENIED}'out.csv'", read_only=True),
            *(BAD, "error", f"exit code 1: {DENIED}'out.csv'; {READ_ONLY}"),
        ),
        (
            Ended(1, tail=f"{DENIED}'/etc/shadow'", read_only=True),
            *(BAD, "error", f"exit code 1: {DENIED}'/etc/shadow'"),
        ),
        (
            Ended(1, tail=OS_EROFS, read_only=True),
            *(BAD, "error", f"exit code 1: {OS_EROFS}; {READ_ONLY}"),
        ),
        (Ended(0, tail=EROFS, read_only=True), EMPTY, "expectation", READ_ONLY),
        (Ended(0, tail=EROFS), OK, None, ""),
    ],
)
def test_how_an_attempt_counts(
    ended: Ended, status: JobStatus, cause: str | None, message: str
) -> None:
    """Of a job that says nothing of itself, what can be told from outside."""
    expected = Verdict(status, JobCause(cause) if cause else None, message)
    assert judge(ended, SILENT, Produced(), Expect()) == expected


ONE_FILE = Expect(min_files=1)
NO_FILE = "0 files, expected at least 1"
REFUSED = "2 files could not be delivered, such as l (a link)"


@pytest.mark.parametrize(
    ("ended", "reported", "produced", "expect", "verdict"),
    [
        (Ended(0), {"message": "12 new"}, Produced(), Expect(), Verdict(OK, None, "12 new")),
        (
            *(Ended(1), {"cause": "blocked", "message": "403"}, Produced(), Expect()),
            Verdict(BAD, JobCause.BLOCKED, "403"),
        ),
        (
            *(Ended(timed_out=True, limit=600), {"message": "page 3"}, Produced(), Expect()),
            Verdict(TIMED_OUT, JobCause.TIMEOUT, f"{LATE}; page 3"),
        ),
        (
            *(Ended(EX_TEMPFAIL), {}, Produced(), Expect()),
            Verdict(BAD, JobCause.ERROR, "exit code 75", asks_retry=True),
        ),
        (Ended(0), {}, Produced(), ONE_FILE, Verdict(EMPTY, JobCause.EXPECTATION, NO_FILE)),
        (
            *(Ended(0), {"cause": "page_changed", "message": "no table"}, Produced(), ONE_FILE),
            Verdict(EMPTY, JobCause.PAGE_CHANGED, f"{NO_FILE}; no table"),
        ),
        (
            *(Ended(0), {}, Produced(0, 0, LINKS, 2), Expect()),
            Verdict(EMPTY, JobCause.EXPECTATION, REFUSED),
        ),
        # With one file it succeeded, whatever it wrote besides; the run tells that it is incomplete.
        (Ended(0, strays=WROTE), {}, Produced(1, 1, LINKS, 2), Expect(), Verdict(OK)),
    ],
)
def test_what_a_job_says_and_leaves_comes_before_what_we_can_tell(
    ended: Ended, reported: dict[str, object], produced: Produced, expect: Expect, verdict: Verdict
) -> None:
    """Its own cause says more than ours; one of which nothing can be handed over is empty."""
    assert judge(ended, ResultFile.model_validate(reported), produced, expect) == verdict


FILES = [Output(files=files) for files in (10, 2, 10)]
NO_FILES = [Output(files=0), Output(files=0)]
ITEMS = [Output(files=1, items=items) for items in (100, 120, None)]


@pytest.mark.parametrize(
    ("expect", "produced", "items", "past", "says"),
    [
        ({}, Produced(), None, [], ""),
        ({"min_files": 1}, Produced(0, 0), None, [], NO_FILE),
        ({"min_files": 1}, Produced(1, 0), None, [], ""),
        ({"min_bytes": "1KiB"}, Produced(1, 1000), None, [], "1.0 kB, expected at least 1.0 kB"),
        ({"min_bytes": "1KiB"}, Produced(1, 1024), None, [], ""),
        ({"min_items": 5}, Produced(9, 9), 4, [], "4 items, expected at least 5"),
        ({"min_items": 5}, Produced(9, 9), None, [], "0 items, expected at least 5"),
        ({"drop": 0.5}, Produced(4), None, [], ""),
        ({"drop": 0.5}, Produced(4), None, FILES, "4 files, fewer than 50% of the usual 10"),
        ({"drop": 0.5}, Produced(5), None, FILES, ""),
        ({"drop": 0.5}, Produced(0), None, NO_FILES, ""),
        # The same number of files with hardly anything in them, by the job's own count.
        ({"drop": 0.5}, Produced(1, 9), 3, ITEMS, "3 items, fewer than 50% of the usual 110"),
    ],
)
def test_what_a_job_must_produce(
    expect: dict[str, object], produced: Produced, items: int | None, past: list[Output], says: str
) -> None:
    """Each expectation names what was there and what was wanted."""
    assert broken_expectation(Expect.model_validate(expect), produced, items, past) == says


@pytest.mark.parametrize(
    ("verdict", "retries", "browser_died", "attempts"),
    [
        (Verdict(OK), 5, False, 1),
        (Verdict(BAD), 0, False, 1),
        (Verdict(BAD), 2, False, 3),
        (Verdict(BAD, asks_retry=True), 0, False, 2),
        (Verdict(BAD, asks_retry=True), 3, False, 4),
        (Verdict(BAD), 0, True, 2),
        (Verdict(EMPTY), 1, False, 2),
        (Verdict(TIMED_OUT), 1, False, 2),
        (Verdict(INTERRUPTED, asks_retry=True), 9, True, 1),
    ],
)
def test_how_many_attempts_a_job_gets(
    verdict: Verdict, retries: int, browser_died: bool, attempts: int
) -> None:
    """`retries` for every failure; exit code 75 and a lost browser grant one where there are none."""
    made = 1
    while wants_retry(verdict, made, retries, browser_died=browser_died):
        made += 1
    assert made == attempts


@pytest.mark.parametrize(
    "text",
    [
        *('{"metrics": {"a": NaN}}', '{"metrics": {"a": 1e400}}', '{"metrics": {"a b": 1}}'),
        *('{"items": -1}', '{"items": 1e30}', '{"cause": "bad luck"}', "[]", ""),
    ],
)
def test_a_result_file_says_only_what_a_manifest_can_hold(text: str) -> None:
    """JSON has no NaN; a job that reports one is unreadable, not the run's manifest."""
    with pytest.raises(ValueError, match="ResultFile"):
        ResultFile.model_validate_json(text)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        *((errno.ENOENT, "release"), (errno.EACCES, "release")),
        *((errno.ENOEXEC, "release"), (errno.EISDIR, "release")),
        # The agent finds that out itself, so that the error has no number.
        (FileNotFoundError('program "x" is not on the PATH'), "release"),
        (errno.ENOSPC, "out_of_disk"),
        *((errno.EAGAIN, "error"), (errno.ENOMEM, "error"), (errno.EMFILE, "error")),
        # A machine with too much to do starts nobody's program in time.
        (OSError("systemd did not start its unit in 60 s"), "error"),
    ],
)
def test_the_release_is_to_blame_for_its_program_only(error: int | OSError, cause: str) -> None:
    """No such program, or none that can be executed; what the machine had not is the machine's."""
    raised = error if isinstance(error, OSError) else OSError(error, os.strerror(error))
    assert not_started(raised) is JobCause(cause)


VOLUMES = Strays(volumes=("/data", "/cache"))


@pytest.mark.parametrize(
    ("strays", "status", "files", "has_output", "expected"),
    [
        (Strays(1, "driver.log"), OK, 1, False, "it wrote 1 file beside its code: driver.log"),
        (VOLUMES, OK, 0, False, 'wrote to /data, /cache went with its stack; set output = "/data"'),
        (VOLUMES, OK, 0, True, ""),
        (VOLUMES, BAD, 0, False, ""),
        (VOLUMES, OK, 1, False, ""),
        (Strays(), OK, 0, False, ""),
    ],
)
def test_what_is_told_beside_the_verdict(
    strays: Strays, status: JobStatus, files: int, *, has_output: bool, expected: str
) -> None:
    """Of files that were not handed over, and of volumes that nobody can look into."""
    told = note_on_strays(strays, Verdict(status), Produced(files=files), has_output=has_output)
    assert (expected in told) if expected else (told == "")
