"""The story of the service: the history follows the bucket, a server tells of it, runs are pulled beside it."""

import asyncio
import functools
import os
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.base.errors import ExitCode, MayflyError, StoreError
from consumer.answers import Answers, Rules
from consumer.archive.follow import Look, look
from consumer.archive.reader import Reader
from consumer.archive.schema import ArchiveError
from consumer.archive.writer import Writer
from consumer.bucket import ReadOnlyBucket
from consumer.pull.hooks import Hook
from consumer.pull.place import Destination
from consumer.pull.plan import Wishes
from consumer.pull.report import Report, is_problem, lines_of
from consumer.pull.session import pull_once
from consumer.pull.watch import for_ever
from consumer.serve.files import Bridge, Files
from consumer.serve.listen import listening
from consumer.serve.logs import Log
from consumer.serve.metrics import HomeCollector
from consumer.serve.ship import Loki, Shipping, sender
from consumer.serve.state import Pulse, State
from consumer.serve.web import Application

LOOK_SECONDS = 1800.0
"""One look may take so long: a first one reads years of runs."""


@dataclass(frozen=True, slots=True)
class Pulling:
    """The pull beside the service."""

    dest: Destination
    wishes: Wishes
    hook: Hook | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a person wants of the service.

    Attributes:
        host, port: Where it listens.
        history: The database.
        interval: Seconds between looks into the bucket.
        stale_after: Seconds without a look after which it is unhealthy.
        rules: How the history is judged.
        pulling: None without a pull.
        loki: None without one.
        version: Of this program.
    """

    host: str
    port: int
    history: Path
    interval: float
    stale_after: float
    rules: Rules
    pulling: Pulling | None
    loki: Loki | None
    version: str


async def serve(bucket: ReadOnlyBucket, plan: Plan, log: Log) -> ExitCode:
    """Serve until cancelled.

    Raises:
        UsageError: The address cannot be had.
        ArchiveError: The history is not this bucket's, or cannot be written.
    """
    began = time.time()
    async with AsyncExitStack() as stack:
        # The address first: a start that fails for want of it must not have touched the history.
        listener = stack.enter_context(listening(plan.host, plan.port))
        history = _History(plan.history, bucket.identity, log)
        stack.callback(history.close)
        pulse = Pulse(began, history.writer.position().read, shipping=plan.loki is not None)
        state = State(pulse, time.time, plan.stale_after)
        reader = Reader(plan.history)
        files = Files(bucket, reader, Bridge(asyncio.get_running_loop()))
        answers = Answers(
            reader,
            bucket.name,
            plan.rules,
            clock=time.time,
            health=state.health,
            files=files.listed,
        )
        listener.serve(_application(answers, state, files, plan.version, log))
        log.info(
            "serve.listening",
            host=plan.host,
            port=listener.port,
            bucket=bucket.name,
            history=str(plan.history),
            pid=os.getpid(),
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(_follow(bucket, history, state, answers, interval=plan.interval, log=log))
        if plan.pulling is not None:
            tasks.create_task(_pull(bucket, plan.pulling, state, plan.interval, log))
        if plan.loki is not None:
            push = await asyncio.to_thread(sender, plan.loki)
            shipping = Shipping(files, reader, lambda: history.writer, push, state, log)
            tasks.create_task(shipping.for_ever(plan.interval))
    return ExitCode.DONE


def _application(
    answers: Answers, state: State, files: Files, version: str, log: Log
) -> Application:
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 -- an extra

    from consumer.page import respond  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(HomeCollector(answers.facts, lambda: state.pulse, version))
    page = functools.partial(respond, queries=answers)
    return Application(registry, state, files, page, log)


class _History:
    """The writer of the history, which begins anew when the file breaks while it is used."""

    def __init__(self, path: Path, bucket: str, log: Log) -> None:
        self._path = path
        self._bucket = bucket
        self._log = log
        self.writer = self._open()

    def _open(self) -> Writer:
        writer = Writer(self._path, self._bucket)
        if writer.anew:
            moved = {"moved_to": str(writer.aside)} if writer.aside else {}
            self._log.info("history.begins_anew", file=str(self._path), reason=writer.anew, **moved)
        return writer

    def there(self) -> Writer:
        """Return the writer.

        Raises:
            ArchiveError: Its file is gone.
        """
        if not self.writer.is_there():
            raise ArchiveError(f"the history {self._path} was removed")
        return self.writer

    def again(self) -> None:
        """Open the file once more; one that is broken is moved aside."""
        self.close()
        self.writer = self._open()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


async def _follow(
    bucket: ReadOnlyBucket,
    history: _History,
    state: State,
    answers: Answers,
    *,
    interval: float,
    log: Log,
) -> None:
    """Look into the bucket every `interval` seconds, until cancelled."""
    told = ""
    while True:
        began, problem = state.now(), ""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await look(bucket, history.there(), datetime.fromtimestamp(began, UTC))
            answers.changed()
            # Asked now, so that a scrape finds the answer, and a file that is broken where nobody writes is noticed.
            await asyncio.to_thread(answers.facts)
            _tell_look(found, log, seconds=state.now() - began)
            state.tell(last_read=state.now(), up=True, problem="", ahead=found.ahead)
        except (StoreError, TimeoutError) as error:
            problem = str(error) or f"a look took longer than {LOOK_SECONDS:g} s"
        except ArchiveError as error:
            problem = str(error)
            try:
                await asyncio.to_thread(history.again)
                state.tell(last_read=history.writer.position().read)
                answers.changed()
            except ArchiveError as still:
                problem = still.with_remedy
        if problem:
            state.tell(up=False, problem=problem)
        if problem != told:
            log.warning("bucket.failed", reason=problem) if problem else log.info("bucket.back")
        told = problem
        await asyncio.sleep(interval)


def _tell_look(found: Look, log: Log, *, seconds: float) -> None:
    for row in found.refused[:20]:
        log.warning("entry.refused", key=row.key, problem=row.problem)
    if found.runs or found.refused:
        log.info(
            "history.grew",
            runs=found.runs,
            refused=len(found.refused),
            seconds=round(seconds, 3),
        )


async def _pull(
    bucket: ReadOnlyBucket, pulling: Pulling, state: State, interval: float, log: Log
) -> None:
    """Pull every `interval` seconds, until cancelled."""

    def done(report: Report) -> None:
        for event in report.events:
            for line in lines_of(event):
                (log.warning if is_problem(event) else log.info)("pull.told", line=line)
        if report.unreachable:
            log.warning("pull.failed", reason=report.unreachable)
        elif report.exit_code is ExitCode.DONE:
            state.tell(pulled=state.now())
        with suppress(MayflyError):
            kept, _ = pulling.dest.load()
            state.tell(pull_refused=len({one.run for one in kept.refused}))

    pull = functools.partial(
        pull_once, bucket, pulling.dest, pulling.wishes, _Quiet(), hook=pulling.hook
    )
    await for_ever(pull, done, interval)


class _Quiet:
    """Watches a pull and says nothing: the report has it all."""

    def expects(self, run: str, files: int, size: int) -> None:
        """Say nothing."""

    def received(self, size: int) -> None:
        """Say nothing."""

    def told(self, event: object) -> None:
        """Say nothing."""
