"""One value from which exit code, report, notifications and last log line come. Decisions only."""

from dataclasses import dataclass

from agent.base.errors import ExitCode
from agent.contract.entries import Ended
from agent.contract.facts import RolledBack
from agent.contract.results import RunStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: The run's status, as in the bucket.
        jobs: What became of each job, as the batch's log says it.
        released: Whether a release was found that could run.
        configured: Whether the configuration that the machine was launched with could be used.
        delivered: Whether everything that ended is in the bucket.
        undelivered: Why not.
        kept: Whether a later run of this machine delivers the rest; else it is lost with the disk.
        run_id: The run's id.
        manifest: Where its manifest is; empty when it is not in the bucket.
        interruption: What asked the run to stop; empty when nothing did.
        warnings: What a person should look at.
        stood_back: Why the run did nothing, for one that stood back.
        rolled_back: The release that failed its trial in this run, if another took over.
    """

    status: RunStatus
    jobs: tuple[Ended, ...] = ()
    released: bool = True
    configured: bool = True
    delivered: bool = True
    undelivered: str = ""
    kept: bool = True
    run_id: str = ""
    manifest: str = ""
    interruption: str = ""
    warnings: tuple[str, ...] = ()
    stood_back: str = ""
    rolled_back: RolledBack | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The exit code. What needs a person most comes first: files that are not in the bucket."""
        if self.status is RunStatus.STOOD_BACK:
            return ExitCode.DONE
        if not self.delivered:
            return ExitCode.NOT_DELIVERED
        if not self.configured:
            return ExitCode.CONFIGURATION
        if not self.released:
            return ExitCode.NO_RELEASE
        return _EXIT_CODES[self.status]


_EXIT_CODES = {
    RunStatus.SUCCEEDED: ExitCode.DONE,
    RunStatus.PARTIAL: ExitCode.PARTIAL,
    RunStatus.FAILED: ExitCode.FAILED,
    RunStatus.INTERRUPTED: ExitCode.INTERRUPTED,
}
"""Exit codes of the statuses that a run gives itself."""
