"""Polls and pulls, once or again and again, and ends in order when it is told to."""

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Protocol

from agent.base.errors import ExitCode, MayflyError, StoreError
from agent.contract.ids import Batch
from consumer.bucket import ReadOnlyBucket
from consumer.follow import Poll, poll
from consumer.pull.report import Note, Report, Watcher
from consumer.pull.session import UnknownError
from consumer.store import Store

Done = Callable[[Report], None]


class Pull(Protocol):
    """`pull` with everything decided but what it looks at."""

    def __call__(
        self,
        *,
        batches: Collection[Batch] | None,
        untidy: Collection[str] = (),
        unread: Mapping[Batch, str],
    ) -> Coroutine[None, None, Report]:
        """Do it."""


async def until_stopped(work: Coroutine[None, None, ExitCode], *, stopped: ExitCode) -> ExitCode:
    """Return what the work returns, or `stopped` when SIGTERM or SIGINT ended it first.

    What was under way is cancelled, a hook is ended with its group, and what was staged is kept.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def once(bucket: ReadOnlyBucket, store: Store, pull: Pull, done: Done) -> ExitCode:
    """Poll and pull, and return the exit code."""
    try:
        found = await _poll(bucket, store)
    except StoreError as error:
        report = Report(unreachable=error.with_remedy)
    except asyncio.CancelledError:
        done(Report(stopped=True))
        raise
    else:
        report = await pull(batches=None, unread=dict(found.failed))
    done(report)
    return report.exit_code


async def for_ever(
    bucket: ReadOnlyBucket,
    store: Store,
    pull: Pull,
    watcher: Watcher,
    done: Done,
    *,
    seconds: float,
) -> ExitCode:
    """Poll every `seconds`, counted from the end of a pull to the next poll, until cancelled; pull what is new.

    An expected failure ends one pull, not the watch. What was told before is told by the first.
    """
    batches: Collection[Batch] | None = None
    untidy: Collection[str] = ()
    while True:
        try:
            found = await _poll(bucket, store)
            news = await asyncio.to_thread(store.news)
            if batches is not None:
                batches = {*batches, *news}
            if batches is None or batches or untidy or found.failed:
                report = await pull(batches=batches, untidy=untidy, unread=dict(found.failed))
                batches, untidy = report.waiting, report.untidy
                done(report)
        except UnknownError:
            raise
        except StoreError as error:
            done(Report(unreachable=error.with_remedy))
        except MayflyError as error:
            note = Note(error.with_remedy, fault=True)
            watcher.told(note)
            done(Report((note,)))
        await asyncio.sleep(seconds)


async def _poll(bucket: ReadOnlyBucket, store: Store) -> Poll:
    """Poll until all is known, since what is wanted, and what is worth keeping, depends on it; return the last poll."""
    while (found := await poll(bucket, store, datetime.now(UTC))).more:
        pass
    return found
