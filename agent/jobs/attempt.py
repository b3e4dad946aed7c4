"""One attempt of a job: start its program, watch it, end it with all it started, judge it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from agent.base.containers import start_failure
from agent.base.errors import BrowserError, ContainerError, StoreError
from agent.base.logs import Log
from agent.base.stop import StoppedError, first
from agent.browser import open_to_browser
from agent.config.jobsfile import Job
from agent.contract.entries import Output
from agent.contract.package import Attempt
from agent.contract.results import JobCause, JobStatus
from agent.delivery.scan import open_file, read_start, scan
from agent.delivery.spool import Workspace
from agent.jobs.capture import Capture
from agent.jobs.context import JobContext, now
from agent.jobs.environment import AttemptPaths, job_environment
from agent.jobs.interface import Isolation, Launch, Running
from agent.jobs.resultfile import MAX_BYTES, ResultFile, read_result
from agent.jobs.state import unpack
from agent.jobs.verdict import (
    KILLED,
    Ended,
    Exit,
    Produced,
    Verdict,
    judge,
    not_started,
    note_on_strays,
)
from agent.jobs.worktree import WorkingDirectory

DRAIN_SECONDS = 2.0
"""For what is still in the pipe when the program and all that could be found of it is gone: 64 KiB. Only what has left
both its session and its environment can hold the pipe open; it is killed at the end of the run."""

MOST_TEXT = 2000
"""Characters of a message or a note."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt's result: what the package says of it, and what decides on another."""

    record: Attempt
    verdict: Verdict
    reported: ResultFile
    browser_died: bool
    notes: tuple[str, ...]


async def attempt(job: Job, number: int, state: Path, context: JobContext, log: Log) -> Tried:
    """Run an attempt, whose number is from 1 on, to its end; it begins with what is in the archive `state`."""
    started = now()
    space = context.run.workspace(job.name, number)
    await asyncio.to_thread(space.make)
    notes = await _restore_state(state, space, context)
    capture = Capture(space.captured, context.limits.output, context.run_logger.redactor, log)
    context.progress.started(job.name, number)
    reported, odd, produced = ResultFile(), "", Produced()
    try:
        ended = await _run_program(job, number, space, capture, context)
        reported, odd = _read_result(space.result_file, context)
        verdict, produced = await _judge(job, ended, reported, space, context)
    except BrowserError as error:
        ended = Ended(browser_died=True)
        verdict = Verdict(JobStatus.FAILED, JobCause.BROWSER, str(error))
    except StoppedError:
        ended = Ended(interrupted=True)
        verdict = judge(ended, reported, produced, job.expect)
    record = Attempt(
        number=number,
        started=started,
        finished=now(),
        status=verdict.status,
        cause=verdict.cause,
        message=verdict.message[:MOST_TEXT],
        exit_code=ended.code,
        signal=ended.signal,
        image=ended.image,
        output_bytes=capture.total,
    )
    lost = f"its output was not kept: {capture.lost}" if capture.lost else ""
    astray = note_on_strays(ended.strays, verdict, produced, has_output=job.output is not None)
    notes = (*notes, *filter(None, [odd, lost, astray]))
    return Tried(record, verdict, reported, ended.browser_died, notes)


async def _run_program(
    job: Job, number: int, space: Workspace, capture: Capture, context: JobContext
) -> Ended:
    """Run the program, with the browser when the job wants it, and return the facts of its end.

    Raises:
        BrowserError: The job wants a browser and there is none.
        StoppedError: The run was told to stop before the program could start.
    """
    if context.stop.requested:
        raise StoppedError("the run was told to stop before the program started")
    async with _browsing(job, context) as lost_browser, _working(job, space, context) as working:
        launch = _launch(job, number, space, working, context)
        ended = await _execute(launch, space, capture, job, context)
        # A job that was interrupted is judged without it, and its files are waiting.
        died = ended.code != 0 and not ended.interrupted and await lost_browser()
    tail = "\n".join(capture.tail)
    ended = replace(
        ended,
        browser_died=died,
        tail=tail,
        strays=working.strays,
        read_only=not job.in_container and not job.works_in_copy,
    )
    if ended.failure and job.in_container:
        # It may quote what the job's environment went into.
        failure = context.run_logger.redactor.text(start_failure(ended.failure, capture.tail))
        ended = replace(ended, failure=failure)
    return ended


def _isolation_of(job: Job, context: JobContext) -> Isolation:
    if job.in_container:
        # The first job of a machine that is just up would wait for this import.
        from agent.jobs.containers.isolation import Containers  # noqa: PLC0415

        return Containers(context.environ, context.run_logger.log.bind(job=job.name), context.login)
    return context.isolation


@asynccontextmanager
async def _working(
    job: Job, space: Workspace, context: JobContext
) -> AsyncIterator[WorkingDirectory]:
    """Yield the working directory: the release's own files where the program cannot change them, else a copy."""
    if _isolation_of(job, context).protects_tree and not job.works_in_copy:
        yield WorkingDirectory(context.tree)
        return
    results = space.output if job.works_in_copy else None
    async with context.trees.lend(
        context.tree, stopped=partial(context.stop.overdue, 0.0), results=results
    ) as working:
        if job.output is not None and not job.in_container:
            working.collect(job.output)
        yield working


@asynccontextmanager
async def _browsing(job: Job, context: JobContext) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Use the browser during the block; yield a function that tells whether it was lost meanwhile."""
    browser = context.browser if job.browser else None
    if browser is None:
        yield _nothing_to_lose
        return
    try:
        await context.stop.in_time(browser.ready(), context.seconds_left())
    except TimeoutError as error:
        raise BrowserError("the browser was not ready within the run's time") from error
    generation = browser.generation
    async with browser.used():
        yield lambda: browser.lost(generation)


async def _nothing_to_lose() -> bool:
    return False


async def _restore_state(archive: Path, space: Workspace, context: JobContext) -> tuple[str, ...]:
    """Unpack the state that an attempt begins with, if there is any."""
    if not archive.exists():
        return ()
    stopped = partial(context.stop.overdue, 0.0)
    problem = await asyncio.to_thread(unpack, archive, space.state, context.limits.state, stopped)
    return (problem,) if problem else ()


def _launch(
    job: Job, number: int, space: Workspace, working: WorkingDirectory, context: JobContext
) -> Launch:
    seconds = min(job.timeout, context.seconds_left())
    browser = context.browser if job.browser else None
    paths = AttemptPaths(
        run_id=context.run.run,
        batch=context.batch,
        number=number,
        deadline=int(now().timestamp() + seconds),
        output=working.path / working.output if working.output else space.output,
        state=space.state,
        home=space.home,
        result_file=space.result_file,
        downloads=_downloads(job, context) if browser and browser.shares_downloads else None,
        webdriver=browser.url if browser else None,
        programs=context.programs,
    )
    secrets = {name: context.secrets[name] for name in job.secrets}
    spec = None
    if job.in_container:
        from agent.jobs.containers.isolation import into_container  # noqa: PLC0415 -- see above

        paths, spec = into_container(job, paths, space, context.tree, working)
    return Launch(
        name=f"{job.name}-{number}",
        command=job.command or (),
        environ=job_environment(job, paths, secrets, context.environ),
        cwd=working.path,
        memory=job.memory,
        container=spec,
        writable=tuple(_writable(paths, space, working)),
        readable=(context.tree, *([context.programs.parent] if context.programs else [])),
        scratch=space.scratch,
        file=context.limits.file,
        seconds=seconds + context.limits.grace,
    )


def _writable(paths: AttemptPaths, space: Workspace, working: WorkingDirectory) -> Iterator[Path]:
    # The agent moves results from a copy to the output, into which nobody else writes then.
    yield space.output if working.output is None else working.path
    yield from (space.state, space.home, space.result_file.parent)
    if paths.downloads is not None:
        yield paths.downloads


def _downloads(job: Job, context: JobContext) -> Path:
    """Return the job's downloads folder; the browser, which may be another user, can write to it."""
    folder = context.run.downloads / job.name
    open_to_browser(folder)
    return folder


async def _execute(
    launch: Launch, space: Workspace, capture: Capture, job: Job, context: JobContext
) -> Ended:
    """Run the program until it ends, reaches its limit, or the run stops; end all that it started."""
    seconds = min(job.timeout, context.seconds_left())
    drain: asyncio.Task[None] | None = None
    try:
        async with (
            context.delivery.watch(job.name, space.output),
            _isolation_of(job, context).start(launch) as running,
        ):
            drain = asyncio.create_task(capture.drain(running.output))
            return await _watch(running, seconds, job, context)
    except ContainerError as error:
        failure = f"{error}; {error.remedy}" if error.remedy else str(error)
        return Ended(failure=failure, failed_by=JobCause.ERROR)
    except OSError as error:
        what = "its container" if job.in_container else launch.command[0]
        # What cannot be executed has a number; what is not known of a program that ran has none.
        ran = drain is not None and error.errno is None
        failure = f"it ran, and {error}" if ran else f"{what} could not be started: {error}"
        return Ended(failure=failure, failed_by=not_started(error))
    finally:
        if drain is not None:
            await asyncio.wait([drain], timeout=DRAIN_SECONDS)
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)


async def _watch(running: Running, seconds: float, job: Job, context: JobContext) -> Ended:
    """Wait for the program; at its limit, or when the run stops, send SIGTERM and wait for its grace."""
    waiting, began = asyncio.ensure_future(running.wait()), monotonic()
    try:
        which = await first(asyncio.wait([waiting]), context.stop.wait(), seconds=seconds)
        if which == 1:
            ran = monotonic() - began
            more = min(await context.seconds_to_go_on(job.name, ran), seconds - ran)
            await asyncio.wait([waiting], timeout=max(more, 0.0))
            which = 0 if waiting.done() else 1
        if which == 0:
            return _ended(waiting.result(), limit=seconds)
        running.terminate()
        await asyncio.wait([waiting], timeout=await context.grace())
        last = _exit_after_sigterm(waiting)
        return _ended(last, timed_out=which is None, interrupted=which == 1, limit=seconds)
    finally:
        waiting.cancel()


def _exit_after_sigterm(waiting: "asyncio.Future[Exit]") -> Exit:
    """Return how a program ended that was told to: why it had to is known, also where nobody can say how it did.

    What is still there after its grace gets SIGKILL with the end of its context.
    """
    if waiting.done() and not isinstance(waiting.exception(), OSError | ContainerError):
        return waiting.result()
    return Exit(None, KILLED)


def _ended(end: Exit, **more: Any) -> Ended:
    return Ended(**asdict(end) | more)


def _read_result(path: Path, context: JobContext) -> tuple[ResultFile, str]:
    try:
        with open_file(path.parent, path.name) as (stream, _):
            text = read_start(stream, MAX_BYTES + 1)
    except FileNotFoundError:
        return ResultFile(), ""
    except OSError as error:
        return ResultFile(), f"its result file could not be read: {str(error)[:200]}"
    return read_result(text, context.run_logger.redactor)


async def _judge(
    job: Job, ended: Ended, reported: ResultFile, space: Workspace, context: JobContext
) -> tuple[Verdict, Produced]:
    found = await asyncio.to_thread(scan, space.output)
    produced = Produced(found.files, found.bytes, found.refused[:1], found.refusals)
    past: Sequence[Output] = ()
    if job.expect.drop is not None:
        try:
            past = await context.past_of(job.name)
        except StoreError as error:
            context.run_logger.log.warning("job.past_unknown", job=job.name, reason=str(error))
    return judge(ended, reported, produced, job.expect, past), produced
