"""What packages and entries say of a job whose output is known, and of a run that closes. Decisions only.

A successful job of which some files were refused stays a success, so that the others come home; it is incomplete, and
its run is partial, so that a person looks. One of which all files were refused is empty.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter

from agent.contract.entries import MOST_OUTPUTS, MOST_PLANNED, Closed, Ended, Object, Output
from agent.contract.manifest import RunRecord
from agent.contract.package import JobRecord, RefusedFile
from agent.contract.results import JobCause, JobStatus, RunStatus

MOST_MESSAGE = 2000
MOST_NOTES = 100
DIED = "the machine or the agent died"


def with_refusals(
    job: JobRecord, listed: Sequence[RefusedFile], count: int, *, files: int
) -> JobRecord:
    """Return a job of whose output `count` entries were refused; it has so many `files` all the same."""
    if not count:
        return job
    changes: dict[str, object] = {"refused": tuple(listed)}
    if job.status is JobStatus.SUCCEEDED:
        changes["message"] = _joined(refusal_sentence(listed, count), job.message)
        if not files:
            changes |= {"status": JobStatus.EMPTY, "cause": JobCause.EXPECTATION}
    return job.model_copy(update=changes)


def refusal_sentence(listed: Sequence[RefusedFile], count: int) -> str:
    """Return a sentence about `count` refused entries, of which the first are listed."""
    files = "1 file" if count == 1 else f"{count} files"
    return f"{files} could not be delivered, such as {listed[0].path} ({listed[0].reason})"


def with_note(job: JobRecord, note: str) -> JobRecord:
    """Return a job with one more note, which is the first, so that the limit on notes does not remove it."""
    notes = (note[:MOST_MESSAGE], *job.notes)[:MOST_NOTES]
    return job.model_copy(update={"notes": notes})


def cut_short(job: JobRecord, unsent: int) -> JobRecord:
    """Return a job of which some files could not be sent before its machine was gone, with its disk."""
    shown = "1 file" if unsent == 1 else f"{unsent} files"
    text = f"{shown} of it could not be sent in time"
    if job.status is not JobStatus.SUCCEEDED:
        return with_note(job, text)
    changes = {
        "status": JobStatus.INTERRUPTED,
        "cause": JobCause.INTERRUPTED,
        "message": _joined(text, job.message),
    }
    return job.model_copy(update=changes)


def rerun(earlier: JobRecord, later: JobRecord) -> JobRecord:
    """Return a job that ran again on another release: its earlier attempts come first."""
    again = {attempt.number for attempt in later.attempts}
    before = [attempt for attempt in earlier.attempts if attempt.number not in again]
    changes = {
        "attempts": tuple(sorted([*before, *later.attempts], key=attrgetter("number")))[-1000:],
        "started": earlier.started or later.started,
        "seconds": earlier.seconds + later.seconds,
        "notes": (f"ran once more, on {later.release}", *earlier.notes, *later.notes)[:MOST_NOTES],
    }
    return later.model_copy(update=changes)


def after_death(run: str, name: str, last_sign: datetime) -> JobRecord:
    """Return a job that ran when its machine or its agent died; the last sign is when the run wrote anything."""
    return JobRecord(
        run=run,
        name=name,
        status=JobStatus.INTERRUPTED,
        cause=JobCause.INTERRUPTED,
        message=f"{DIED} while it ran",
        finished=last_sign,
    )


def entry_of(
    job: JobRecord,
    package: Object,
    outputs: Sequence[Output],
    *,
    files: int,
    size: int,
    refused: int,
    commit: str | None,
) -> Ended:
    """Return a job's entry for the batch's log.

    Args:
        job: As its package has it.
        package: Its package.
        outputs: What its earlier successes produced.
        files: How many results it has.
        size: Their bytes.
        refused: How many entries of its output were refused.
        commit: Of the release that the run's plan names.
    """
    if job.status is JobStatus.SUCCEEDED:
        outputs = (*outputs, Output(files=files, items=job.items, seconds=job.seconds))
    return Ended(
        name=job.name,
        family=job.family,
        status=job.status,
        cause=job.cause,
        message=job.message,
        files=files,
        bytes=size,
        items=job.items,
        seconds=job.seconds,
        attempts=len(job.attempts),
        refused=refused,
        release=job.commit if job.commit != commit else None,
        package=package,
        state=job.state,
        outputs=tuple(outputs[-MOST_OUTPUTS:]),
    )


def without_package(job: JobRecord) -> Ended:
    """Return the entry of a job that was skipped; of another job, what is known of it before it is sealed."""
    return Ended(
        name=job.name,
        family=job.family,
        status=job.status,
        cause=job.cause,
        message=job.message,
        items=job.items,
        seconds=job.seconds,
        attempts=len(job.attempts),
    )


def lost(job: Ended) -> Ended:
    """Return a job that ended and could not be sent before its machine was gone, with its disk."""
    changes = {
        "status": JobStatus.INTERRUPTED,
        "cause": JobCause.INTERRUPTED,
        "message": _joined("it could not be sent in time", job.message),
    }
    return job.model_copy(update=changes)


def tally(ended: Collection[Ended]) -> dict[str, int]:
    """Return how many jobs have each status, in the order of `JobStatus`."""
    statuses = [job.status for job in ended]
    return {status.value: statuses.count(status) for status in JobStatus if status in statuses}


def status_of(ended: Collection[Ended], *, interrupted: bool) -> RunStatus:
    """Return a run's status, if it had a release.

    A job that was not due (skipped without a cause) counts as neither success nor failure; one that was skipped for a
    cause, such as the failure of what it needs, did not succeed. A run is interrupted that was stopped, or died, before
    it had done what there was to do.
    """
    if interrupted:
        return RunStatus.INTERRUPTED
    due = [job for job in ended if job.status is not JobStatus.SKIPPED or job.cause is not None]
    succeeded = [job for job in due if job.succeeded]
    if len(succeeded) == len(due) and not any(job.incomplete for job in due):
        return RunStatus.SUCCEEDED
    return RunStatus.PARTIAL if succeeded else RunStatus.FAILED


def with_end(
    record: RunRecord, ended: Collection[Ended], reason: str, *, missing: bool = False
) -> RunRecord:
    """Return the record of a run with its status, for the run itself and for a later one that closes it.

    Args:
        record: It may know already what stopped the run.
        ended: Its jobs.
        reason: What stopped it, if its jobs show that it was stopped and the record does not say by what.
        missing: Whether jobs are missing that it was to do.
    """
    cut = missing or any(
        job.cause is JobCause.INTERRUPTED
        for job in ended
        if job.status in {JobStatus.INTERRUPTED, JobStatus.SKIPPED}  # a failed one may say so
    )
    interruption = record.interruption or (reason if cut else None)
    interrupted = cut or (record.release is None and interruption is not None)
    released = record.release is not None or interrupted
    status = status_of(ended, interrupted=interrupted) if released else RunStatus.FAILED
    return record.model_copy(update={"status": status, "interruption": interruption})


def closed_of(
    record: RunRecord,
    manifest: Object | None,
    pending: Sequence[str],
    recovered_by: str | None,
) -> Closed:
    """Return what the batch's log says of a run that closes."""
    return Closed(
        status=record.status,
        finished=record.finished,
        manifest=manifest,
        phases=record.phases,
        cost=record.cost,
        interruption=record.interruption,
        recovered_by=recovered_by,
        pending=tuple(pending)[:MOST_PLANNED],
        not_sent=record.not_sent,
        warnings=record.warnings,
    )


def _joined(text: str, message: str) -> str:
    return f"{text}; {message}"[:MOST_MESSAGE] if message else text[:MOST_MESSAGE]
