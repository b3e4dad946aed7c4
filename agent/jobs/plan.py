"""Which job starts next: order, days, parallelism, the browser's sessions. Decisions only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.config.jobsfile import DAYS, Job
from agent.contract.results import JobStatus

LEAST_SECONDS = 1.0
"""Less than this before the deadline nothing is started any more: no job, no other attempt, no turn at a site."""


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """The state of a run's jobs.

    Attributes:
        jobs: All jobs, in the order of the file.
        ended: Status of each job that ended or was skipped.
        running: Names of the running jobs.
        parallel: How many may run at once.
        sessions: How many of them may use the browser.
        stopping: Why nothing may start any more; empty while it may.
        finished: Jobs that another run has done: they do not start, and what needs them may.
    """

    jobs: Sequence[Job]
    ended: Mapping[str, JobStatus]
    running: frozenset[str]
    parallel: int
    sessions: int
    stopping: str = ""
    finished: frozenset[str] = frozenset()

    def has_done(self, job: str) -> bool:
        """Tell whether a job has succeeded, in this run or in another one."""
        return job in self.finished or self.ended.get(job) is JobStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Decision:
    """Names to start, and names to skip with the reason."""

    start: tuple[str, ...] = ()
    skip: tuple[tuple[str, str], ...] = ()


def chosen(jobs: tuple[Job, ...], only: frozenset[str]) -> tuple[Job, ...]:
    """Return the jobs to run: all, or the named ones, which run without their needs."""
    if not only:
        return jobs
    return tuple(
        job.model_copy(update={"needs": tuple(need for need in job.needs if need in only)})
        for job in jobs
        if job.name in only
    )


def next_step(state: SchedulerState) -> Decision:
    """Return what may start and what must be skipped; file order decides between equals."""
    begun = state.ended.keys() | state.running | state.finished
    waiting = [job for job in state.jobs if job.name not in begun]
    if state.stopping:
        return Decision(skip=tuple((job.name, state.stopping) for job in waiting))
    hopeless = {
        job.name: need
        for job in waiting
        for need in job.needs
        if need in state.ended and not state.has_done(need)
    }
    browsing = sum(job.browser for job in state.jobs if job.name in state.running)
    free, sessions = state.parallel - len(state.running), state.sessions - browsing
    start: list[str] = []
    for job in waiting:
        ready = all(state.has_done(need) for need in job.needs)
        if not ready or free == 0 or (job.browser and sessions == 0):
            continue
        start.append(job.name)
        free, sessions = free - 1, sessions - job.browser
    return Decision(
        tuple(start),
        tuple(
            (name, f'it needs "{need}", which did not succeed') for name, need in hopeless.items()
        ),
    )


def day_problem(job: Job, at: datetime) -> str | None:
    """Return why a job does not run on the weekday of `at` (in the job's time zone), or None."""
    if at.weekday() in job.days:
        return None
    where = f" in {at.tzinfo}" if at.tzinfo else ""
    return f"it runs on {job.on}, and the run is for {DAYS[at.weekday()]}{where}"


def backoff(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt: 2, 4, 8, at most 30."""
    return min(30.0, 2.0**attempt)
