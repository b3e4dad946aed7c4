"""Parts that the tests of the agent's small edges share."""

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from agent.steps.logs import Journalist
from tests.edges.patients import patient
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program

__all__ = ["patient"]

REGION = "ap-northeast-3"


class Events(list[dict[str, Any]]):
    """What was logged, in order."""

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one name."""
        return [event for event in self if event["event"] == name]


@pytest.fixture
def events() -> Events:
    """Collects what `journalist` logs."""
    return Events()


@pytest.fixture
def journalist(events: Events) -> Journalist:
    """A journalist without secrets to hide, so that a leak is seen."""
    return Journalist(events.append)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose AWS is a stand-in on this machine."""
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    server = Program(
        [program("moto_server"), "-H", LOOPBACK, "-p", str(port)],
        log=tmp_path_factory.mktemp("moto") / "moto.log",
    )
    environ = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-too",
    }

    def ready() -> bool:
        try:
            return bool(requests.get(f"{url}/moto-api/data.json", timeout=5).ok)
        except requests.RequestException:
            return False

    server.start(ready, seconds=60)
    try:
        yield environ
    finally:
        server.stop()


@pytest.fixture
def parameters(aws: dict[str, str]) -> Iterator[Any]:
    """Stores SSM parameters, `parameters("/path", NAME="value")`, and removes them after the test."""
    client = boto3.client(
        "ssm",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing-too",
    )
    names: list[str] = []

    def store(path: str, **values: str) -> None:
        for name, value in values.items():
            names.append(f"{path}/{name}")
            client.put_parameter(Name=names[-1], Value=value, Type="SecureString")

    yield store
    for name in names:
        client.delete_parameter(Name=name)
