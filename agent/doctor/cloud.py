"""Questions to an AWS account about a deployed stack, with a person's own keys."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.base.errors import ExitCode, MayflyError
from agent.base.threads import in_thread
from agent.config.overrides import Loaded
from agent.machine.aws import NEW_KEYS, UNKNOWN_KEYS, Waits, aws_client

T = TypeVar("T")

WAITS = Waits(connect=5, read=10, attempts=2)
ASK_SECONDS = 40.0
KEYS_REMEDY = "set AWS_PROFILE and AWS_REGION, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
OTHER_REMEDY = "try again in a minute; if it stays, the service's reference explains the code"
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
SCHEDULE = "AWS::Scheduler::Schedule"


class CloudError(MayflyError):
    """AWS did not answer a question, or denied it."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, message: str, code: str = "", *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of CloudFormation.

    Attributes:
        status: Such as `CREATE_COMPLETE`.
        parameters: Values by name.
        resources: Physical names by logical ones.
        schedules: The logical names of its schedules.
    """

    status: str
    parameters: Mapping[str, str]
    resources: Mapping[str, str]
    schedules: tuple[str, ...]


@dataclass(slots=True)
class Deployment:
    """The account, and the stack to check in it. Methods raise `CloudError` when AWS does not answer or denies access.

    Attributes:
        environ: A person's, with keys and region.
        name: The stack's.
        folder: `deploy/aws` of the checkout that this program runs from; it may not exist.
        configure: Returns the configuration of a machine with this user data.
    """

    environ: Mapping[str, str] = field(repr=False)
    name: str
    folder: Path
    configure: Callable[[str | None], Loaded]
    _stack: asyncio.Future[Stack | None] | None = field(default=None, init=False)

    async def call(self, service: str, action: str, **arguments: Any) -> Any:
        """Return a service's answer to one request; `action` is a method of boto3's client."""
        return await self.ask(service, lambda client: getattr(client, action)(**arguments))

    async def ask(self, service: str, question: Callable[[Any], T]) -> T:
        """Return what `question` makes of a service, whose client it gets."""
        return await in_thread(lambda: self._ask(service, question), seconds=ASK_SECONDS)

    def _ask(self, service: str, question: Callable[[Any], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return question(aws_client(service, self.environ, WAITS))
        except ClientError as error:
            raise _refused(service, error) from error
        except BotoCoreError as error:
            raise CloudError(
                f"the request to {service} failed: {error}", remedy=KEYS_REMEDY
            ) from error

    async def region(self) -> str:
        """Return the region of all questions."""
        return await self.ask("ec2", lambda client: str(client.meta.region_name))

    async def stack(self) -> Stack | None:
        """Return the stack, or None without one; CloudFormation is asked once."""
        if self._stack is None:
            self._stack = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._stack)

    async def _look(self) -> Stack | None:
        try:
            return await self.ask("cloudformation", lambda client: _stack_of(client, self.name))
        except CloudError as error:
            if "does not exist" in str(error):
                return None
            raise


def _stack_of(client: Any, name: str) -> Stack:
    (found,) = client.describe_stacks(StackName=name)["Stacks"]
    # At most 100 of them, which is more than the template has.
    rows = client.describe_stack_resources(StackName=name)["StackResources"]
    return Stack(
        found["StackStatus"],
        {row["ParameterKey"]: row["ParameterValue"] for row in found.get("Parameters", [])},
        {row["LogicalResourceId"]: row.get("PhysicalResourceId", "") for row in rows},
        tuple(row["LogicalResourceId"] for row in rows if row["ResourceType"] == SCHEDULE),
    )


def _refused(service: str, error: Any) -> CloudError:
    answer = error.response.get("Error", {})
    code, message = answer.get("Code", "an error"), answer.get("Message", "")
    if code not in DENIED:
        remedy = NEW_KEYS if code in UNKNOWN_KEYS else OTHER_REMEDY
        return CloudError(f"{service} answers {code}: {message}", code, remedy=remedy)
    return CloudError(
        f"{service} denies these keys {error.operation_name}: {message}",
        code,
        remedy=f"allow this user {service}:{error.operation_name}",
    )
