"""The parameter store of AWS: secrets are read, set, listed and removed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from agent.base.errors import SecretsError, SecretsUnreachable
from agent.base.threads import in_thread
from agent.machine.aws import NEW_KEYS, UNKNOWN_KEYS, Waits, aws_client, error_code
from agent.machine.metadata import SERVER_ERROR, TOO_MANY, metadata_endpoint
from agent.secrets.parameters import Parameter

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_ssm.type_defs import ParameterTypeDef

T = TypeVar("T")
SSM_SECONDS = 45.0
"""For all pages, retries included."""
_WAITS = Waits(connect=5, read=10, attempts=3)
READ = "ssm:GetParametersByPath"
DESCRIPTION = "set by mayfly secrets"
DENIED = frozenset({"AccessDeniedException", "AccessDenied", "403"})
"""The last comes from a proxy or a stand-in, not from SSM."""


async def read_parameters(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values directly below a path, by name.

    Raises:
        SecretsUnreachable: SSM did not answer, or not in time.
        SecretsError: It has none there, or denied access.
    """
    try:
        return await in_thread(lambda: _read(f"/{path.strip('/')}", environ), seconds=SSM_SECONDS)
    except TimeoutError as error:
        raise SecretsUnreachable(
            f"SSM did not give the parameters under {path} within {SSM_SECONDS:g} s",
            remedy="check the network, and the route or the endpoint to SSM",
        ) from error


def _read(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    rows = _asked(READ, path, environ, lambda ssm: _rows(ssm, path, decrypted=True))
    if not rows:
        raise SecretsError(
            f"SSM has no parameters under {path} in this region",
            remedy="`mayfly secrets set NAME` stores one (`aws ssm put-parameter` does, too)",
        )
    return {_leaf(row): row["Value"] for row in rows}


def _rows(ssm: "SSMClient", path: str, *, decrypted: bool) -> "list[ParameterTypeDef]":
    pages = ssm.get_paginator("get_parameters_by_path").paginate(
        Path=path, Recursive=False, WithDecryption=decrypted
    )
    return [row for page in pages for row in page["Parameters"]]


def _leaf(row: "ParameterTypeDef") -> str:
    return row["Name"].rpartition("/")[2]


def _asked(
    action: str, path: str, environ: Mapping[str, str], question: "Callable[[SSMClient], T]"
) -> T:
    """Return what SSM answers; `action` and `path` are for messages.

    Raises:
        SecretsUnreachable: It did not answer; a retry may help.
        SecretsError: It denied access, or there are no keys.
    """
    # boto3 takes a third of a second and 30 MB: only where SSM is used.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        client: SSMClient = aws_client("ssm", environ, _WAITS)
        return question(client)
    except ClientError as error:
        code = error_code(error)
        raise _kind(error, environ)(
            f"SSM answered {code} for {action} on {path}", remedy=_remedy(code, action, path)
        ) from error
    except BotoCoreError as error:
        raise _kind(error, environ)(
            f"the request to SSM for {path} failed: {error}",
            remedy="attach a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from error


def _kind(error: "ClientError | BotoCoreError", environ: Mapping[str, str]) -> type[SecretsError]:
    """Return whether another attempt may succeed."""
    from botocore.exceptions import (  # noqa: PLC0415
        ClientError,
        ConnectionError,  # noqa: A004 -- the library's name
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
    )

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = status >= SERVER_ERROR or status == TOO_MANY or "Throttl" in error_code(error)
    elif isinstance(error, NoCredentialsError):
        # A role's keys are in the metadata service, which may be late after a boot.
        passing = metadata_endpoint(environ) is not None
    else:
        passing = isinstance(error, ConnectionError | HTTPClientError | CredentialRetrievalError)
    return SecretsUnreachable if passing else SecretsError


class Parameters:
    """The secrets below one path. Each call is limited by the client's own limits of time and attempts.

    Each method raises `SecretsError` when SSM fails it.
    """

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ

    def set(self, name: str, value: str) -> int:
        """Store a value, encrypted with the account's own key; return its version: 1 for a new one."""
        answer = self._ask(
            "ssm:PutParameter",
            lambda ssm: ssm.put_parameter(
                Name=f"{self._path}/{name}",
                Value=value,
                Type="SecureString",
                Overwrite=True,
                Description=DESCRIPTION,
            ),
        )
        return answer["Version"]

    def all(self) -> list[Parameter]:
        """Return what is there, by name; values are not decrypted."""
        rows = self._ask(READ, lambda ssm: _rows(ssm, self._path, decrypted=False))
        found = [Parameter(_leaf(row), row["LastModifiedDate"], row["Version"]) for row in rows]
        return sorted(found, key=lambda one: one.name)

    def remove(self, name: str) -> bool:
        """Remove one; return whether it existed."""
        answer = self._ask(
            "ssm:DeleteParameters",
            lambda ssm: ssm.delete_parameters(Names=[f"{self._path}/{name}"]),
        )
        return bool(answer["DeletedParameters"])

    def _ask(self, action: str, question: "Callable[[SSMClient], T]") -> T:
        return _asked(action, self._path, self._environ, question)


def _remedy(code: str, action: str, path: str) -> str:
    if code in DENIED:
        key = ", and kms:Decrypt on their key" if action == READ else ""
        return f"allow {action} on arn:aws:ssm:*:*:parameter{path} and parameter{path}/*{key}"
    if code in UNKNOWN_KEYS:
        return NEW_KEYS
    if code == "ThrottlingException":
        return "try again in a minute"
    return ""
