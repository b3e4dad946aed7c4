"""kill -9 in the middle: the old release or the new one, never a mixture, never none."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.release.store import Installed
from tests.release.conftest import Computer, Locked, ends_in, greeting

SEEDS = range(int(os.environ.get("MAYFLY_TEST_SEEDS", "4")))
"""A few for every day; the whole matrix has 20."""
FILES = 400
WAIT_SECONDS = 60.0

Moment = Callable[[Path], bool]
"""Tells, from the state directory and the new commit's place in it, whether a moment has come."""

MOMENTS: dict[str, Moment] = {
    "mirror": lambda root: any((root.parents[1] / "mirror.git").glob("HEAD")),
    "pack": lambda root: len(list((root.parents[1] / "mirror.git").glob("objects/pack/*"))) > 2,
    "directory": lambda root: root.exists(),
    "files": lambda root: any((root / "tree").glob("data/*")),
    "environment": lambda root: (root / "env").exists(),
    "package": lambda root: any((root / "env").glob("lib/*/site-packages/idna/*")),
    "sealing": lambda root: (root / "tree").exists() and not (root / "tree").stat().st_mode & 0o200,
    "marker": lambda root: (root / "release.json").exists(),
}


def _content(version: str, number: int) -> str:
    return f"{version} {number}\n" * 50


def _files(locked: Locked, version: str) -> dict[str, str]:
    data = {f"data/{number:03d}.txt": _content(version, number) for number in range(FILES)}
    return {**locked.files["uv.lock"], **data}


async def _whole(release: Installed, version: str) -> bool:
    """Tell whether every file is that of one version, and its environment works."""
    data = sorted((release.tree / "data").iterdir())
    same = [file.read_text() == _content(version, int(file.stem)) for file in data]
    return same == [True] * FILES and await greeting(release) == "3.10"


async def _kill_when(computer: Computer, moment: Callable[[], bool]) -> bool:
    """Start an agent that obtains, kill -9 it when `moment` has come, and tell whether it was still there."""
    agent = subprocess.Popen(  # noqa: ASYNC220 -- it is polled, and killed
        [
            *(sys.executable, "-m", "tests.release.obtain_once"),
            *(computer.repository, str(computer.state), str(computer.cache)),
        ],
        env=computer.environ,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while agent.poll() is None and not moment():
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
    finally:
        agent.send_signal(signal.SIGKILL)
    return agent.wait(60) == -signal.SIGKILL


async def _prepare(computer: Computer, locked: Locked) -> str:
    """Make version 1 the good one, warm, and version 2 the wanted one; return its commit."""
    computer.cache = locked.cache
    await computer.ran("v1.0", _files(locked, "1"))
    return computer.publish("v2.0", _files(locked, "2"))


async def _check(computer: Computer) -> None:
    """Whatever the kill left: the good release is whole, and the next run has the new one, whole."""
    good = computer.here
    assert good is not None
    assert await _whole(good, {"v1.0": "1", "v2.0": "2"}[good.ref])
    obtained = await computer.run_well()
    assert obtained.stale is None
    assert obtained.release.ref == "v2.0"
    assert await _whole(obtained.release, "2")
    ends_in(computer.state)
    assert all(
        (place / "release.json").exists()
        for place in computer.release_store.releases.iterdir()
        if place.is_dir()
    )


@pytest.mark.parametrize("name", MOMENTS)
async def test_killed_at_a_step_of_the_update(
    computer: Computer, locked: Locked, name: str
) -> None:
    """At each step of fetching and installing, a kill leaves the old release; the next run makes the new one."""
    commit = await _prepare(computer, locked)
    root = computer.release_store.root(commit)
    if name == "mirror":
        for file in computer.release_store.mirror.rglob("HEAD"):
            file.unlink()
    assert await _kill_when(computer, lambda: MOMENTS[name](root))
    await _check(computer)


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_at_any_time(computer: Computer, locked: Locked, seed: int) -> None:
    """Killed again and again at random times, the update is finished by the first run that is left alone."""
    await _prepare(computer, locked)
    chance = random.Random(seed)
    for _ in range(3):
        end = time.monotonic() + chance.uniform(0.2, 2.5)
        await _kill_when(computer, lambda end=end: time.monotonic() > end)  # type: ignore[misc]
    await _check(computer)


async def test_killed_before_there_was_any_release(computer: Computer, locked: Locked) -> None:
    """A first installation that was killed is made by the next run."""
    computer.cache = locked.cache
    commit = computer.publish("v2.0", _files(locked, "2"))
    root = computer.release_store.root(commit)
    assert await _kill_when(computer, lambda: MOMENTS["environment"](root))
    assert computer.here is None
    await computer.run_well()
    await _check(computer)
