"""The service: it polls the bucket, answers requests from what it knows, and pulls files beside that."""

import asyncio
import json
import os
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from agent.base.errors import ExitCode, MayflyError, StoreError
from agent.contract.ids import Batch as Id
from agent.contract.layout import LogKey, parse_key
from consumer.bucket import ReadOnlyBucket
from consumer.follow import Poll, poll
from consumer.home import Home, Known
from consumer.judge import Rules
from consumer.model import History
from consumer.objects import Objects
from consumer.pull.folder import Destination
from consumer.pull.hooks import Hook
from consumer.pull.plan import Wish
from consumer.pull.progress import Lines
from consumer.pull.report import Installed, Report, is_problem, lines_of
from consumer.pull.session import pull
from consumer.store import HistoryError, Store
from consumer.web.app import Site, application
from consumer.web.logs import Log
from consumer.web.metrics import HomeCollector
from consumer.web.server import listening, serving

MOST_DAYS = timedelta(days=400)
"""Of which runs are kept in memory: older ones change nothing that is shown but the costs of long ago."""
JUDGE_AFTER = timedelta(seconds=20)
"""After which the state is judged again when nothing is new."""
POLL_SECONDS = 1800.0
"""One poll may take so long: a first one reads years of runs."""
LOG_AGE = timedelta(days=1)
"""Parts of runs' logs that arrived earlier are not printed: a new history would print years of them."""
MOST_PART_BYTES = 4 * 1024**2
POLLED, PULLED = "polled", "pulled"
SEEN = 20
"""Of a kind that the log names one by one."""


@dataclass(frozen=True, slots=True)
class Pulling:
    """The pull beside the service."""

    destination: Destination
    wish: Wish
    hook: Hook | None


@dataclass(frozen=True, slots=True)
class Options:
    """What a person wants of the service.

    Attributes:
        hosts: Names by which it is called.
        interval: Seconds between polls.
        stale_after: Seconds without a poll after which it is unhealthy.
        rules: How the history is judged, at whatever time.
        pulling: None without a pull.
        print_logs: Is given the lines of runs' logs, when somebody wants them.
    """

    host: str
    port: int
    hosts: Collection[str]
    history: Path
    interval: float
    stale_after: float
    rules: Rules
    pulling: Pulling | None
    print_logs: Callable[[str], None] | None
    version: str


async def serve(bucket: ReadOnlyBucket, options: Options, log: Log) -> ExitCode:
    """Serve until cancelled.

    Raises:
        UsageError: The address cannot be had.
        HistoryError: The history is not this bucket's, or cannot be written.
    """
    async with AsyncExitStack() as stack:
        # The address first: a start that fails for want of it must not have touched the history.
        listener = stack.enter_context(listening(options.host, options.port))
        service = _Service(bucket, options, log)
        stack.callback(service.close)
        await stack.enter_async_context(serving(service.application(), listener))
        log.info(
            "serve.listening",
            host=options.host,
            port=listener.getsockname()[1],
            bucket=bucket.name,
            history=str(options.history),
            pid=os.getpid(),
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(service.follow())
        if options.pulling is not None:
            tasks.create_task(service.pull(options.pulling))
    return ExitCode.DONE


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _now() -> datetime:
    return datetime.now(UTC)


class _Service:
    def __init__(self, bucket: ReadOnlyBucket, options: Options, log: Log) -> None:
        self._bucket = bucket
        self._options = options
        self._log = log
        self._store = self._opened()
        now = _now()
        known = Known.of(History(), replace(options.rules, now=now))
        self.home = Home(bucket.name, known, now, options.stale_after)
        self._objects = Objects(bucket, self._store)
        self._polled = asyncio.Event()

    def _opened(self) -> Store:
        store = Store.open(self._options.history, self._bucket.identity, _now())
        if store.damage:
            aside = str(store.damage.aside)
            self._log.warning("history.damaged", reason=store.damage.problem, moved_to=aside)
        self._inode = _inode(self._options.history)
        return store

    def close(self) -> None:
        """Close the history."""
        self._store.close()

    def application(self) -> ASGIApp:
        """Return what answers requests."""
        registry = CollectorRegistry()
        registry.register(HomeCollector(self.home, self._options.version))
        ProcessCollector(registry=registry)
        site = Site(self.home, self._objects, registry)
        return application(site, self._options.hosts, self._log)

    async def follow(self) -> None:
        """Poll and judge every `interval` seconds, until cancelled."""
        told = ""
        await self._judge_what_is_there()
        while True:
            problem, more = "", False
            try:
                more = await self._poll()
                self.home.up = True
            except (StoreError, TimeoutError) as error:
                problem = str(error) or f"a poll took longer than {POLL_SECONDS:g} s"
                # Nothing is judged: what came meanwhile, nobody at home knows.
                self.home.up = False
            except HistoryError as error:
                # Of the bucket it tells nothing.
                self.home.history_up = False
                problem = await self._open_again(error) or error.with_remedy
            self.home.problem = problem
            self.home.counts.poll_failures += bool(problem)
            if problem != told:
                log = self._log
                log.warning("poll.failed", reason=problem) if problem else log.info("poll.works")
            told = problem
            self._polled.set()
            if not more:
                await asyncio.sleep(self._options.interval)

    async def _poll(self) -> bool:
        """Poll once; return whether there is more."""
        if _inode(self._options.history) != self._inode:
            raise HistoryError(f"the history {self._options.history} was removed, or replaced")
        now = _now()
        self.home.counts.polls += 1
        async with asyncio.timeout(POLL_SECONDS):
            found = await poll(self._bucket, self._store, now)
        self.home.counts.entries += found.entries
        self._tell(found)
        if self._options.print_logs is not None:
            await self._print(now - LOG_AGE, self._options.print_logs)
        if not found.more:
            await asyncio.to_thread(self._store.mark, POLLED, now)
            # Not before: where nothing can be written, much can still be opened and read.
            self.home.read, self.home.history_up = now, True
        # Time goes on as well, and what is due is missed: but not by the second. A clock that was wrong is set back.
        if found.looked or abs(now - self.home.known.judged.now) >= JUDGE_AFTER:
            await self._judge(now)
        return found.more

    async def _judge(self, now: datetime) -> None:
        def known() -> Known:
            history = self._store.history(now - MOST_DAYS, packages=False)
            return Known.of(history, replace(self._options.rules, now=now))

        self.home.known = await asyncio.to_thread(known)

    async def _judge_what_is_there(self) -> None:
        try:
            now, read = _now(), await asyncio.to_thread(self._store.marked, POLLED)
            self.home.read = read and min(read, now)
            self.home.changes = await asyncio.to_thread(self._store.change_sums)
            await self._judge(self.home.read or now)
        except HistoryError as error:
            self.home.history_up, self.home.problem = False, error.with_remedy

    async def _open_again(self, failed: HistoryError) -> str:
        """Open the history once more: one that is damaged is moved aside, and filled again. Return why it cannot be.

        While the disk refuses, and the file is the same, that which is open stays.
        """
        if failed.is_of_the_disk and _inode(self._options.history) == self._inode:
            return ""
        # First: two of one process would take each other's locks away.
        await asyncio.to_thread(self._store.close)
        try:
            store = await asyncio.to_thread(self._opened)
        except HistoryError as error:
            return error.with_remedy
        self._store = store
        self._objects.use(store)
        await self._judge_what_is_there()
        return ""

    def _tell(self, found: Poll) -> None:
        for key, reason in [*found.invalid.items()][:SEEN]:
            self._log.warning("entry.invalid", key=key, reason=reason)
        for batch, reason in found.failed[:SEEN]:
            self._log.warning("batch.failed", batch=f"{batch.schedule}/{batch.name}", reason=reason)
        if found.entries:
            batches = [f"{one.schedule}/{one.name}" for one in found.looked]
            self._log.info("history.grew", entries=found.entries, batches=batches[:SEEN])

    # Logs of runs.

    async def _print(self, since: datetime, say: Callable[[str], None]) -> None:
        """Print what is new of runs' logs; what cannot be read or printed now stays in the bucket."""
        parts = await asyncio.to_thread(self._store.new_log_parts, since)
        for _, part in sorted(parts, key=lambda one: (one[0], one[1].key)):
            key = parse_key(part.key)
            if not isinstance(key, LogKey):
                continue
            try:
                text = await self._objects.end(part, MOST_PART_BYTES)
                lines = text.content.decode("utf-8", "replace").splitlines()
                if lines:
                    printed = "\n".join(printed_line(key.run, line) for line in lines)
                    # In a thread: whoever reads what is printed may be slow.
                    await asyncio.to_thread(say, printed)
            except (MayflyError, OSError) as error:  # nobody reads it any more, or a disk is full
                self._log.warning("log.skipped", key=part.key, reason=str(error))

    # The pull.

    async def pull(self, pulling: Pulling) -> None:
        """Pull after each poll, until cancelled: all that is wanted at first, then what has news."""
        home = self.home
        home.pulls = True
        home.pulled = await self._pulled_before()
        last: Report | None = None
        store = self._store
        while True:
            await self._polled.wait()
            self._polled.clear()
            if home.read is None or home.problem:
                continue
            if store is not self._store:
                # It was opened again, and what it was filled with is not told.
                store, last = self._store, None
            try:
                news = await asyncio.to_thread(store.news)
            except HistoryError:  # told by the poll
                continue
            # While there are problems the folder is looked into: another pull may have solved them.
            if last is not None and not (news or last.waiting or home.problems):
                home.note_pull(Report(), _now())
            else:
                last = await self._pull(pulling, news, last)
            if home.ended == home.pulled and home.pulled is not None:
                with suppress(HistoryError):
                    await asyncio.to_thread(self._store.mark, PULLED, home.pulled)

    async def _pulled_before(self) -> datetime:
        """Return since when the alert on a pull that stands still counts."""
        try:
            before = await asyncio.to_thread(self._store.marked, PULLED)
            if before is None:
                await asyncio.to_thread(self._store.mark, PULLED, self.home.began)
        except HistoryError:
            before = None
        return before or self.home.began

    async def _pull(self, pulling: Pulling, news: set[Id], last: Report | None) -> Report | None:
        """Pull what is new and what the last pull left to do, or all; return what that left, None for everything."""
        try:
            report = await pull(
                self._bucket,
                self._store,
                pulling.destination,
                pulling.wish,
                Lines(lambda _line, _problem: None),  # the report has it all
                hook=pulling.hook,
                batches=None if last is None else news | last.waiting,
                untidy=() if last is None else last.untidy,
            )
        except MayflyError as error:
            # Another pull holds the folder, or the folder is gone: nothing was looked at.
            self.home.note_failed_pull(error, _now())
            self._log.warning("pull.failed", reason=str(error))
            return None
        for event in report.events:
            for line in lines_of(event):
                (self._log.warning if is_problem(event) else self._log.info)("pull.told", line=line)
        if report.unreachable:
            self._log.warning("pull.failed", reason=report.unreachable)
        self.home.note_pull(report, _now())
        if any(isinstance(event, Installed) for event in report.events):
            with suppress(HistoryError):  # told by the next poll
                self.home.changes = await asyncio.to_thread(self._store.change_sums)
        return replace(report, events=())  # which may be years of them


def printed_line(run: str, line: str) -> str:
    """Return a line of a run's log with the run in it, as JSON, whatever it was."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        event = {"event": line}
    event.pop("run_id", None)
    return json.dumps({**event, "run": run}, ensure_ascii=True)
