"""Pulls again and again, and ends in order when it is told to."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from agent.base.errors import ExitCode, MayflyError
from consumer.pull.report import Note, Report

Done = Callable[[Report], None]


class Pull(Protocol):
    """A pull with everything but `remind` decided: whether to tell again of what was refused earlier."""

    def __call__(self, *, remind: bool) -> Awaitable[Report]:
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


async def once(pull: Pull, done: Done) -> ExitCode:
    """Pull, and return the exit code."""
    report = await pull(remind=True)
    done(report)
    return report.exit_code


async def for_ever(pull: Pull, done: Done, seconds: float) -> ExitCode:
    """Pull every `seconds`, counted from the end of a pull to the begin of the next, until cancelled.

    An expected failure ends one pull, not the watch. What was refused before is told by the first.
    """
    remind = True
    while True:
        try:
            report = await pull(remind=remind)
            remind = False
        except MayflyError as error:
            report = Report((Note(str(error), fault=True),))
        done(report)
        await asyncio.sleep(seconds)
