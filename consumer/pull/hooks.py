"""The hook of `--exec`: the only module of a pull that starts a program."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.base.processes import signal_group, started
from consumer.pull.plan import Item

GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A command that is run once for each job of each run that was pulled.

    Attributes:
        command: For `/bin/sh -c`: it is the person's own, and nothing from the bucket is put into it.
        environ: The environment that it adds to.
        seconds: Its limit.
    """

    command: str
    environ: Mapping[str, str]
    seconds: float


async def call(hook: Hook, item: Item, folder: Path, changes: str) -> str:
    """Run the hook to its end; nothing of it is left behind. What it writes goes to stderr.

    It sees the person's environment, and which job of which run it is about: numbers, names of a checked form, or the
    folder's own path.

    Args:
        hook: The hook.
        item: What was installed.
        folder: Where.
        changes: How it differs from the run before; empty when there was none.

    Returns:
        Why it failed; empty when it succeeded.
    """
    environ = {
        **hook.environ,
        "MAYFLY_RUN_ID": item.run,
        "MAYFLY_JOB": item.job,
        "MAYFLY_PATH": str(folder),
        "MAYFLY_DEST": str(folder.parent.parent),
        "MAYFLY_STATUS": item.status,
        "MAYFLY_PARTIAL": "0" if item.succeeded else "1",
        "MAYFLY_FILES": str(item.files),
        "MAYFLY_BYTES": str(item.bytes),
        "MAYFLY_CHANGES": changes,
    }
    try:
        async with started(["/bin/sh", "-c", hook.command], environ=environ, output=2) as process:
            try:
                async with asyncio.timeout(hook.seconds):
                    code = await process.wait()
            finally:
                if process.returncode is None:
                    signal_group(process.pid, signal.SIGTERM)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(GRACE_SECONDS):
                            await process.wait()
    except TimeoutError:
        return f"it did not end within {hook.seconds:g} s"
    except (OSError, ValueError) as error:
        return f"it could not be started: {error}"
    if code < 0:
        return f"signal {-code} ended it"
    return f"exit code {code}" if code else ""
