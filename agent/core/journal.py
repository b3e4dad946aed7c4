"""What the spool remembers of a run, so that a later one can finish it."""

from collections.abc import Iterable
from datetime import datetime

from pydantic import Field

from agent.config.jobsfile import Job, family_of
from agent.core.manifest import RunRecord
from agent.core.outcome import run_status
from agent.core.results import JobCause, JobResult, JobStatus, Record

JOURNAL_VERSION = 1


class Journal(Record):
    """A run in the spool: the run so far, and how far its hand-off is.

    Attributes:
        run: What would stand in the manifest if the run ended now.
        planned: Every job of the run, in order.
        families: What these are called in jobs.toml; none of a job that an older agent planned.
        concluded: The run's status, times and jobs are final; only the hand-off is missing.
        sealed: The manifest is written in the spool and will not change any more.
        index_keys: Keys under which an index entry may have been written already, oldest first.
        place: For a shard: how many commits of it this run knew of when it decided what to do.
        late: Of a follow-up: the paths that it holds. None for every other run, which holds all of its jobs' files.
        follow_up: The run that holds what this one could not send in time; it takes this one's place after its commit.
    """

    version: int = JOURNAL_VERSION
    run: RunRecord
    planned: tuple[str, ...] = ()
    families: dict[str, str] = Field(default_factory=dict)
    concluded: bool = False
    sealed: bool = False
    index_keys: tuple[str, ...] = ()
    place: int = 0
    late: tuple[str, ...] | None = None
    follow_up: RunRecord | None = None

    def continued(self) -> "Journal | None":
        """Return the journal of the follow-up; None for a run that has sent everything."""
        if self.follow_up is None:
            return None
        return Journal(
            run=self.follow_up,
            planned=tuple(job.name for job in self.follow_up.jobs),
            concluded=True,
            place=self.place + 1,
            late=tuple(file.path for file in self.run.unsent),
        )

    def with_plan(self, jobs: Iterable[Job], place: int) -> "Journal":
        """Return the journal when it is known which jobs the run has, and its `place`."""
        families = {job.name: family_of(job) for job in jobs}
        known = {"planned": tuple(families), "families": families, "place": place}
        return self.model_copy(update=known)

    def with_result(self, result: JobResult) -> "Journal":
        """Return the journal after a job ended; of a job that ran once more, the last result counts."""
        result = result.model_copy(update={"family": self.families.get(result.name)})
        jobs = (*(job for job in self.run.jobs if job.name != result.name), result)
        return self.model_copy(update={"run": self.run.model_copy(update={"jobs": jobs})})

    def with_run(self, **changes: object) -> "Journal":
        """Return the journal with changes to the run's record."""
        return self.model_copy(update={"run": self.run.model_copy(update=changes)})


def after_death(
    journal: Journal, started: frozenset[str], finder: str, last_sign: datetime
) -> Journal:
    """Return the journal of a run that an earlier process left, as its finder hands it over.

    Args:
        journal: As the dead run left it.
        started: Jobs whose program had been started.
        finder: Id of the run that found it.
        last_sign: When the dead run last wrote anything.
    """
    if journal.concluded:
        return journal.with_run(recovered=finder)
    ended = {result.name for result in journal.run.jobs}
    lost = [
        JobResult(
            name=name,
            family=journal.families.get(name),
            status=JobStatus.INTERRUPTED,
            cause=JobCause.INTERRUPTED,
            message="the machine or the agent died while it ran"
            if name in started
            else "the machine or the agent died before it started",
        )
        for name in journal.planned
        if name not in ended
    ]
    jobs = (*journal.run.jobs, *lost)
    whole = bool(journal.planned) and not lost
    return journal.with_run(
        jobs=jobs,
        finished=max(last_sign, journal.run.started),
        status=run_status(jobs, interrupted=not whole),
        interruption=journal.run.interruption
        or (None if whole else "the machine or the agent died"),
        recovered=finder,
    ).model_copy(update={"concluded": True})
