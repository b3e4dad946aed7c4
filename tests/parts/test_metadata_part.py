"""The stand-in for the metadata service tells no more than the real one, and a relay carries a guest to it."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from subprocess import PIPE, Popen

import pytest
import requests

from tests.parts.machine import forwards
from tests.parts.metadata import Metadata


@pytest.fixture
def service() -> Iterator[Metadata]:
    """The metadata of an instance with a tag."""
    with Metadata(tags={"Name": "mayfly"}) as one:
        yield one


def ask(service: Metadata, path: str, token: str | None = None) -> requests.Response:
    """Ask for a path below `/latest/`."""
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    return requests.get(f"{service.url}/latest/{path}", headers=headers, timeout=10)


def test_nothing_is_told_without_a_token(service: Metadata) -> None:
    """IMDSv1 is off, as in the image; a token must be asked for with PUT and a lifetime."""
    assert ask(service, "meta-data/instance-id").status_code == 401
    assert ask(service, "meta-data/instance-id", "made-up").status_code == 401
    assert requests.put(f"{service.url}/latest/api/token", timeout=10).status_code == 400


def test_folders_tags_and_the_notice_of_an_interruption(service: Metadata) -> None:
    """A folder lists its names; the notice is a 404 until there is one."""
    token = service.make_token()
    assert ask(service, "meta-data/tags/instance", token).text == "Name"
    assert ask(service, "meta-data/tags/instance/Name", token).text == "mayfly"
    assert "placement/" in ask(service, "meta-data/", token).text.split("\n")
    assert ask(service, "meta-data/spot/instance-action", token).status_code == 404
    service.notice = datetime(2026, 11, 22, 6, 42, 5, tzinfo=UTC)
    told = ask(service, "meta-data/spot/instance-action", token).json()
    assert told == {"action": "terminate", "time": "2026-11-22T06:42:05Z"}


def relay_to(port: int) -> "Popen[bytes]":
    """Start what QEMU starts for a connection of the guest."""
    command = forwards({"10.0.2.10:80": port}).partition("-cmd:")[2].split()
    return Popen(command, stdin=PIPE, stdout=PIPE)


def test_a_relay_carries_a_connection_both_ways() -> None:
    """What the guest sends arrives, and the answer comes back until both ends are closed; to nobody it ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with relay_to(port) as relay:
            link, _ = server.accept()
            with link:
                assert relay.stdin is not None
                relay.stdin.write(b"a question")
                relay.stdin.close()
                assert link.recv(100, socket.MSG_WAITALL) == b"a question"
                link.sendall(b"an answer")
            assert relay.stdout is not None
            assert relay.stdout.read() == b"an answer"
    with relay_to(port) as relay:
        assert relay.communicate(timeout=60)[0] == b""
