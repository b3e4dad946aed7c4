"""Credentials and secrets: from the environment, from SSM, and from files that only their owner can read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.base.errors import SecretsError
from agent.config.credentials import Credentials
from agent.config.settings import Secrets, Store
from agent.secrets.sources import job_secrets, read_env_file, store_credentials

Parameters = Callable[..., None]

SSM_STORE = Store(url="s3://bucket", credentials="ssm:/mayfly/store")


def env_file(path: Path, text: str, mode: int = 0o600) -> Path:
    """An env file."""
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_default_keys_are_those_of_the_environment() -> None:
    """Static keys, token included, of the environment that was passed; without any, boto3's chain decides."""
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert await store_credentials(Store(), environ) == Credentials("a", "s", "t")
    assert await store_credentials(Store(), {}) is None


async def test_keys_of_the_bucket_come_from_ssm(
    aws: dict[str, str], parameters: Parameters
) -> None:
    """By their leaf names, decrypted; of half a pair the missing half is named."""
    parameters("/mayfly/store", access_key_id="AK")
    with pytest.raises(SecretsError, match="no parameter /mayfly/store/secret_access_key"):
        await store_credentials(SSM_STORE, aws)
    parameters("/mayfly/store", secret_access_key="SK")
    assert await store_credentials(SSM_STORE, aws) == Credentials("AK", "SK", None)


async def test_secrets_of_jobs_come_from_ssm_however_many_there_are(
    aws: dict[str, str], parameters: Parameters
) -> None:
    """Pages are followed to the end; what lies deeper than the path is not a secret of its own."""
    wanted = {f"TOKEN_{number}": f"value {number}" for number in range(23)}
    parameters("/mayfly/jobs", **wanted)
    parameters("/mayfly/jobs/other", DEEPER="no")
    assert await job_secrets(Secrets(source="ssm:/mayfly/jobs/"), aws) == wanted


async def test_an_env_file_of_the_owner_alone_is_read(tmp_path: Path) -> None:
    """Mode 0600 is fine, and `~` is the home of the environment; without a source there are no secrets."""
    env_file(tmp_path / "secrets.env", "TOKEN=abc\n")
    environ = {"HOME": str(tmp_path)}
    assert await job_secrets(Secrets(source="~/secrets.env"), environ) == {"TOKEN": "abc"}
    assert await job_secrets(Secrets(), environ) == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o666, 0o444])
def test_an_env_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is refused, with the command that takes it away."""
    path = env_file(tmp_path / "secrets.env", "TOKEN=abc\n", mode)
    with pytest.raises(SecretsError, match=f"mode {mode:04o}") as caught:
        read_env_file(path)
    assert caught.value.remedy == f"chmod 600 {path}"


def test_all_faults_of_an_env_file_are_told_without_its_content(tmp_path: Path) -> None:
    """Faults come with line numbers, and none of them shows what stands there."""
    path = env_file(tmp_path / "secrets.env", "A=1\nhunter2\nB='hunter2\nA=hunter2\n")
    with pytest.raises(SecretsError) as caught:
        read_env_file(path)
    message = str(caught.value)
    assert [f"line {number}" in message for number in (1, 2, 3, 4)] == [False, True, True, True]
    assert "hunter2" not in message


def test_what_is_no_env_file_is_refused_at_once(tmp_path: Path) -> None:
    """A folder, a pipe without a writer, a missing file and binary data are errors, none of which waits."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "binary").write_bytes(b"A=\xff\n")
    (tmp_path / "binary").chmod(0o600)
    (tmp_path / "huge").write_bytes(b"#" * (1024**2 + 1))
    (tmp_path / "huge").chmod(0o600)
    for name in ("pipe", "binary", "huge", "missing", "."):
        with pytest.raises(SecretsError) as caught:
            read_env_file(tmp_path / name)
        assert caught.value.remedy
