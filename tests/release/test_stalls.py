"""Servers that do not answer: control is back within the limit, and the last good release runs."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo
from tests.parts.stalled import refused, silent, stalled_connect
from tests.parts.waiting import wait_until
from tests.release.conftest import JOBS, Computer, ends_in, reason_of

LIMIT = 3.0
MARGIN = 60.0
"""For the rest, on a busy machine: what stalls would stall for hours."""

pytestmark = pytest.mark.usefixtures("git_server")


@contextmanager
def _address(scheme: str, place: AbstractContextManager[str]) -> Iterator[str]:
    with place as address:
        yield f"{scheme}://{address}/scrapers.git"


@pytest.mark.parametrize(
    ("scheme", "place"),
    [
        ("http", refused),
        ("http", stalled_connect),
        ("https", silent),
        ("http", silent),
        ("http", lambda: silent(b"HTTP/1.1 200 OK\r\nContent-Ty")),
        (
            "http",
            lambda: silent(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
                b"Content-Length: 900\r\n\r\n001e# service=git-upload-pack\n"
            ),
        ),
        ("ssh", silent),
    ],
    ids=["refused", "connect", "tls", "answer", "headers", "body", "ssh"],
)
async def test_a_stalled_server_costs_its_limit_and_no_more(
    computer: Computer, repo_builder: Repo, scheme: str, place: type[AbstractContextManager[str]]
) -> None:
    """Wherever it stalls, the last good release is returned in time, as stale, and no git is left running."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    good = (await computer.run_well()).release
    started = time.monotonic()
    with _address(scheme, place()) as url:
        obtained = await computer.obtain(repository=url, timeout=LIMIT)
    assert time.monotonic() - started < LIMIT + MARGIN
    assert obtained.release == good
    assert reason_of(obtained).startswith("unreachable: git ls-remote")
    ends_in(computer.state)


@pytest.mark.parametrize("fault", ["cut", "drip"])
async def test_a_pack_that_stops_coming_costs_the_limit(
    computer: Computer, repo_builder: Repo, git_server: GitServer, fault: str
) -> None:
    """A transfer that falls silent, or drips, ends in time; the same transfer works once the server does."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.repository = git_server.url()
    await computer.run_well()
    repo_builder.release("v2.0", {"data": os.urandom(50_000).hex()})
    started = time.monotonic()
    if fault == "cut":
        git_server.pack_limit = 2000
    else:
        git_server.drip = True
    obtained = await computer.obtain(timeout=LIMIT)
    assert time.monotonic() - started < LIMIT + MARGIN
    assert obtained.release.ref == "v1.0"
    assert reason_of(obtained).startswith("unreachable: git ")
    git_server.pack_limit, git_server.drip = None, False
    assert (await computer.obtain()).release.ref == "v2.0"


async def test_a_server_that_comes_back_is_asked_again(
    computer: Computer, repo_builder: Repo, git_server: GitServer
) -> None:
    """A name that does not resolve is tried again within the limit; a repository that is not there is not."""
    await computer.ran(repo_builder, "v1.0")
    obtaining = asyncio.create_task(
        computer.obtain(repository="https://nowhere.invalid/scrapers.git")
    )
    await asyncio.to_thread(
        wait_until, lambda: computer.told("release.retry"), what="it to be tried again"
    )
    obtaining.cancel()
    await asyncio.wait([obtaining])
    computer.events.clear()
    stale = (await computer.obtain(repository=git_server.url("other"))).stale
    assert stale is not None
    assert stale.reason.startswith("not found: ")
    assert not computer.told("release.retry")
