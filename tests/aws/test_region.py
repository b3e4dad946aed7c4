"""In which region AWS is asked: the environment first, then the profile, then the machine's own metadata service."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.base.errors import SecretsError, SecretsUnreachable
from agent.config.settings import Secrets
from agent.machine.aws import Waits, aws_client
from agent.machine.metadata import REGION_SECONDS
from agent.secrets.sources import job_secrets
from tests.parts.aws import KEYS, REGION
from tests.parts.metadata import Metadata
from tests.parts.stalled import refused

WAITS = Waits(connect=1, read=1, attempts=1)
IDENTITY = "/latest/dynamic/instance-identity/document"
SLACK = 20.0
"""Seconds on top of a documented limit, for a busy machine."""


@pytest.fixture
def machine() -> Iterator[Metadata]:
    """The metadata service of a machine with a role, in Tokyo."""
    with Metadata(credentials=KEYS, zone="ap-northeast-1c") as service:
        yield service


def on(machine: Metadata, **more: str) -> dict[str, str]:
    """What EC2 gives a program on a machine: no variable with a key or a region."""
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.url, **more}


def region(environ: dict[str, str]) -> str:
    """In which region a client asks."""
    return str(aws_client("ssm", environ, WAITS).meta.region_name)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile, `home`, with a region; boto3 looks for its files in the process's environment."""
    (tmp_path / "config").write_text("[profile home]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


async def test_secrets_are_read_on_a_machine_that_has_no_variables(
    aws: dict[str, str], machine: Metadata, parameters: Callable[..., None]
) -> None:
    """Keys and region come from the metadata service, which is asked for the region once for two readings."""
    machine.document["region"] = REGION
    parameters("/region/jobs", TOKEN="1")
    for _ in range(2):
        assert await job_secrets(Secrets(source="ssm:/region/jobs"), aws | on(machine)) == {
            "TOKEN": "1"
        }
    asked = [path for _, path, _ in machine.requests]
    assert asked.count(IDENTITY) == 1


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-west-2"}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "us-west-2", "AWS_PROFILE": "home"}, "us-west-2"),
        ({"AWS_PROFILE": "home"}, "eu-central-1"),
        ({}, "ap-northeast-1"),
    ],
)
def test_the_first_that_names_a_region_is_believed(
    machine: Metadata, environ: dict[str, str], expected: str
) -> None:
    """In the order of the documentation; the metadata service is not even asked before its turn."""
    assert region(on(machine, **environ)) == expected
    asked = any(path == IDENTITY for _, path, _ in machine.requests)
    assert asked is (expected == "ap-northeast-1")


@pytest.mark.parametrize(
    ("wrong", "says", "remedy"),
    [
        (
            {"AWS_ENDPOINT_URL_SSM": "nonsense"},
            "Invalid endpoint: nonsense",
            "AWS_ENDPOINT_URL_SSM",
        ),
        ({"AWS_ENDPOINT_URL": "http://h:x"}, "Port could not be cast", "AWS_ENDPOINT_URL"),
        ({"AWS_REGION": " "}, "region_name ' ' doesn't match", "set AWS_REGION"),
    ],
)
async def test_a_variable_that_cannot_be_used_is_named(
    wrong: dict[str, str], says: str, remedy: str
) -> None:
    """The message says what is wrong, and the remedy where."""
    keys = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "ap-northeast-1",
    }
    with pytest.raises(SecretsError, match=says) as caught:
        await job_secrets(Secrets(source="ssm:/x"), {**keys, **wrong})
    assert remedy in caught.value.remedy


def test_where_nobody_knows_the_remedy_says_what_to_set(machine: Metadata) -> None:
    """Neither a computer that is no machine of EC2, nor one whose service says nonsense, has a region."""
    machine.document["region"] = "../../evil"
    for environ in (on(machine), {"AWS_EC2_METADATA_DISABLED": "true"}):
        with pytest.raises(SecretsError, match="AWS has no region") as caught:
            region(environ)
        assert "AWS_REGION" in caught.value.remedy


def test_a_service_that_is_late_is_asked_again(machine: Metadata) -> None:
    """Its silence is bounded, is no answer that is kept, and is told apart from a fault that stays."""
    machine.status = 503
    began = time.monotonic()
    with pytest.raises(SecretsUnreachable):
        region(on(machine))
    assert time.monotonic() - began < REGION_SECONDS + SLACK
    machine.status = None
    assert region(on(machine)) == "ap-northeast-1"


async def test_what_may_pass_is_told_apart_from_what_stays(
    aws: dict[str, str], parameters: Callable[..., None]
) -> None:
    """Nobody at the address, and a role whose keys are not there yet, may pass; a path without parameters stays."""
    parameters("/region/jobs", TOKEN="1")
    with refused() as address, Metadata(credentials=None) as roleless:
        for late in ({"AWS_ENDPOINT_URL_SSM": f"http://{address}"}, on(roleless)):
            with pytest.raises(SecretsUnreachable):
                await job_secrets(Secrets(source="ssm:/region/jobs"), aws | late)
    with pytest.raises(SecretsError, match="no parameters under /region/none") as caught:
        await job_secrets(Secrets(source="ssm:/region/none"), aws)
    assert "put-parameter" in caught.value.remedy
    assert not isinstance(caught.value, SecretsUnreachable)
