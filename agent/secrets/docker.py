"""Logins of docker's client: a temporary configuration for one command."""

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.base.errors import SecretsError, SecretsUnreachable
from agent.base.threads import in_thread
from agent.machine.aws import NEW_KEYS, UNKNOWN_KEYS, Waits, aws_client, error_code
from agent.secrets.registries import Login, client_config, ecr_region

ECR_SECONDS = 30.0
_ECR_WAITS = Waits(connect=5, read=10, attempts=2)
_PREFIX = "mayfly-docker-"


@contextmanager
def client_folder(logins: Mapping[str, Login], environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield a folder for `docker --config` only this user can read; it links to the user's own (plugins, contexts).

    Raises:
        SecretsError: It cannot be made, such as on a full disk.
    """
    own = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker")).absolute()
    with ExitStack() as stack:
        try:
            place = _place(environ)
            _sweep(place)
            made = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
            folder = Path(stack.enter_context(made))
            for entry in own.iterdir() if own.is_dir() else ():
                if entry.name != "config.json":
                    (folder / entry.name).symlink_to(entry)
            file = folder / "config.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps(client_config(_read(own / "config.json"), logins)))
        except OSError as error:
            raise SecretsError(
                f"docker's client cannot be given a login: {error}",
                remedy="make room in the temporary folder, and let this user read its own .docker",
            ) from error
        yield folder


def _place(environ: Mapping[str, str]) -> Path:
    for place in (environ.get("XDG_RUNTIME_DIR"), "/run"):
        if place and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return Path(tempfile.gettempdir())


def _sweep(place: Path) -> None:
    """Remove the folders of killed processes."""
    for folder in place.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and not Path("/proc", pid).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


async def ecr_login(host: str, environ: Mapping[str, str]) -> Login:
    """Return a login to a registry of ECR, which the machine's role gets for twelve hours.

    Raises:
        SecretsError: The role may not have one, or AWS did not answer.
    """
    try:
        return await in_thread(lambda: _ask_ecr(host, environ), seconds=ECR_SECONDS)
    except TimeoutError as error:
        raise SecretsUnreachable(
            f"ECR gave no login to {host} within {ECR_SECONDS:g} s", remedy="check the network"
        ) from error


def _ask_ecr(host: str, environ: Mapping[str, str]) -> Login:
    # boto3 takes a third of a second and 30 MB: only where ECR is used.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        region = {"AWS_REGION": ecr_region(host) or ""}
        answer = aws_client("ecr", {**environ, **region}, _ECR_WAITS).get_authorization_token()
        token = answer["authorizationData"][0]["authorizationToken"]
    except ClientError as error:
        code = error_code(error)
        raise SecretsError(
            f"ECR answered {code} for a login to {host}",
            remedy=NEW_KEYS
            if code in UNKNOWN_KEYS
            else "give the machine's role ecr:GetAuthorizationToken, ecr:BatchGetImage and"
            " ecr:GetDownloadUrlForLayer",
        ) from error
    except (BotoCoreError, LookupError) as error:
        raise SecretsError(
            f"ECR gave no login to {host}: {error}", remedy="attach a role or set AWS_PROFILE"
        ) from error
    username, _, password = base64.b64decode(token).decode().partition(":")
    return Login(username, password)
