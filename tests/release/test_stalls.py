"""Servers that do not answer, or do not end: control is back within the limit, and the last good release runs."""

import asyncio
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agent.base.errors import ReleaseRefused
from agent.base.logs import RunLogger
from agent.release.git import Git, GitError
from agent.release.mirror import Mirror
from agent.release.repository import Wanted, parse_repository
from tests.parts.gitserver import GitServer
from tests.parts.stalled import refused, silent, stalled_connect
from tests.parts.waiting import wait_until
from tests.release.conftest import Computer, ends_in, reason_of

LIMIT = 3.0
MARGIN = 60.0
"""For the rest, on a busy machine: what stalls would stall for hours."""
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"


@pytest.mark.parametrize(
    ("scheme", "place"),
    [
        ("http", refused),
        ("http", stalled_connect),
        ("https", silent),
        ("http", silent),
        ("http", lambda: silent(HEADERS[:30])),
        ("http", lambda: silent(HEADERS + b"Content-Length: 900\r\n\r\n001e# service=git-upload")),
        ("ssh", silent),
    ],
    ids=["refused", "connect", "tls", "answer", "headers", "body", "ssh"],
)
async def test_a_stalled_server_costs_its_limit_and_no_more(
    computer: Computer, scheme: str, place: type[AbstractContextManager[str]]
) -> None:
    """Wherever it stalls, the last good release is returned in time, as stale, and no git is left running."""
    good = await computer.ran("v1.0")
    started = time.monotonic()
    with place() as address:
        url = f"{scheme}://{address}/scrapers.git"
        obtained = await computer.obtain(repository=url, timeout=LIMIT)
    assert time.monotonic() - started < LIMIT + MARGIN
    assert obtained.release.commit == good
    assert reason_of(obtained).startswith("unreachable: git ls-remote")
    ends_in(computer.state)


@pytest.mark.parametrize("fault", ["cut", "drip"])
async def test_a_pack_that_stops_coming_costs_the_limit(
    computer: Computer, git_server: GitServer, fault: str
) -> None:
    """A transfer that falls silent, or drips, ends in time; the same transfer works once the server does."""
    computer.repository = git_server.url()
    await computer.ran("v1.0")
    computer.publish("v2.0", {"data": os.urandom(50_000).hex()})
    started = time.monotonic()
    git_server.pack_limit, git_server.drip = (2000, False) if fault == "cut" else (None, True)
    obtained = await computer.obtain(timeout=LIMIT)
    assert time.monotonic() - started < LIMIT + MARGIN
    assert obtained.release.ref == "v1.0"
    assert reason_of(obtained).startswith("unreachable: git ")
    git_server.pack_limit, git_server.drip = None, False
    assert (await computer.obtain()).release.ref == "v2.0"


async def test_a_server_that_comes_back_is_asked_again(
    computer: Computer, git_server: GitServer
) -> None:
    """A name that does not resolve is tried again within the limit; a repository that is not there is not."""
    await computer.ran("v1.0")
    url = "https://nowhere.invalid/scrapers.git"
    obtaining = asyncio.create_task(computer.obtain(repository=url))
    await asyncio.to_thread(
        wait_until, lambda: computer.told("release.retry"), what="it to be tried again"
    )
    obtaining.cancel()
    await asyncio.wait([obtaining])
    computer.events.clear()
    obtained = await computer.obtain(repository=git_server.url("other"))
    assert reason_of(obtained).startswith("not found: ")
    assert not computer.told("release.retry")


@pytest.mark.long
async def test_a_fetch_that_brings_too_much_is_stopped(computer: Computer, tmp_path: Path) -> None:
    """Git is killed when the limit is passed, nothing of what came is left, and no git goes on.

    `tests/run/test_attacks.py` has those of many files.
    """
    for number in range(24):
        computer.repo.write(f"{number}.bin", os.urandom(1024**2))
    computer.publish("v1.0")
    place = tmp_path / "mirror.git"
    repository = parse_repository(computer.repository, None)
    git = Git(place, repository, computer.environ, seconds=20, log=RunLogger().log)
    mirror = Mirror(git, most=4 * 1024**2)
    await mirror.prepare()
    with pytest.raises(ReleaseRefused, match="brought more than"):
        await mirror.fetch(Wanted("v1.0", "refs/tags/v1.0", ""), until=1e9)
    assert sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) < 5 * 1024**2
    ends_in(place)


async def test_a_command_that_asks_no_server_is_not_called_unreachable(
    computer: Computer, tmp_path: Path
) -> None:
    """What does not end is this machine's: nobody is sent to look at the network."""
    repository = parse_repository(computer.repository, None)
    git = Git(tmp_path / "m", repository, computer.environ, seconds=0.1, log=RunLogger().log)
    await Mirror(git).prepare()
    os.mkfifo(tmp_path / "silent")
    with pytest.raises(GitError, match=r"^stuck: git hash-object") as caught:
        await git.local("hash-object", str(tmp_path / "silent"))
    assert "disk of this machine" in caught.value.remedy
