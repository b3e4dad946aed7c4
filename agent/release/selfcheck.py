"""A new release's self-check: the imports at the start of its jobs' programs are executed as the jobs will be.

It is the release's own code, so it runs in the jobs' isolation, without secrets, and for a bounded time.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from agent.base.errors import ReleaseRefused
from agent.base.regular import open_regular
from agent.config.jobsfile import Job
from agent.jobs.environment import FALLBACK_PATH
from agent.jobs.interface import Isolation, Launch, Running
from agent.jobs.verdict import Exit
from agent.release.context import ReleaseContext
from agent.release.programs import Entry, entry_of, is_python
from agent.release.store import Installed

IMPORTS = Path(__file__).with_name("imports.py")
KEEP_BYTES = 64 * 1024
_SCRIPT_HEAD = 256

_Start = tuple[str, tuple[tuple[str, str], ...]]
"""How programs start: interpreter and environment."""


async def self_check(
    release: Installed, context: ReleaseContext, isolation: Callable[[], Awaitable[Isolation]]
) -> None:
    """Return when the programs of a release's jobs import what they need.

    Raises:
        ReleaseRefused: They do not, or they took too long (`check`; every fault is in the message), or this machine
            could not start it, or let it come to its end (`install`).
    """
    faults: list[str] = []
    left = context.settings.check_timeout
    try:
        for start, jobs in _groups(release, context.environ).items():
            found, took = await _faults(start, jobs, release, context, await isolation(), left=left)
            faults += found
            left -= took
    except OSError as error:  # not the release's fault, so that it is tried again
        raise ReleaseRefused("install", f"its self-check could not be started: {error}") from error
    if faults:
        raise ReleaseRefused("check", "; ".join(faults), remedy="run its jobs before you tag it")
    context.log.info("release.self_checked", ref=release.ref, commit=release.commit)


async def _faults(
    start: _Start,
    jobs: Mapping[Entry, str],
    release: Installed,
    context: ReleaseContext,
    isolation: Isolation,
    *,
    left: float,
) -> tuple[list[str], float]:
    """Return what is wrong with some jobs, and how many of the seconds `left` their programs took."""
    interpreter, env = start
    word = secrets.token_hex(16)
    entries = list(jobs)
    launch = Launch(
        name=f"self-check-{secrets.token_hex(2)}",
        command=(
            *(interpreter, "-c", IMPORTS.read_text("utf-8"), word),
            json.dumps([asdict(entry) for entry in entries]),
        ),
        environ={
            "PATH": _path(release, context.environ),
            "HOME": "/nonexistent",  # nothing of this computer's users, and nothing to leave behind
            "LANG": context.environ.get("LANG", "C.UTF-8"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **dict(env),
            # By these, a killed run's leftovers are found.
            "MAYFLY_RUN_ID": context.memory.run,
            "MAYFLY_JOB": "self-check",
        },
        cwd=release.tree,
        readable=(release.tree, *([release.programs.parent] if release.programs else [])),
        seconds=context.settings.check_timeout,
    )
    # The release's time begins here: how long the machine takes to start anything is not its fault.
    async with isolation.start(launch) as running:
        since = monotonic()
        try:
            async with asyncio.timeout(left) as limit:
                said, ended = await _said(running)
        except TimeoutError as error:
            if not limit.expired():
                raise
            seconds = context.settings.check_timeout
            reason = f"its self-check did not end within {seconds:g} s"
            raise ReleaseRefused("check", reason) from error
        took = monotonic() - since
    return _judged(said, ended, jobs, word), took


def _judged(said: str, ended: Exit, jobs: Mapping[Entry, str], word: str) -> list[str]:
    """Return what is wrong with jobs, from what their self-check said after the word, and how it ended."""
    entries = list(jobs)
    line = next((line for line in said.splitlines() if line.startswith(f"{word} ")), None)
    if line is None:
        words = " ".join(said.split())[-300:]
        if ended.out_of_memory or ended.out_of_disk or ended.signal == signal.SIGKILL:
            raise ReleaseRefused("install", f"this machine ended its self-check: {words}")
        return [f"its self-check ended early: {words}"]
    problems = _problems(line.removeprefix(f"{word} "), len(entries))
    if problems is None:
        return [f"its self-check gave an invalid answer: {line[-300:]}"]
    return [
        f"job {jobs[entry]}: {problem}"
        for entry, problem in zip(entries, problems, strict=True)
        if problem
    ]


def _problems(text: str, count: int) -> list[str] | None:
    """Parse the check's answer, a problem for each program; None if it is invalid: the release may have written it."""
    try:
        found = json.loads(text)
        if not isinstance(found, list) or len(found) != count:
            return None
        # JSON can escape half a character, which no manifest could hold.
        return [str(each).encode(errors="replace").decode() if each else "" for each in found]
    except (ValueError, RecursionError):
        return None


def _groups(release: Installed, environ: Mapping[str, str]) -> dict[_Start, dict[Entry, str]]:
    """Return the first job of each program, by how it starts."""
    found: dict[_Start, dict[Entry, str]] = {}
    for job, interpreter, entry in _entries(release, environ):
        start = interpreter, tuple(sorted(job.env.items()))
        found.setdefault(start, {}).setdefault(entry, job.name)
    return found


def _entries(release: Installed, environ: Mapping[str, str]) -> Iterator[tuple[Job, str, Entry]]:
    """Yield where each Python job begins, and its interpreter; other jobs have no imports."""
    path = _path(release, environ)
    for job in release.jobs.job:
        if job.command is None or job.in_container:
            continue
        name = job.command[0]
        program = shutil.which(release.tree / name if "/" in name else name, path=path)
        if program is None:
            continue
        if is_python(program) or is_python(name):
            entry = entry_of(job.command)
            if entry is not None:
                yield job, program, entry
        elif _is_python_script(Path(program)):
            python = shutil.which("python", path=path) or shutil.which("python3", path=path)
            if python is not None:
                yield job, python, Entry(script=program)


def _is_python_script(file: Path) -> bool:
    with suppress(OSError), open_regular(file) as stream:
        head = stream.read(_SCRIPT_HEAD).partition(b"\n")[0]
        return head.startswith(b"#!") and b"python" in head
    return False


def _path(release: Installed, environ: Mapping[str, str]) -> str:
    usual = environ.get("PATH", FALLBACK_PATH)
    return usual if release.programs is None else f"{release.programs}{os.pathsep}{usual}"


async def _said(running: Running) -> tuple[str, Exit]:
    """Return the end of a program's output, which is read to its end so that it does not stall, and how it ended."""
    said = bytearray()
    waiting = asyncio.ensure_future(running.wait())
    try:
        while chunk := await running.output.read(KEEP_BYTES):
            said += chunk
            del said[:-KEEP_BYTES]
        return said.decode(errors="replace"), await waiting
    finally:
        waiting.cancel()
