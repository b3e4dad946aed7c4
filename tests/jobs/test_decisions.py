"""What runs next, how an attempt counts, how a run ends: decisions, as tables and properties."""

import errno
import os
import random
from datetime import UTC, datetime

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
SILENT = ResultFile()


def job(name: str, *needs: str, browser: bool = False, on: str | None = None) -> Job:
    """A job."""
    return Job(name=name, command=("x",), needs=needs, browser=browser, on=on)


def board(
    *jobs: Job,
    ended: dict[str, JobStatus] | None = None,
    running: tuple[str, ...] = (),
    parallel: int = 9,
    sessions: int = 9,
    stopping: str = "",
) -> SchedulerState:
    """A board."""
    return SchedulerState(jobs, ended or {}, frozenset(running), parallel, sessions, stopping)


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (board(job("a"), job("b")), Decision(("a", "b"))),
        (board(job("a"), job("b"), parallel=1), Decision(("a",))),
        (board(job("a"), job("b"), parallel=1, running=("a",)), Decision()),
        (board(job("a", "b"), job("b")), Decision(("b",))),
        (board(job("a", "b"), job("b"), ended={"b": OK}), Decision(("a",))),
        (
            board(job("a", "b"), job("b"), ended={"b": BAD}),
            Decision((), (("a", 'it needs "b", which did not succeed'),)),
        ),
        (
            board(job("a", browser=True), job("b", browser=True), job("c"), sessions=1),
            Decision(("a", "c")),
        ),
        (
            board(job("a", browser=True), job("b", browser=True), sessions=1, running=("a",)),
            Decision(),
        ),
        (
            board(job("a"), job("b"), job("c"), running=("a",), ended={"b": OK}, stopping="late"),
            Decision((), (("c", "late"),)),
        ),
    ],
)
def test_what_may_start_now(state: SchedulerState, step: Decision) -> None:
    """File order decides between equals; needs, parallelism and sessions limit."""
    assert next_step(state) == step


def test_what_needs_a_job_that_another_run_did_starts() -> None:
    """It counts as done, and is not run again."""
    jobs = (job("a"), job("b", "a"))
    state = SchedulerState(jobs, {}, frozenset(), 2, 2, finished=frozenset({"a"}))
    assert next_step(state) == Decision(("b",))


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
        == "it runs on mon..fri, and today is sun in UTC"
    )


def test_pauses_between_attempts_grow_to_half_a_minute() -> None:
    """2, 4, 8, 16, 30, 30."""
    assert [backoff(number) for number in range(1, 7)] == [2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("ended", "reported", "verdict"),
    [
        (Ended(0), SILENT, Verdict(OK)),
        (Ended(0), ResultFile(message="12 new"), Verdict(OK, None, "12 new")),
        (Ended(3), SILENT, Verdict(BAD, JobCause.ERROR, "exit code 3")),
        (Ended(3, tail="a\nboom \n"), SILENT, Verdict(BAD, JobCause.ERROR, "exit code 3: boom")),
        (
            Ended(EX_TEMPFAIL),
            SILENT,
            Verdict(BAD, JobCause.ERROR, "exit code 75", asks_retry=True),
        ),
        (
            Ended(1),
            ResultFile(cause=JobCause.BLOCKED, message="403"),
            Verdict(BAD, JobCause.BLOCKED, "403"),
        ),
        (Ended(signal=9), SILENT, Verdict(BAD, JobCause.OUT_OF_MEMORY, "killed by signal 9")),
        (Ended(signal=11), SILENT, Verdict(BAD, JobCause.ERROR, "killed by signal 11")),
        (
            Ended(1, tail="MemoryError"),
            SILENT,
            Verdict(BAD, JobCause.OUT_OF_MEMORY, "exit code 1: MemoryError"),
        ),
        (
            Ended(1, tail="[Errno 28] No space left on device"),
            SILENT,
            Verdict(BAD, JobCause.OUT_OF_DISK, "exit code 1: [Errno 28] No space left on device"),
        ),
        (Ended(1, browser_died=True), SILENT, Verdict(BAD, JobCause.BROWSER, "exit code 1")),
        (
            Ended(timed_out=True, limit=600),
            SILENT,
            Verdict(JobStatus.TIMED_OUT, JobCause.TIMEOUT, "still running after 10m 00s"),
        ),
        (
            Ended(timed_out=True, limit=600),
            ResultFile(message="page 3"),
            Verdict(JobStatus.TIMED_OUT, JobCause.TIMEOUT, "still running after 10m 00s; page 3"),
        ),
        (
            Ended(0, interrupted=True),
            SILENT,
            Verdict(
                JobStatus.INTERRUPTED,
                JobCause.INTERRUPTED,
                "stopped because the run was told to stop",
            ),
        ),
        (
            Ended(failure="no such program"),
            SILENT,
            Verdict(BAD, JobCause.RELEASE, "no such program"),
        ),
        (
            Ended(0, strays=Strays(3, "out.csv")),
            SILENT,
            Verdict(JobStatus.EMPTY, JobCause.EXPECTATION, ASTRAY),
        ),
        (
            Ended(1, strays=Strays(3, "out.csv")),
            SILENT,
            Verdict(BAD, JobCause.ERROR, f"exit code 1; {ASTRAY}"),
        ),
        (
            Ended(
                1, tail="PermissionError: [Errno 13] Permission denied: 'out.csv'", read_only=True
            ),
            SILENT,
            Verdict(
                BAD,
                JobCause.ERROR,
                f"exit code 1: PermissionError: [Errno 13] Permission denied: 'out.csv'; {READ_ONLY}",
            ),
        ),
        (
            Ended(
                1,
                tail="PermissionError: [Errno 13] Permission denied: '/etc/shadow'",
                read_only=True,
            ),
            SILENT,
            Verdict(
                BAD,
                JobCause.ERROR,
                "exit code 1: PermissionError: [Errno 13] Permission denied: '/etc/shadow'",
            ),
        ),
        (
            Ended(1, tail="OSError: [Errno 30] Read-only file system: 'out.csv'", read_only=True),
            SILENT,
            Verdict(
                BAD,
                JobCause.ERROR,
                f"exit code 1: OSError: [Errno 30] Read-only file system: 'out.csv'; {READ_ONLY}",
            ),
        ),
        (
            Ended(0, tail="Error: EROFS: read-only file system, open 'out.csv'", read_only=True),
            SILENT,
            Verdict(JobStatus.EMPTY, JobCause.EXPECTATION, READ_ONLY),
        ),
        (
            Ended(0, tail="Error: EROFS: read-only file system, open 'out.csv'"),
            SILENT,
            Verdict(OK),
        ),
    ],
)
def test_how_an_attempt_counts(ended: Ended, reported: ResultFile, verdict: Verdict) -> None:
    """What the job says of itself comes before what we can tell from outside."""
    assert judge(ended, reported, Produced(), Expect()) == verdict


@pytest.mark.parametrize(
    ("expect", "produced", "items", "past", "says"),
    [
        ({}, Produced(), None, [], ""),
        ({"min_files": 1}, Produced(0, 0), None, [], "0 files, expected at least 1"),
        ({"min_files": 1}, Produced(1, 0), None, [], ""),
        ({"min_bytes": "1KiB"}, Produced(1, 1000), None, [], "1.0 kB, expected at least 1.0 kB"),
        ({"min_bytes": "1KiB"}, Produced(1, 1024), None, [], ""),
        ({"min_items": 5}, Produced(9, 9), 4, [], "4 items, expected at least 5"),
        ({"min_items": 5}, Produced(9, 9), None, [], "0 items, expected at least 5"),
        ({"drop": 0.5}, Produced(4), None, [], ""),
        ({"drop": 0.5}, Produced(4), None, [10, 2, 10], "4 files, fewer than 50% of the usual 10"),
        ({"drop": 0.5}, Produced(5), None, [10, 2, 10], ""),
        ({"drop": 0.5}, Produced(0), None, [0, 0], ""),
    ],
)
def test_what_a_job_must_produce(
    expect: dict[str, object], produced: Produced, items: int | None, past: list[int], says: str
) -> None:
    """Each expectation names what was there and what was wanted."""
    history = [Output(files=files) for files in past]
    assert broken_expectation(Expect.model_validate(expect), produced, items, history) == says


def test_a_drop_of_items_counts_like_one_of_files() -> None:
    """The same number of files with hardly anything in them is empty, by the job's own count."""
    past = [Output(files=1, items=items) for items in (100, 120, None)]
    verdict = judge(Ended(0), ResultFile(items=3), Produced(1, 9), Expect(drop=0.5), past)
    assert (verdict.status, verdict.cause) == (JobStatus.EMPTY, JobCause.EXPECTATION)
    assert verdict.message == "3 items, fewer than 50% of the usual 110"


def test_a_job_of_which_nothing_can_be_handed_over_is_empty() -> None:
    """With one file that can be, it succeeded, whatever it wrote besides; the run tells that it is incomplete."""
    reported, ended = ResultFile(), Ended(0, strays=Strays(1, "x"))
    empty = judge(Ended(0), reported, Produced(0, 0, LINKS, 2), Expect())
    assert (empty.status, empty.cause) == (JobStatus.EMPTY, JobCause.EXPECTATION)
    assert empty.message == "2 files could not be delivered, such as l (a link)"
    assert judge(ended, reported, Produced(1, 1, LINKS, 2), Expect()) == Verdict(OK)


def test_an_empty_job_that_knows_why_keeps_its_cause() -> None:
    """Its own cause says more than ours."""
    reported = ResultFile(cause=JobCause.PAGE_CHANGED, message="no table")
    verdict = judge(Ended(0), reported, Produced(), Expect(min_files=1))
    assert verdict == Verdict(
        JobStatus.EMPTY, JobCause.PAGE_CHANGED, "0 files, expected at least 1; no table"
    )


@pytest.mark.parametrize(
    ("verdict", "retries", "browser_died", "attempts"),
    [
        (Verdict(OK), 5, False, 1),
        (Verdict(BAD), 0, False, 1),
        (Verdict(BAD), 2, False, 3),
        (Verdict(BAD, asks_retry=True), 0, False, 2),
        (Verdict(BAD, asks_retry=True), 3, False, 4),
        (Verdict(BAD), 0, True, 2),
        (Verdict(JobStatus.EMPTY), 1, False, 2),
        (Verdict(JobStatus.TIMED_OUT), 1, False, 2),
        (Verdict(JobStatus.INTERRUPTED, asks_retry=True), 9, True, 1),
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
        '{"metrics": {"a": NaN}}',
        '{"metrics": {"a": 1e400}}',
        '{"metrics": {"a b": 1}}',
        '{"items": -1}',
        '{"items": 1e30}',
        '{"cause": "bad luck"}',
        "[]",
        "",
    ],
)
def test_a_result_file_says_only_what_a_manifest_can_hold(text: str) -> None:
    """JSON has no NaN; a job that reports one is unreadable, not the run's manifest."""
    with pytest.raises(ValueError, match="ResultFile"):
        ResultFile.model_validate_json(text)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOENT, JobCause.RELEASE),
        (errno.EACCES, JobCause.RELEASE),
        (errno.ENOEXEC, JobCause.RELEASE),
        (errno.EISDIR, JobCause.RELEASE),
        (errno.ENOSPC, JobCause.OUT_OF_DISK),
        (errno.EAGAIN, JobCause.ERROR),
        (errno.ENOMEM, JobCause.ERROR),
        (errno.EMFILE, JobCause.ERROR),
    ],
)
def test_the_release_is_to_blame_for_its_program_only(number: int, cause: JobCause) -> None:
    """No such program, or none that can be executed; what the machine had not is the machine's."""
    assert not_started(OSError(number, os.strerror(number))) is cause


def test_a_program_that_is_not_on_the_path_is_the_releases() -> None:
    """The agent finds that out itself, so that the error has no number."""
    assert not_started(FileNotFoundError('program "x" is not on the PATH')) is JobCause.RELEASE


def test_a_unit_that_did_not_start_in_time_is_not_the_releases() -> None:
    """A machine with too much to do starts nobody's program in time."""
    error = OSError("systemd did not start its unit in 60 s")
    assert not_started(error) is JobCause.ERROR


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
