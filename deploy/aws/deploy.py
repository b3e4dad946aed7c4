"""What `make deploy` and `make undeploy` do: the stack of deploy/aws/mayfly.yaml comes, changes and goes.

python deploy/aws/deploy.py up [--dry-run] [--stack NAME] [--region REGION] [PARAMETER=VALUE ...]
python deploy/aws/deploy.py down [--dry-run] [--stack NAME] [--region REGION] [--yes]

Credentials are boto3's: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Without --region it is AWS_REGION,
AWS_DEFAULT_REGION or ap-northeast-3, as for `make ami`. Parameters of a stack that exists keep their values unless they
are given. The image of such a stack becomes the newest of deploy/aws/ami.json when no parameter is given, or when the
processor changes.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.literals import CapabilityType
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef

HERE = Path(__file__).parent
TEMPLATE = HERE / "mayfly.yaml"
IMAGES = HERE / "ami.json"
STACK = "mayfly"
REGION = "ap-northeast-3"
CAPABILITIES: "tuple[CapabilityType, ...]" = ("CAPABILITY_IAM",)
SECONDS = 30 * 60
"""For a stack to come or to go; machines that end take some minutes of it."""
POLL_SECONDS = 5.0
CONNECT_SECONDS = 10
DEAD = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"})
"""States of a stack that CloudFormation lets nobody change, only delete."""
REMEDY = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and try again"
REPLACED = {"True": "  (replaced)", "Conditional": "  (perhaps replaced)"}
"""What a change set says of a resource that does not stay, or may not."""
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
_ARM = re.compile(r"[a-z]+\d+g[a-z]*\.", re.ASCII)


class DeployError(Exception):
    """Something a person can put right; the message says how."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants deployed.

    Attributes:
        stack: The stack's name.
        region: Where.
        given: Parameters by name.
        dry: Only show what would change.
    """

    stack: str
    region: str
    given: Mapping[str, str]
    dry: bool = False


def processor_of(instance_type: str) -> str:
    """Return the processor of a type, as images name it."""
    return "arm64" if _ARM.match(instance_type) else "x86_64"


def image_for(images: Mapping[str, Any], region: str, instance_type: str) -> str:
    """Return the image that was built for a region and the processor of a type.

    Raises:
        DeployError: There is none.
    """
    arch = processor_of(instance_type)
    image = images.get(region, {}).get(arch, {}).get("image")
    if not isinstance(image, str):
        raise DeployError(
            f"no image for {arch} in {region}: build one with `make ami`, or say ImageId=ami-..."
        )
    return image


def built_images(file: Path) -> Mapping[str, Any]:
    """Return what `make ami` noted in its file; nothing without one.

    Raises:
        DeployError: It is not what `make ami` writes.
    """
    try:
        known = json.loads(file.read_text("utf-8"))
        if all(isinstance(one, dict) for region in known.values() for one in region.values()):
            return dict(known)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise DeployError(f"{file} cannot be read ({error}); remove it, or `make ami`") from error
    raise DeployError(f"{file} is not what `make ami` writes; remove it")


def parameters_of(pairs: Iterable[str]) -> dict[str, str]:
    """Return `NAME=VALUE` arguments by name.

    Raises:
        DeployError: One is not of that form.
    """
    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isalnum():
            raise DeployError(f"{pair!r} is not NAME=VALUE, such as InstanceType=t3.large")
        given[name] = value
    return given


class Deployment:
    """One stack.

    Args:
        client: CloudFormation, in the stack's region.
        template: The template's text.
        images: What `make ami` built, by region and processor.
        poll: Seconds between two looks.
    """

    def __init__(
        self,
        client: "CloudFormationClient",
        template: str,
        images: Mapping[str, Any],
        poll: float = POLL_SECONDS,
    ) -> None:
        self._client = client
        self._template = template
        self._images = images
        self._poll = poll

    def up(self, wish: Wish) -> dict[str, str]:
        """Bring the stack to what is wished, and return its outputs; a dry run returns none.

        Raises:
            DeployError: CloudFormation refuses it, or it failed and was rolled back.
        """
        known = self._known(wish.stack)
        status = known["StackStatus"] if known else ""
        if status in DEAD:
            raise DeployError(f"{wish.stack} is {status}; `make undeploy`, then deploy again")
        # One in review has nothing yet but a name.
        before = None if status == "REVIEW_IN_PROGRESS" else known
        name = f"mayfly-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        parameters = self._parameters(wish, before)
        self._client.create_change_set(
            StackName=wish.stack,
            ChangeSetName=name,
            ChangeSetType="CREATE" if before is None else "UPDATE",
            TemplateBody=self._template,
            Parameters=parameters,
            Capabilities=list(CAPABILITIES),
        )
        made = known is None
        changes = self._changes(wish.stack, name, made=made)
        for line in changes:
            print(line)
        if wish.dry or not changes:
            self._drop(wish.stack, name, made=made)
            print("nothing was changed" if wish.dry else "nothing to change")
            return {} if wish.dry else self._outputs(wish.stack)
        self._client.execute_change_set(StackName=wish.stack, ChangeSetName=name)
        self._wait(wish.stack, {"CREATE_COMPLETE", "UPDATE_COMPLETE"})
        return self._outputs(wish.stack)

    def down(self, stack: str, *, dry: bool) -> None:
        """Delete the stack with its machines, whatever state it is in.

        Raises:
            DeployError: It is not there, or something of it did not go.
        """
        known = self._known(stack)
        if known is None:
            # Somewhere else it may be, with machines that somebody believes to be gone.
            where = self._client.meta.region_name
            raise DeployError(
                f"there is no stack {stack} in {where}; STACK= names another, REGION= another region"
            )
        pages = self._client.get_paginator("list_stack_resources").paginate(StackName=stack)
        for page in pages:
            for row in page["StackResourceSummaries"]:
                print(f"- {row['ResourceType']}  {row['LogicalResourceId']}")
        print("- every machine of the stack, running or stopped")
        if dry:
            print("nothing was deleted")
            return
        # By its id: by its name it cannot be looked at once it is gone.
        self._client.delete_stack(StackName=stack)
        self._wait(known["StackId"], {"DELETE_COMPLETE"})

    def _parameters(self, wish: Wish, before: Any) -> "list[ParameterTypeDef]":
        declared = {
            row["ParameterKey"]
            for row in self._client.get_template_summary(TemplateBody=self._template)["Parameters"]
        }
        unknown = sorted(set(wish.given) - declared)
        if unknown:
            raise DeployError(
                f"no such parameter: {', '.join(unknown)}; there are {', '.join(sorted(declared))}"
            )
        old = {
            row["ParameterKey"]: row["ParameterValue"]
            for row in (before or {}).get("Parameters", [])
        }
        given = dict(wish.given)
        usual = old.get("InstanceType", "t3.medium")
        kind = given.get("InstanceType", usual)
        stays = given and "ImageId" in old and processor_of(kind) == processor_of(usual)
        if "ImageId" not in given and stays:
            print(f"{old['ImageId']} stays; a deploy without parameters takes the newest image")
        elif "ImageId" not in given:
            given["ImageId"] = image_for(self._images, wish.region, kind)
        chosen: list[ParameterTypeDef] = [
            {"ParameterKey": name, "ParameterValue": value} for name, value in given.items()
        ]
        kept: list[ParameterTypeDef] = [
            {"ParameterKey": name, "UsePreviousValue": True}
            for name in sorted((declared & set(old)) - set(given))
        ]
        return [*chosen, *kept]

    def _known(self, stack: str) -> Any:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            (found,) = self._client.describe_stacks(StackName=stack)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return found

    def _drop(self, stack: str, name: str, *, made: bool) -> None:
        """Delete a change set, and what it left in review if it `made` the stack: an empty one."""
        self._client.delete_change_set(StackName=stack, ChangeSetName=name)
        if made:
            self._client.delete_stack(StackName=stack)

    def _changes(self, stack: str, name: str, *, made: bool) -> list[str]:
        """Return a line for each change, once CloudFormation has found them; none when there are none."""
        ends = time.monotonic() + SECONDS
        while True:
            found = self._client.describe_change_set(StackName=stack, ChangeSetName=name)
            reason = found.get("StatusReason", "")
            if found["Status"] == "FAILED" and any(text in reason for text in NO_CHANGES):
                return []
            if found["Status"] == "FAILED":
                self._drop(stack, name, made=made)
                raise DeployError(f"CloudFormation refuses the change: {reason}")
            if found["Status"] == "CREATE_COMPLETE":
                rows = [change.get("ResourceChange", {}) for change in found["Changes"]]
                return [
                    f"{row.get('Action', '?'):8} {row.get('ResourceType', '?')}  "
                    f"{row.get('LogicalResourceId', '?')}{REPLACED.get(row.get('Replacement', ''), '')}"
                    for row in rows
                ]
            self._pause(ends, "CloudFormation did not find the changes")

    def _wait(self, stack: str, good: set[str]) -> None:
        ends = time.monotonic() + SECONDS
        while True:
            (found,) = self._client.describe_stacks(StackName=stack)["Stacks"]
            status = found["StackStatus"]
            if status in good:
                print(status)
                return
            if not status.endswith("_IN_PROGRESS"):
                raise DeployError(f"{status}\n{self._complaints(stack)}")
            self._pause(ends, f"it is still {status}")

    def _complaints(self, stack: str) -> str:
        events = self._client.describe_stack_events(StackName=stack)["StackEvents"]
        lines = [
            f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in events
            if event["ResourceStatus"].endswith("FAILED")
        ]
        return "\n".join(reversed(lines))

    def _outputs(self, stack: str) -> dict[str, str]:
        (found,) = self._client.describe_stacks(StackName=stack)["Stacks"]
        return {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs", [])}

    def _pause(self, ends: float, what: str) -> None:
        if time.monotonic() > ends:
            raise DeployError(f"{what} after {SECONDS / 60:.0f} minutes; look into the console")
        time.sleep(self._poll)


def main(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    options = _options(arguments)
    try:
        return _act(options)
    except DeployError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1


def _act(options: argparse.Namespace) -> int:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    images = built_images(IMAGES)
    try:
        deployment = Deployment(_client(options.region), TEMPLATE.read_text("utf-8"), images)
        if options.command == "up":
            wish = Wish(
                options.stack, options.region, parameters_of(options.parameters), options.dry_run
            )
            for name, value in sorted(deployment.up(wish).items()):
                print(f"{name}: {value}")
            return 0
        if not (options.dry_run or options.yes or _confirmed(options.stack, options.region)):
            return 1
        deployment.down(options.stack, dry=options.dry_run)
    except ClientError as error:
        # What is wrong with parameters, such as a rule of the template that they break, other keys do not put right.
        invalid = error.response.get("Error", {}).get("Code") == "ValidationError"
        raise DeployError(f"AWS refuses: {error}{'' if invalid else f'; {REMEDY}'}") from error
    except BotoCoreError as error:
        raise DeployError(f"AWS cannot be asked: {error}; {REMEDY}") from error
    return 0


def _confirmed(stack: str, region: str) -> bool:
    if not sys.stdin.isatty():
        raise DeployError("nobody is there to be asked; say --yes")
    what = f"the stack {stack} in {region} with all its machines"
    return input(f"Delete {what}? Type its name: ") == stack


def _client(region: str) -> "CloudFormationClient":
    import boto3  # noqa: PLC0415 -- a third of a second
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=60, retries={"total_max_attempts": 4}
    )
    return boto3.session.Session().client("cloudformation", region_name=region, config=config)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy.py", description="The stack of Mayfly on AWS.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make or change the stack")
    up.add_argument("parameters", nargs="*", metavar="PARAMETER=VALUE")
    down = commands.add_parser("down", help="delete the stack and every machine of it")
    down.add_argument("--yes", action="store_true", help="do not ask")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
    for command in (up, down):
        command.add_argument("--dry-run", action="store_true", help="only show what would change")
        command.add_argument("--stack", default=STACK)
        command.add_argument("--region", default=region)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
