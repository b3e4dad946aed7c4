"""What people are told of a run that ended: a line and a few more. Decisions only."""

from dataclasses import dataclass

from agent.contract.entries import Ended
from agent.contract.results import JobStatus
from agent.notify.outcome import Outcome

MAX_BYTES = 10_000
"""The least that any Healthchecks server keeps of a ping's body (https://healthchecks.io/docs/http_api/)."""
MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Message:
    """A message.

    Attributes:
        title: One line.
        text: At most `MAX_BYTES` of UTF-8.
    """

    title: str
    text: str


def compose(outcome: Outcome, run_id: str) -> Message:
    """Return the news of a run."""
    due = [
        job for job in outcome.jobs if job.status is not JobStatus.SKIPPED or job.cause is not None
    ]
    succeeded = sum(job.succeeded for job in due)
    title = f"mayfly: {outcome.status.value}, {succeeded} of {len(due)} jobs"
    if not outcome.configured:
        title = "mayfly: failed, the configuration has faults"
    elif not outcome.released:
        title = "mayfly: failed, no release could run"
    if not outcome.delivered:
        title += ", not delivered"
    lines = [f"run {run_id}, exit code {int(outcome.exit_code)}"]
    if not outcome.delivered:
        lines.append(f"the files wait on the machine: {outcome.undelivered}")
    lines += [_line(job) for job in due if job.incomplete or not job.succeeded]
    if outcome.manifest:
        lines.append(outcome.manifest)
    return Message(title, _shortened("\n".join(lines)))


def _line(job: Ended) -> str:
    cause = f" ({job.cause.value})" if job.cause else ""
    message = f": {job.message[:MAX_MESSAGE]}" if job.message else ""
    status = "incomplete" if job.incomplete else job.status.value
    return f"{job.name} {status}{cause}{message}"


def _shortened(text: str) -> str:
    return text.encode(errors="replace")[:MAX_BYTES].decode(errors="ignore")
