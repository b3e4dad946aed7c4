"""What could not be sent before a machine was taken back, and the run that holds it: decisions, without effects.

Why it is a run of its own: docs/decisions/0087-late-files-are-a-run-of-their-own.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from agent.base.units import show_size
from agent.core.ids import run_id
from agent.core.layout import state_key
from agent.core.manifest import RunRecord, Unsent
from agent.core.results import JobCause, JobResult, JobStatus, RunStatus

NEXT = timedelta(seconds=1)
"""From a run's start to its follow-up's, so that it is the next by name and belongs to the same day."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A run whose hand-off was cut short.

    Attributes:
        run: What its manifest says.
        follow_up: The run that holds the rest.
    """

    run: RunRecord
    follow_up: RunRecord


def cut(
    run: RunRecord, unsent: Sequence[Unsent], stateless: Collection[str], entropy: bytes
) -> Cut:
    """Divide a run into what was sent in time and what follows.

    Args:
        run: The run, concluded.
        unsent: What was not sent.
        stateless: Jobs whose memory could not be sent.
        entropy: Three random bytes, for the id of the follow-up.
    """
    started = run.started + NEXT
    later = run_id(started, entropy)
    late = {file.job for file in unsent} | set(stateless)
    sizes = {name: [file.bytes for file in unsent if file.job == name] for name in late}
    jobs = tuple(_cut(job, sizes[job.name], later) if job.name in late else job for job in run.jobs)
    text = _count([file.bytes for file in unsent])
    return Cut(
        run.model_copy(
            update={
                "status": RunStatus.INTERRUPTED,
                "jobs": jobs,
                "unsent": tuple(unsent),
                "warnings": (*run.warnings, f"{text} could not be sent in time: run {later}"),
            }
        ),
        run.model_copy(
            update={
                "run_id": later,
                "started": started,
                "finished": max(started, run.finished),
                "jobs": tuple(_late(job, later) for job in run.jobs if job.name in late),
                "continues": run.run_id,
                "browser": None,
                "phases": (),
                "cost": None,
                "warnings": (),
            }
        ),
    )


def _cut(job: JobResult, sizes: Sequence[int], later: str) -> JobResult:
    text = f"{_count(sizes)} of it could not be sent in time: run {later}"
    changes: dict[str, object] = {"notes": (*job.notes, text), "state": None}
    if job.status is JobStatus.SUCCEEDED:
        changes |= {
            "status": JobStatus.INTERRUPTED,
            "cause": JobCause.INTERRUPTED,
            "message": text,
        }
    return job.model_copy(update=changes)


def _late(job: JobResult, run: str) -> JobResult:
    return job.model_copy(update={"state": state_key(job.name, run) if job.state else None})


def _count(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} files ({show_size(sum(sizes))})" if sizes else "the memory"
