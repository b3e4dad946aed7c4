"""Credentials of the bucket and secrets of the jobs, from the source that the configuration names."""

import asyncio
import os
import random
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from agent.base.errors import SecretsError, SecretsUnreachable
from agent.base.regular import open_regular
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.config.credentials import Credentials, static_credentials
from agent.config.faults import Fault
from agent.config.settings import Secrets, Store
from agent.secrets.envfile import parse_env
from agent.secrets.parameters import SSM
from agent.secrets.ssm import read_parameters

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
        SecretsError: SSM does not have them.
    """
    if not store.credentials.startswith(SSM):
        return static_credentials(environ)
    path = store.credentials.removeprefix(SSM)
    found = await read_parameters(path, environ)
    missing = [name for name in ("access_key_id", "secret_access_key") if not found.get(name)]
    if missing:
        raise SecretsError(
            f"SSM has no parameter {' and no '.join(f'{path}/{name}' for name in missing)}",
            remedy="`mayfly secrets set --bucket NAME` stores each",
        )
    return Credentials(
        found["access_key_id"], found["secret_access_key"], found.get("session_token")
    )


async def open_bucket(
    store: Store,
    default: Path,
    environ: Mapping[str, str],
    heard: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> Bucket:
    """Return the bucket of a configuration, else of the folder `default`, opened with its keys.

    `heard` gets the keys that no text may show, by name, before they are used.

    Raises:
        SecretsError: Its keys are not available.
        StoreError: It cannot be opened.
    """
    address = bucket_at(store, default)
    credentials = await store_credentials(store, environ)
    if credentials is not None:
        heard({"store": credentials.secret_key, "store-token": credentials.token or ""})
    return await asyncio.to_thread(Bucket.open, address, credentials, environ)


async def until_answered(
    read: Callable[[], Awaitable[T]], *, seconds: float, again: Callable[[SecretsError], None]
) -> T:
    """Return what a source answers; while it does not answer, ask again for `seconds`.

    `again` gets each failure that another attempt follows.

    Raises:
        SecretsUnreachable: It did not answer in time.
        SecretsError: Another attempt would not help.
    """
    # No tenacity: its import costs 60 ms.
    until, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        try:
            return await read()
        except SecretsUnreachable as error:
            if time.monotonic() + pause >= until:
                raise
            again(error)
        await asyncio.sleep(pause)
        pause = random.uniform(FIRST_PAUSE, min(2 * pause, MOST_PAUSE))  # noqa: S311


async def job_secrets(secrets: Secrets, environ: Mapping[str, str]) -> dict[str, str]:
    """Return every secret that jobs may ask for, by name; none if no source is configured.

    Raises:
        SecretsError: The source could not be read.
    """
    if secrets.source is None:
        return {}
    return await read_credentials(secrets.source, "secrets.source", environ)


async def read_credentials(
    source: str, key: str, environ: Mapping[str, str], parse: Parse = parse_env
) -> dict[str, str]:
    """Return the credentials in `ssm:/path`, or in a file that only its owner can read, by name.

    `key` is the configuration's, for messages; `parse` parses the file.

    Raises:
        SecretsError: They cannot be read.
    """
    if source.startswith(SSM):
        return await read_parameters(source.removeprefix(SSM), environ)
    home = f"{environ.get('HOME', '')}/"
    file = Path(home + source[2:] if source.startswith("~/") else source)
    return read_env_file(file, key, parse)


def read_env_file(
    path: Path, key: str = "secrets.source", parse: Parse = parse_env
) -> dict[str, str]:
    """Return the secrets of an env file; arguments as for `read_credentials`.

    Raises:
        SecretsError: It cannot be read, others could read it, or it has faults: all of them, by line.
    """
    try:
        with open_regular(path) as stream:
            _refuse_open_files(path, key, os.fstat(stream.fileno()))
            text = stream.read(MAX_ENV_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SecretsError(
            f"the secrets in {path} cannot be read: {reason}",
            remedy=f'check {key}: a file, or "ssm:/path"',
        ) from error
    values, faults = parse(text, str(path))
    if faults:
        raise SecretsError("\n".join(map(str, faults)), remedy="write NAME=value, one a line")
    return values


def _refuse_open_files(path: Path, key: str, status: os.stat_result) -> None:
    if status.st_size > MAX_ENV_BYTES:
        raise SecretsError(f"{path} is not an env file", remedy=f'{key} is a file, or "ssm:/path"')
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretsError(
            f"others than its owner can read {path} (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"chmod 600 {path}",
        )
