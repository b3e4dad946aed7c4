"""One value from which exit code, manifest status and last log line come."""

from collections.abc import Collection
from dataclasses import dataclass

from agent.base.errors import ExitCode
from agent.core.results import JobResult, JobStatus, RunStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: The run's status, as in its manifest.
        jobs: What became of each job.
        released: Whether a release was found that could run.
        configured: Whether the configuration that the machine was launched with could be used.
        delivered: Whether the run was committed to the bucket; otherwise it waits in the spool.
        undelivered: Why not.
        run_id: The run's id.
        manifest: Where its manifest is; empty when it is not in the bucket.
        interruption: What asked the run to stop; empty when nothing did.
        warnings: What a person should look at.
        stood_back: Why the run did nothing, because another machine has its slot; empty for one that worked.
    """

    status: RunStatus
    jobs: tuple[JobResult, ...] = ()
    released: bool = True
    configured: bool = True
    delivered: bool = True
    undelivered: str = ""
    run_id: str = ""
    manifest: str = ""
    interruption: str = ""
    warnings: tuple[str, ...] = ()
    stood_back: str = ""

    @property
    def word(self) -> str:
        """The status, and what a run that stood back has instead of one."""
        return "stood_back" if self.stood_back else self.status.value

    @property
    def exit_code(self) -> ExitCode:
        """The exit code. What needs a person most comes first: files that are not in the bucket."""
        if self.stood_back:
            return ExitCode.DONE
        if not self.delivered:
            return ExitCode.NOT_DELIVERED
        if not self.configured:
            return ExitCode.CONFIGURATION
        if not self.released:
            return ExitCode.NO_RELEASE
        return {
            RunStatus.SUCCEEDED: ExitCode.DONE,
            RunStatus.PARTIAL: ExitCode.PARTIAL,
            RunStatus.FAILED: ExitCode.FAILED,
            RunStatus.INTERRUPTED: ExitCode.INTERRUPTED,
        }[self.status]


def run_status(
    results: Collection[JobResult], *, interrupted: bool, released: bool = True
) -> RunStatus:
    """Return a run's status.

    A job that was not due today (skipped without a cause) counts as neither success nor failure; one that was skipped
    for a cause, such as the failure of what it needs, did not succeed. One that is incomplete succeeded, and its run is
    partial all the same: somebody has to look.
    """
    if not released:
        return RunStatus.FAILED
    if interrupted:
        return RunStatus.INTERRUPTED
    due = [
        result
        for result in results
        if result.status is not JobStatus.SKIPPED or result.cause is not None
    ]
    succeeded = [result for result in due if result.status is JobStatus.SUCCEEDED]
    if len(succeeded) == len(due) and not any(result.incomplete for result in due):
        return RunStatus.SUCCEEDED
    return RunStatus.PARTIAL if succeeded else RunStatus.FAILED


def proves_release(results: Collection[JobResult]) -> bool:
    """Tell whether a release has shown that it works: a job of it succeeded."""
    return any(result.status is JobStatus.SUCCEEDED for result in results)
