"""Secrets are set, listed and removed in the parameter store of AWS. What reads them is `agent.secrets.sources`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from agent.base.errors import SecretsError
from agent.secrets.parameters import Parameter
from agent.secrets.sources import ssm_client

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

T = TypeVar("T")
DESCRIPTION = "set by mayfly secrets"
DENIED = frozenset({"AccessDeniedException", "AccessDenied", "403"})
"""The last is a refusal in another form than SSM's own, as a proxy or a stand-in sends it."""
UNKNOWN_KEYS = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException"}
)


class Parameters:
    """The secrets below one path.

    Every call is bounded by the client's own limits of time and attempts.
    """

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ

    def set(self, name: str, value: str) -> int:
        """Store a value, encrypted with the account's own key, and return its version: 1 for a new one.

        Raises:
            SecretsError: SSM did not take it.
        """
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
        """Return what is there, by name; values are neither shown nor asked for in the clear.

        Raises:
            SecretsError: SSM did not answer.
        """

        def read(ssm: "SSMClient") -> list[Parameter]:
            pages = ssm.get_paginator("get_parameters_by_path").paginate(
                Path=self._path, Recursive=False, WithDecryption=False
            )
            return [
                Parameter(row["Name"].rpartition("/")[2], row["LastModifiedDate"], row["Version"])
                for page in pages
                for row in page["Parameters"]
            ]

        return sorted(self._ask("ssm:GetParametersByPath", read), key=lambda one: one.name)

    def remove(self, name: str) -> bool:
        """Remove one, and return whether it was there.

        Raises:
            SecretsError: SSM did not do it.
        """
        answer = self._ask(
            "ssm:DeleteParameters",
            lambda ssm: ssm.delete_parameters(Names=[f"{self._path}/{name}"]),
        )
        return bool(answer["DeletedParameters"])

    def _ask(self, action: str, question: "Callable[[SSMClient], T]") -> T:
        # boto3 takes a third of a second: only where SSM is used.
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return question(ssm_client(self._environ))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "an error")
            raise SecretsError(
                f"SSM answered {code} for {action} on {self._path}",
                remedy=_remedy(code, action, self._path),
            ) from error
        except BotoCoreError as error:
            raise SecretsError(
                f"SSM cannot be asked: {error}",
                remedy="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from error


def _remedy(code: str, action: str, path: str) -> str:
    if code in DENIED:
        return f"allow {action} on arn:aws:ssm:*:*:parameter{path} and parameter{path}/*"
    if code in UNKNOWN_KEYS:
        return "the keys are wrong or too old; log in again"
    if code == "ThrottlingException":
        return "try again in a minute"
    return ""
