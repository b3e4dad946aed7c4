"""A new release's self-check: whatever its jobs import at their start is imported, where and as the jobs will be.

It is the release's own code that runs, so it runs in the jobs' isolation, without secrets, and for a bounded time.
"""

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.base.errors import ReleaseRefused
from agent.base.logs import Log
from agent.config.jobsfile import Job
from agent.jobs.environment import FALLBACK_PATH
from agent.jobs.interface import Isolation, Launch, Running
from agent.release.programs import Entry, entry_of, is_python
from agent.release.store import Installed

KEEP_BYTES = 64 * 1024
_SCRIPT_HEAD = 256


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What a self-check needs.

    Attributes:
        isolation: Returns how programs are started; it may have to be found out first.
        run_id: The run: what is left of a killed one is found by it.
        environ: The agent's environment, of which PATH, LANG and TZ are taken.
        log: Told of the result.
        seconds: Limit of it all.
    """

    isolation: Callable[[], Awaitable[Isolation]]
    run_id: str
    environ: Mapping[str, str]
    log: Log
    seconds: float

    async def pass_or_refuse(self, release: Installed) -> None:
        """Return when the programs of a release's jobs import what they need.

        Raises:
            ReleaseRefused: They do not, or it took too long; every fault is in the message.
        """
        faults: list[str] = []
        try:
            async with asyncio.timeout(self.seconds):
                for group in _groups(release, self.environ):
                    faults += await self._faults(group, release)
        except TimeoutError as error:
            raise ReleaseRefused(
                "check", f"its self-check did not end within {self.seconds:g} s"
            ) from error
        except OSError as error:
            raise ReleaseRefused(
                "check", f"its self-check could not be started: {error}"
            ) from error
        if faults:
            raise ReleaseRefused(
                "check", "; ".join(faults), remedy="run its jobs before you tag it"
            )
        self.log.info("release.self_checked", ref=release.ref, commit=release.commit)

    async def _faults(self, group: "_Group", release: Installed) -> list[str]:
        word = secrets.token_hex(16)
        entries = list(group.jobs)
        launch = Launch(
            name=f"self-check-{secrets.token_hex(2)}",
            command=(
                *(group.interpreter, "-c", _program(), word),
                json.dumps([asdict(entry) for entry in entries]),
            ),
            environ={
                "PATH": _path(release, self.environ),
                "HOME": "/nonexistent",  # nothing of this computer's users, and nothing to leave behind
                "LANG": self.environ.get("LANG", "C.UTF-8"),
                "PYTHONDONTWRITEBYTECODE": "1",
                **dict(group.env),
                "MAYFLY_RUN_ID": self.run_id,
                "MAYFLY_JOB": "self-check",
            },
            cwd=release.tree,
            readable=(release.tree, *([release.programs.parent] if release.programs else [])),
            seconds=self.seconds,
        )
        async with (await self.isolation()).start(launch) as running:
            said = await _said(running)
        line = next((line for line in said.splitlines() if line.startswith(f"{word} ")), None)
        if line is None:
            words = " ".join(said.split())[-300:]
            return [f"its self-check ended early: {words}"]
        problems = _problems(line.removeprefix(f"{word} "), len(entries))
        if problems is None:
            return [f"its self-check said something else than what it was asked: {line[-300:]}"]
        return [
            f"job {group.jobs[entry]}: {problem}"
            for entry, problem in zip(entries, problems, strict=True)
            if problem
        ]


def _problems(text: str, count: int) -> list[str] | None:
    """Read what the check found for each program; None where it is something else: the release may have written it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != count:
        return None
    return [str(each) if each else "" for each in found]


@dataclass(frozen=True, slots=True)
class _Group:
    """Programs that start in the same way: interpreter, environment, and the first job of each program."""

    interpreter: str
    env: tuple[tuple[str, str], ...]
    jobs: dict[Entry, str]


def _groups(release: Installed, environ: Mapping[str, str]) -> Sequence[_Group]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], _Group] = {}
    for job, interpreter, entry in _entries(release, environ):
        env = tuple(sorted(job.env.items()))
        group = found.setdefault((interpreter, env), _Group(interpreter, env, {}))
        group.jobs.setdefault(entry, job.name)
    return list(found.values())


def _entries(release: Installed, environ: Mapping[str, str]) -> Iterator[tuple[Job, str, Entry]]:
    """Yield where each Python job begins, and who interprets it; a job that is something else has no imports."""
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
    with suppress(OSError), file.open("rb") as stream:
        head = stream.read(_SCRIPT_HEAD).partition(b"\n")[0]
        return head.startswith(b"#!") and b"python" in head
    return False


def _path(release: Installed, environ: Mapping[str, str]) -> str:
    usual = environ.get("PATH", FALLBACK_PATH)
    return usual if release.programs is None else f"{release.programs}{os.pathsep}{usual}"


def _program() -> str:
    return Path(__file__).with_name("imports.py").read_text("utf-8")


async def _said(running: Running) -> str:
    """Return the end of what a program wrote; it is read to its end, so that it does not stall."""
    said = bytearray()
    waiting = asyncio.ensure_future(running.wait())
    try:
        while chunk := await running.output.read(KEEP_BYTES):
            said += chunk
            del said[:-KEEP_BYTES]
        await waiting
    finally:
        waiting.cancel()
    return said.decode(errors="replace")
