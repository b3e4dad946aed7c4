"""Readers that look all the time, and trust nothing: what is visible at home must be what a committed package says.

Nothing here uses the project's own reading code to judge: entries, packages and files are read as plain JSON and plain
bytes. Only the pull itself is the real one.
"""

import asyncio
import hashlib
import json
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Self

from agent.base.errors import MayflyError
from consumer.follow import poll
from consumer.pull.folder import Destination
from consumer.pull.plan import Wish
from consumer.pull.progress import Lines
from consumer.pull.report import Rejected
from consumer.pull.session import pull
from consumer.store import Store
from tests.bucket.bucket import Bucket
from tests.bucket.layout import DESCRIPTOR
from tests.parts.command import MAYFLY, surroundings

Signature = tuple[int, int, int, int]
Mark = tuple[int, str]
"""Size and hash."""

PAUSE_SECONDS = 0.05
LAST_SECONDS = 60.0
"""For the pull at the end of a trial, after all faults: it must see everything."""
QUIET = Lines(lambda _, __: None)
"""Watches a pull and says nothing."""


class _Beside:
    """Does its work in a thread of its own while the block runs, and then comes to an end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LAST_SECONDS)
        self._end()

    def _work(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """Look once more, when nothing happens any more."""


class Inspector(_Beside):
    """Looks into a folder of pulled runs every 50 ms, and compares all that is visible with the bucket.

    Attributes:
        looks: How often it looked.
        wrong: What was visible and not as a committed manifest says.
        seen: The `(job, run)` that were visible.
    """

    def __init__(self, dest: Path, bucket: Bucket) -> None:
        super().__init__()
        self._dest, self._bucket = dest, bucket
        self._packages: dict[tuple[str, str], dict[str, Mark]] = {}
        self._right: dict[Path, dict[str, Signature]] = {}
        self.looks = 0
        self.wrong: list[str] = []
        self.seen: set[tuple[str, str]] = set()

    def _end(self) -> None:
        self._right.clear()
        self.look()

    def _work(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            self.look()

    def look(self) -> None:
        """Look once. A folder that was right is read again when any of its files is another, and at the end."""
        self.looks += 1
        for job in self._dest.glob("[!.]*"):
            for folder in job.glob("*"):
                if folder.name == "latest":
                    if not folder.exists():
                        self.wrong.append(f"{folder} leads nowhere")
                    continue
                try:
                    problem = self._problem(job.name, folder)
                except (OSError, ValueError, LookupError) as error:
                    problem = repr(error)
                if problem:
                    self.wrong.append(f"{folder}: {problem}")
                self.seen.add((job.name, folder.name))

    def _problem(self, job: str, folder: Path) -> str:
        signatures = _signatures(folder)
        if self._right.get(folder) == signatures:
            return ""
        problem = self._difference(job, folder)
        if not problem:
            self._right[folder] = signatures
        return problem

    def _difference(self, job: str, folder: Path) -> str:
        wanted = self._package(folder.name, job)
        there = {
            path.relative_to(folder).as_posix(): _mark(path)
            for path in folder.rglob("*")
            if path.is_file()
        }
        return "" if wanted == there else f"{there} instead of {wanted}"

    def _package(self, run: str, job: str) -> dict[str, Mark]:
        """Return what a job's folder must hold: its package, which is committed then, and all that it names."""
        if (run, job) not in self._packages:
            row = self._bucket.runs[run].told[job]["package"]
            text = self._bucket.objects.get(row["key"])
            named = json.loads(text)["resources"]
            own = {DESCRIPTOR: (row["bytes"], f"sha256:{row['sha256']}")}
            files = {resource["path"]: (resource["bytes"], resource["hash"]) for resource in named}
            self._packages[run, job] = own | files
        return self._packages[run, job]


def _signatures(folder: Path) -> dict[str, Signature]:
    """Return what cannot stay the same when a file is replaced or written to."""
    return {
        str(path): (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in folder.rglob("*")
        if (status := path.stat()) and path.is_file()
    }


def _mark(path: Path) -> Mark:
    content = path.read_bytes()
    return len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"


class Puller(_Beside):
    """Pulls every 50 ms in a loop of its own, through whatever stands in its way.

    Attributes:
        pulls: How many pulls ended, whichever way.
        defects: What ended a pull and is no expected failure.
        rejected: Jobs that were not what they said.
    """

    def __init__(self, dest: Path, bucket: Bucket) -> None:
        super().__init__()
        self._dest, self._bucket = dest, bucket
        self._store: Store | None = None
        self.rejected: list[str] = []
        self.pulls = 0
        self.defects: list[str] = []

    def _work(self) -> None:
        asyncio.run(self._pull_until_told())

    async def _pull_until_told(self) -> None:
        pulling = asyncio.create_task(self._pull_for_ever())
        await asyncio.to_thread(self._stop.wait)
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._pull()
        except (MayflyError, TimeoutError) as error:
            self.defects.append(f"the last pull: {error!r}")

    async def _pull_for_ever(self) -> None:
        while True:
            try:
                await self._pull()
            except MayflyError:
                self.pulls += 1
            except Exception as error:
                self.defects.append(repr(error))
                raise
            await asyncio.sleep(PAUSE_SECONDS)

    async def _pull(self) -> None:
        bucket = self._bucket.reader()
        if self._store is None:
            self._store = Store.open(None, bucket.identity, datetime.now(UTC))
        await poll(bucket, self._store, datetime.now(UTC))
        with Destination.open(self._dest) as folder:
            report = await pull(bucket, self._store, folder, Wish(partial=True), QUIET)
        self.rejected += [repr(event) for event in report.events if isinstance(event, Rejected)]
        self.pulls += 1


class KilledPuller(_Beside):
    """Starts `mayfly pull` as a process, kills it after a random time, and starts it again.

    Attributes:
        kills: How many were killed before they ended.
    """

    def __init__(self, dest: Path, environ: Mapping[str, str], log: Path, rng: Random) -> None:
        super().__init__()
        self._dest, self._environ, self._log, self._rng = dest, environ, log, rng
        self.kills = 0
        self.problems: list[str] = []

    def _end(self) -> None:
        with self._start() as process:
            code = process.wait(LAST_SECONDS)
        if code != 0:
            self.problems.append(f"the last pull: {code}: {self._log.read_text()[-1000:]}")

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._start() as process:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self._rng.uniform(0.3, 2.5))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    self.kills += 1
                process.wait(LAST_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*MAYFLY, "pull", str(self._dest), "--json"],
            env=surroundings(self._environ),
            stdout=subprocess.DEVNULL,
            stderr=self._log.open("wb"),
        )
