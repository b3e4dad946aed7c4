"""The message about a run that ended: a title and a few lines. Decisions only."""

from dataclasses import dataclass

from agent.base.errors import ExitCode
from agent.contract.entries import Ended
from agent.contract.results import JobStatus
from agent.notify.outcome import Outcome

MAX_BYTES = 10_000
"""Bytes of a ping's body that every Healthchecks server keeps (https://healthchecks.io/docs/http_api/)."""
MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Message:
    """A title of one line, and a text of at most `MAX_BYTES` of UTF-8."""

    title: str
    text: str


def concerns_people(outcome: Outcome) -> bool:
    """Tell whether people are notified: the run did not succeed, or it did on the last good release."""
    return outcome.exit_code is not ExitCode.DONE or outcome.rolled_back is not None


def compose(outcome: Outcome, run_id: str) -> Message:
    """Return the message about a run."""
    due = [
        job for job in outcome.jobs if job.status is not JobStatus.SKIPPED or job.cause is not None
    ]
    succeeded = sum(job.succeeded for job in due)
    title = f"mayfly: {outcome.status.value}, {succeeded} of {len(due)} jobs"
    if not outcome.configured:
        title = "mayfly: failed, the configuration has faults"
    elif not outcome.released:
        title = "mayfly: failed, no release could run"
    back = outcome.rolled_back
    if back is not None:
        title += f", {back.ref} rolled back"
    if not outcome.delivered:
        title += ", not delivered"
    lines = [f"run {run_id}, exit code {int(outcome.exit_code)}"]
    if not outcome.delivered:
        fate = "wait on the machine" if outcome.kept else "are lost with the machine"
        lines.append(f"the files {fate}: {outcome.undelivered}")
    if back is not None:
        lines.append(f"release {back.ref} failed its trial: {back.reason[:MAX_MESSAGE]}")
    lines += [_line(job) for job in due if job.incomplete or not job.succeeded]
    if outcome.manifest:
        lines.append(outcome.manifest)
    text = "\n".join(lines).encode(errors="replace")[:MAX_BYTES].decode(errors="ignore")
    return Message(title, text)


def _line(job: Ended) -> str:
    cause = f" ({job.cause.value})" if job.cause else ""
    message = f": {job.message[:MAX_MESSAGE]}" if job.message else ""
    status = "incomplete" if job.incomplete else job.status.value
    return f"{job.name} {status}{cause}{message}"
