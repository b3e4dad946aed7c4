"""Credentials of the bucket and secrets of the jobs, from where the configuration says they are."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.base.errors import SecretsError, SecretsUnreachable
from agent.base.threads import in_thread
from agent.config.credentials import Credentials, static_credentials
from agent.config.faults import Fault
from agent.config.settings import Secrets, Store
from agent.machine.aws import Waits, aws_client
from agent.machine.metadata import SERVER_ERROR, TOO_MANY, metadata_endpoint
from agent.secrets.envfile import parse_env

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_ssm import SSMClient

SSM = "ssm:"
SSM_SECONDS = 45.0
"""For all pages, retries included."""
SSM_WAITS = Waits(connect=5, read=10, attempts=3)
FIRST_PAUSE = 1.0
MOST_PAUSE = 30.0
"""Between two attempts of a run, in seconds."""
MAX_ENV_BYTES = 1024**2

T = TypeVar("T")
Parse = Callable[[str, str], tuple[dict[str, str], list[Fault]]]
"""Takes text and name of a file; returns what it sets, and all its faults."""


async def store_credentials(store: Store, environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys of the bucket; None leaves them to boto3's chain (profile, role).

    Raises:
        SecretsError: They could not be read from SSM.
    """
    if not store.credentials.startswith(SSM):
        return static_credentials(environ)
    path = store.credentials.removeprefix(SSM)
    found = await _parameters(path, environ)
    missing = [name for name in ("access_key_id", "secret_access_key") if not found.get(name)]
    if missing:
        raise SecretsError(
            f"SSM has no parameter {' and no '.join(f'{path}/{name}' for name in missing)}",
            remedy="`mayfly secrets set --bucket NAME` stores each",
        )
    return Credentials(
        found["access_key_id"], found["secret_access_key"], found.get("session_token")
    )


async def until_answered(
    read: Callable[[], Awaitable[T]], *, seconds: float, again: Callable[[SecretsError], None]
) -> T:
    """Return what a source answers; while it does not answer, ask again.

    Args:
        read: Asks once.
        seconds: No attempt but the first begins after this.
        again: Told of each failure that another attempt follows.

    Raises:
        SecretsUnreachable: It did not answer in time.
        SecretsError: Asking again would not help.
    """
    try:
        return await read()
    except SecretsUnreachable as error:
        if seconds <= FIRST_PAUSE:
            raise
        again(error)
    await asyncio.sleep(FIRST_PAUSE)
    # 60 ms that only a run pays whose first attempt failed.
    import tenacity  # noqa: PLC0415

    def failed(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, SecretsError):
            again(error)

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(SecretsUnreachable),
        stop=tenacity.stop_before_delay(seconds - FIRST_PAUSE),
        wait=tenacity.wait_random_exponential(multiplier=1, max=MOST_PAUSE),
        before_sleep=failed,
        reraise=True,
    )
    async for attempt in attempts:
        with attempt:
            return await read()
    raise AssertionError("tenacity ends with a result or an error")


async def job_secrets(secrets: Secrets, environ: Mapping[str, str]) -> dict[str, str]:
    """Return every secret that jobs may ask for, by name; none when no source is configured.

    Raises:
        SecretsError: The source could not be read.
    """
    if secrets.source is None:
        return {}
    if secrets.source.startswith(SSM):
        return await _parameters(secrets.source.removeprefix(SSM), environ)
    return read_env_file(_file(secrets.source, environ))


async def read_credentials(
    source: str, key: str, environ: Mapping[str, str], parse: Parse = parse_env
) -> dict[str, str]:
    """Return credentials, by name.

    Args:
        source: `ssm:/path`, or a file that nobody but its owner can read.
        key: The key of the configuration that says so.
        environ: The agent's environment.
        parse: Takes such a file apart.

    Raises:
        SecretsError: They cannot be read.
    """
    if source.startswith(SSM):
        return await _parameters(source.removeprefix(SSM), environ)
    return read_env_file(_file(source, environ), key, parse)


def _file(path: str, environ: Mapping[str, str]) -> Path:
    return Path(f"{environ.get('HOME', '')}/{path[2:]}" if path.startswith("~/") else path)


def read_env_file(
    path: Path, key: str = "secrets.source", parse: Parse = parse_env
) -> dict[str, str]:
    """Return the secrets of an env file that nobody but its owner can read.

    Args:
        path: The file.
        key: The key of the configuration that names it.
        parse: Takes its text apart.

    Raises:
        SecretsError: It cannot be read, others could read it, or it has faults: all of them, by line.
    """
    try:
        # O_NONBLOCK: a pipe in the file's place must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            _refuse_open_files(path, key, os.fstat(descriptor))
            text = stream.read(MAX_ENV_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SecretsError(
            f"the secrets in {path} cannot be read: {reason}", remedy=f"check {key}"
        ) from error
    values, faults = parse(text, str(path))
    if faults:
        raise SecretsError("\n".join(map(str, faults)), remedy="write NAME=value, one a line")
    return values


def _refuse_open_files(path: Path, key: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_ENV_BYTES:
        raise SecretsError(f"{path} is not an env file", remedy=f'{key} is a file, or "ssm:/path"')
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretsError(
            f"others than its owner can read {path} (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"chmod 600 {path}",
        )


async def _parameters(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    try:
        return await in_thread(lambda: _read_parameters(path, environ), seconds=SSM_SECONDS)
    except TimeoutError as error:
        raise SecretsUnreachable(
            f"SSM did not give the parameters under {path} within {SSM_SECONDS:g} s",
            remedy="check the network, and the route or the endpoint to SSM",
        ) from error


def _read_parameters(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    # boto3 takes a third of a second and 30 MB: only where SSM is used.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    prefix = f"/{path.strip('/')}"
    try:
        pages = (
            ssm_client(environ)
            .get_paginator("get_parameters_by_path")
            .paginate(Path=prefix, Recursive=False, WithDecryption=True)
        )
        found = {
            parameter["Name"].rpartition("/")[2]: parameter["Value"]
            for page in pages
            for parameter in page["Parameters"]
        }
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise _kind(error, environ)(
            f"SSM answered {code} for the parameters under {prefix}",
            remedy="allow ssm:GetParametersByPath on that path, and kms:Decrypt on its key",
        ) from error
    except BotoCoreError as error:
        raise _kind(error, environ)(
            f"the parameters under {prefix} cannot be read from SSM: {error}",
            remedy="attach a role or set AWS_PROFILE",
        ) from error
    if not found:
        raise SecretsError(
            f"SSM has no parameters under {prefix} in this region",
            remedy="`mayfly secrets set NAME` stores one (`aws ssm put-parameter` does, too)",
        )
    return found


def ssm_client(environ: Mapping[str, str]) -> "SSMClient":
    """Return an SSM client with short timeouts.

    Raises:
        SecretsError: Nothing says in which region the secrets are.
        BotoCoreError: The environment names a profile or a region that does not exist.
    """
    client: SSMClient = aws_client("ssm", environ, SSM_WAITS)
    return client


def _kind(error: "ClientError | BotoCoreError", environ: Mapping[str, str]) -> type[SecretsError]:
    """Return what an error of AWS is: one that another attempt may not meet, or one for a person."""
    from botocore.exceptions import (  # noqa: PLC0415
        ClientError,
        ConnectionError,  # noqa: A004 -- the library's name
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
    )

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        passing = status >= SERVER_ERROR or status == TOO_MANY or "Throttl" in code
    elif isinstance(error, NoCredentialsError):
        # A role's keys are in the metadata service, which may be late after a boot.
        passing = metadata_endpoint(environ) is not None
    else:
        passing = isinstance(error, ConnectionError | HTTPClientError | CredentialRetrievalError)
    return SecretsUnreachable if passing else SecretsError
