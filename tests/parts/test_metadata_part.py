"""The stand-in for the metadata service speaks what AWS's own clients speak."""

import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import requests
from botocore.utils import InstanceMetadataFetcher

from tests.parts.metadata import Metadata
from tests.parts.ports import free_port

RELAY = Path(__file__).with_name("relay.py")


@pytest.fixture
def service() -> Iterator[Metadata]:
    """The metadata of an instance with a role and a tag."""
    with Metadata(tags={"Name": "mayfly"}, credentials=("AKEXAMPLE", "secret")) as one:
        yield one


def ask(service: Metadata, path: str, token: str | None = None) -> requests.Response:
    """Ask for a path below `/latest/`."""
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    return requests.get(f"{service.url}/latest/{path}", headers=headers, timeout=10)


def test_amazons_own_client_finds_the_roles_keys(service: Metadata) -> None:
    """botocore, which the agent's bucket client takes its keys from, is content with it."""
    fetcher = InstanceMetadataFetcher(
        timeout=10, num_attempts=1, base_url=service.url, config={"imds_use_ipv6": False}
    )
    found = fetcher.retrieve_iam_role_credentials()
    assert (found["access_key"], found["secret_key"]) == ("AKEXAMPLE", "secret")
    assert all(good for _, _, good in service.requests)


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


def test_a_relay_carries_a_connection_both_ways() -> None:
    """What the guest sends arrives, and the answer comes back, until both ends are closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-S", "-E", str(RELAY), str(server.getsockname()[1])]
        with Popen(command, stdin=PIPE, stdout=PIPE) as relay:
            link, _ = server.accept()
            with link:
                assert relay.stdin is not None
                relay.stdin.write(b"a question")
                relay.stdin.close()
                assert link.recv(100, socket.MSG_WAITALL) == b"a question"
                link.sendall(b"an answer")
            assert relay.stdout is not None
            assert relay.stdout.read() == b"an answer"


def test_a_relay_to_nobody_ends_at_once() -> None:
    """A server that is down looks to the guest like a connection that is closed."""
    with Popen(
        [sys.executable, "-S", "-E", str(RELAY), str(free_port())], stdin=PIPE, stdout=PIPE
    ) as relay:
        assert relay.stdout is not None
        assert relay.stdout.read() == b""
        assert relay.wait(20) == 0
