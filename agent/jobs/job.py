"""One job: its state, its attempts, its result."""

import asyncio
from functools import partial
from time import monotonic

from agent.base.durable import sync_file_system
from agent.base.errors import StateError, StoreError
from agent.base.logs import Log
from agent.base.threads import in_thread
from agent.config.jobsfile import Job, family_of
from agent.contract.package import JobRecord
from agent.contract.results import JobCause, JobStatus
from agent.jobs.attempt import MOST_TEXT, Tried, attempt
from agent.jobs.context import JobContext, now
from agent.jobs.plan import LEAST_SECONDS, backoff
from agent.jobs.state import pack
from agent.jobs.verdict import wants_retry

SYNC_SECONDS = 60.0
"""For the disk to take what it has not taken yet: 7 GB at the 125 MB/s of a gp3 volume."""


KEEP_SECONDS = 5.0
"""For packing a job's state when the run is told to stop: 64 MiB of 10,000 files take two."""
MOST_NOTES = 100


async def run_job(job: Job, context: JobContext) -> JobRecord:
    """Run a job, attempt after attempt, and return its record; a job's failure raises nothing."""
    log = context.run_logger.log.bind(job=job.name)
    missing = [name for name in job.secrets if name not in context.secrets]
    if missing:
        text = f"secret {', '.join(missing)} is not in the secrets source"
        if context.secrets_unread:
            text = f"its secrets could not be read: {context.secrets_unread}"
        return unstarted(job, context, JobStatus.FAILED, text, JobCause.ERROR)
    notes, keeps_state = await _fetch_state(job, context)
    tries: list[Tried] = []
    before = len(context.run.workspaces(job.name))  # of the same job on another release
    kept, restored = context.run.saved_state(job.name), context.run.restored_state(job.name)
    while True:
        if job.rate and (missed := await _missed_turn(job, context)):
            if not tries:
                return missed
            break
        if not tries:
            kept.unlink(missing_ok=True)  # of the same job on another release
        number = before + len(tries) + 1
        bound = log.bind(attempt=number)
        bound.info("job.started", timeout=min(job.timeout, round(context.seconds_left())))
        state = kept if kept.exists() else restored
        tried = await attempt(job, number, state, context, bound)
        tries.append(tried)
        bound.info(
            "job.attempt_ended",
            status=tried.verdict.status.value,
            cause=tried.verdict.cause and tried.verdict.cause.value,
            message=tried.verdict.message,
            seconds=round((tried.record.finished - tried.record.started).total_seconds(), 3),
        )
        status = tried.verdict.status
        if keeps_state and (status is JobStatus.SUCCEEDED or keeps_checkpoint(job, status)):
            notes += await _keep_state(job, number, status, context)
        count = len(tries)
        again = wants_retry(tried.verdict, count, job.retries, browser_died=tried.browser_died)
        # Without time to run, it would take the place of why the last one failed.
        if not again or context.seconds_left() < backoff(count) + LEAST_SECONDS:
            break
        if context.stop.requested or await context.stop.pause(backoff(count)):
            break
    notes += await _make_durable(context, log)
    return _result(job, tries, notes, context)


async def _missed_turn(job: Job, context: JobContext) -> JobRecord | None:
    """Wait for the job's reservations at its sites; return its result when there is no time for them."""
    try:
        if await context.turn_of(job):
            return None
    except StateError as error:
        return unstarted(job, context, JobStatus.FAILED, str(error), JobCause.ERROR)
    if context.stop.requested:
        text = f"not started: {context.stop.reason}"
        return unstarted(job, context, JobStatus.SKIPPED, text, JobCause.INTERRUPTED)
    text = "the rate limit left no time for this job"
    return unstarted(job, context, JobStatus.FAILED, text, JobCause.TIMEOUT)


async def _fetch_state(job: Job, context: JobContext) -> tuple[list[str], bool]:
    """Fetch what earlier runs left; return notes, and whether what this one leaves may take its place."""
    try:
        await context.fetch_state(job)
    except StoreError as error:
        return [f"it ran without its state, which stays for the next run: {error}"], False
    except ValueError as error:
        return [f"it began without its state: {error}"], True
    return [], True


def keeps_checkpoint(job: Job, *attempts: JobStatus) -> bool:
    """Tell whether the next attempt, and the next run, get the state of a job that did not succeed."""
    cut = {JobStatus.INTERRUPTED, JobStatus.TIMED_OUT}.intersection(attempts)
    return bool(cut) and job.state == "checkpoint"


async def _keep_state(job: Job, number: int, status: JobStatus, context: JobContext) -> list[str]:
    """Pack an attempt's state for the next attempt or run; return notes."""
    state = context.run.workspace(job.name, number).state
    archive = context.run.saved_state(job.name)
    if status is JobStatus.SUCCEEDED:
        # An earlier attempt's: a success leaves its own state or none.
        archive.unlink(missing_ok=True)
    older = archive.exists() or context.run.restored_state(job.name).exists()
    keep = partial(pack, supersedes=older)
    began = monotonic()

    def given_up() -> bool:
        return context.stop.requested and monotonic() - began > KEEP_SECONDS

    problem = await asyncio.to_thread(keep, state, archive, context.limits.state, given_up)
    return [problem] if problem else []


async def _make_durable(context: JobContext, log: Log) -> list[str]:
    """Flush what the job wrote: after a power cut there must be no result without its files."""
    try:
        await in_thread(lambda: sync_file_system(context.run.root), seconds=SYNC_SECONDS)
    except (OSError, TimeoutError) as error:
        log.warning("job.not_durable", reason=str(error))
        return [f"a power cut before the hand-off may lose its files: {error}"]
    return []


def _result(job: Job, tries: list[Tried], notes: list[str], context: JobContext) -> JobRecord:
    last, started = tries[-1], tries[0].record.started
    notes = [*notes, *(note for tried in tries for note in tried.notes)]
    return JobRecord(
        run=context.run.run,
        name=job.name,
        family=family_of(job),
        status=last.verdict.status,
        cause=last.verdict.cause,
        message=last.record.message,
        started=started,
        finished=last.record.finished,
        seconds=max(0.0, (last.record.finished - started).total_seconds()),
        attempts=tuple(tried.record for tried in tries),
        items=last.reported.items,
        metrics=last.reported.metrics,
        notes=tuple(note[:MOST_TEXT] for note in notes[:MOST_NOTES]),
    )


def unstarted(
    job: Job, context: JobContext, status: JobStatus, text: str, cause: JobCause | None = None
) -> JobRecord:
    """Return the record of a job without an attempt: something outside of it failed, or it was not to start.

    One that was skipped without a cause was not due.
    """
    moment = now()
    return JobRecord(
        run=context.run.run,
        name=job.name,
        family=family_of(job),
        status=status,
        cause=cause,
        message=text[:MOST_TEXT],
        started=moment,
        finished=moment,
    )
