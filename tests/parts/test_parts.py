"""The other parts do what the tests rely on."""

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.parts.command import output_of
from tests.parts.docker_engine import DockerEngine
from tests.parts.machine_disk import ROOT
from tests.parts.missing import MissingPartError, program
from tests.parts.ports import LOOPBACK, free_port, free_ports
from tests.parts.waiting import WaitedTooLongError, wait_until
from tests.parts.webdriver import is_ready, session


def test_a_missing_program_names_the_remedy() -> None:
    """A part that is not installed says how to install it."""
    with pytest.raises(
        MissingPartError, match=r"no-such-part is missing: run tests/parts/install\.sh"
    ):
        program("no-such-part")


def test_a_port_is_given_once_and_to_one_process() -> None:
    """Neither one that is listened on nor one that the kernel gives to connections; another process has others."""
    first = free_port()
    with socket.create_server((LOOPBACK, first + 1)):
        ports = {first, *free_ports(20)}
    told = "from tests.parts.ports import free_ports; print(*free_ports(20))"
    others = set(map(int, output_of([sys.executable, "-c", told], at=ROOT).split()))
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert (len(ports), len(others)) == (21, 20)
    # A machine may have been set up to give connections more than Linux does by default.
    assert lowest < 32_768 or max(ports | others) < lowest
    assert ports.isdisjoint({first + 1, *others})


def test_waiting_ends() -> None:
    """What never becomes true ends the wait, with a message that says what was waited for."""
    with pytest.raises(WaitedTooLongError, match="the end of time"):
        wait_until(lambda: False, seconds=0.1, what="the end of time")


@contextmanager
def container(engine: DockerEngine, image: str, *options: str) -> Iterator[None]:
    """A container for the length of the block."""
    started = engine.docker("run", "--detach", *options, image)
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        engine.docker("rm", "--force", started.stdout.strip())


def test_the_image_serves_a_browser_and_writes_into_a_mount(
    docker_engine: DockerEngine, selenium_image: str, tmp_path: Path
) -> None:
    """The container is the real image's equal: sessions by variable, its user's downloads in a mounted folder."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    downloads.chmod(0o777)
    url = f"http://127.0.0.1:{free_port()}"
    options = (
        *("--shm-size=1g", "--publish", f"{url.removeprefix('http://')}:4444"),
        *("--volume", f"{downloads}:/home/seluser/Downloads"),
        *("--env", "SE_NODE_MAX_SESSIONS=3", "--env", "SE_NODE_OVERRIDE_MAX_SESSIONS=true"),
    )
    with container(docker_engine, selenium_image, *options):
        wait_until(lambda: is_ready(url), seconds=120, what="the container's Grid")
        nodes: list[dict[str, Any]] = requests.get(f"{url}/status", timeout=5).json()["value"][
            "nodes"
        ]
        assert nodes[0]["maxSessions"] == 3
        with session(url) as browser:
            browser.visit("data:text/html,<a download='a b.txt' href='data:text/plain,hello'>x</a>")
            browser.run("document.querySelector('a').click()")
            file = downloads / "a b.txt"
            wait_until(file.exists, what="the download")
    assert file.read_text() == "hello"
    about = file.stat()
    assert (about.st_uid, about.st_gid, oct(about.st_mode)) == (1200, 1201, "0o100644")
    shutil.rmtree(downloads)
