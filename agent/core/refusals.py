"""What of a job's output could not be handed over, and what that makes of a run. Decisions only.

A job that succeeded and of whose files some were refused stays a success, so that the others come home; but it is
incomplete, and its run is partial: somebody has to look. One of which all files were refused is empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.manifest import RunRecord
from agent.core.outcome import run_status
from agent.core.results import JobCause, JobResult, JobStatus, RefusedFile, RunStatus


@dataclass(frozen=True, slots=True)
class Refusals:
    """Entries of a job's output that were refused.

    Attributes:
        listed: The first of them.
        count: How many there are.
    """

    listed: tuple[RefusedFile, ...] = ()
    count: int = 0

    @property
    def text(self) -> str:
        """A sentence about them; empty without any."""
        if not self.count:
            return ""
        first = f"{self.listed[0].path} ({self.listed[0].reason})"
        files = "1 file" if self.count == 1 else f"{self.count} files"
        return f"{files} could not be handed over, such as {first}"


NO_REFUSALS = Refusals()


def with_refusals(run: RunRecord, refused: Mapping[str, Refusals]) -> RunRecord:
    """Return a concluded run that tells what was refused of its jobs' output, whose files are counted already."""
    jobs = tuple(_told(job, refused.get(job.name, NO_REFUSALS)) for job in run.jobs)
    changes: dict[str, object] = {"jobs": jobs}
    if run.status in {RunStatus.SUCCEEDED, RunStatus.PARTIAL}:
        changes["status"] = run_status(jobs, interrupted=False)
    return run.model_copy(update=changes)


def _told(job: JobResult, refusals: Refusals) -> JobResult:
    changes: dict[str, object] = {"refused": refusals.listed, "refused_files": refusals.count}
    if job.status is JobStatus.SUCCEEDED and refusals.count:
        message = f"{refusals.text}; {job.message}" if job.message else refusals.text
        changes["message"] = message[:2000]
        if not job.files:
            changes |= {"status": JobStatus.EMPTY, "cause": JobCause.EXPECTATION, "state": None}
    return job.model_copy(update=changes)
