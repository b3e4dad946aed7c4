"""The hook of `--exec`: the only module of a pull that starts a program."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from consumer.pull.plan import Item

HOOK_SECONDS = 600.0
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""
SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Hook:
    """A command that is run once for each job of each run that was pulled.

    Attributes:
        command: For `/bin/sh -c`: it is the person's own, and nothing from the bucket is put into it.
        environ: The environment that it adds to.
        seconds: Its limit.
        output: A descriptor for what it writes.
    """

    command: str
    environ: Mapping[str, str]
    seconds: float = HOOK_SECONDS
    output: int = 2


def environment(hook: Hook, item: Item, folder: Path) -> dict[str, str]:
    """Return what a hook sees: the person's environment, and which job of which run it is about.

    All values are numbers, names of a checked form, or the folder's own path.
    """
    return {
        **hook.environ,
        "MAYFLY_RUN_ID": item.run,
        "MAYFLY_JOB": item.job,
        "MAYFLY_PATH": str(folder),
        "MAYFLY_DEST": str(folder.parent.parent),
        "MAYFLY_STATUS": item.status,
        "MAYFLY_PARTIAL": "0" if item.succeeded else "1",
        "MAYFLY_FILES": str(item.files),
        "MAYFLY_BYTES": str(item.bytes),
    }


async def call(hook: Hook, item: Item, folder: Path) -> str:
    """Run the hook to its end; nothing of it is left behind.

    Returns:
        Why it failed; empty when it succeeded.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            SHELL,
            "-c",
            hook.command,
            env=environment(hook, item, folder),
            stdin=DEVNULL,
            stdout=hook.output,
            stderr=hook.output,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"it could not be started: {error}"
    try:
        async with asyncio.timeout(hook.seconds):
            code = await process.wait()
    except TimeoutError:
        await _end(process)
        return f"it did not end within {hook.seconds:g} s"
    except asyncio.CancelledError:
        await _end(process)
        raise
    finally:
        _signal(process, signal.SIGKILL)
    if code < 0:
        return f"signal {-code} ended it"
    return f"exit code {code}" if code else ""


async def _end(process: Process) -> None:
    """End a hook and its group, with a grace period."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()
    _signal(process, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
