"""Checks of a deployed stack, from a laptop, before its first night: `mayfly doctor --aws`."""

import base64
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.base.units import show_duration
from agent.config.overrides import Loaded
from agent.config.settings import Settings
from agent.doctor.cloud import CloudError, Deployment, Stack
from agent.doctor.examine import Check, Finding, Installation, failed, ok, skipped
from agent.machine.guard import DEADMAN_SECONDS
from agent.secrets.parameters import SSM, STORE_NAMES

SECONDS = 60.0
DEFAULT_KEY = "alias/aws/ssm"
"""SSM's own key, which every role of the account may use through SSM."""
STANDARD = frozenset("acdhimrtz")
"""First letters of the types that share one quota."""
QUOTAS = {"spot": "L-34B43A08", "on-demand": "L-1216C47A"}
"""Codes of the quotas of vCPUs of standard types, by market."""
MARKETS = {
    "spot": "All Standard Spot Instance Requests",
    "on-demand": "Running On-Demand Standard instances",
}
PRESENT = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


Look = Callable[[Deployment, Stack], Awaitable[Finding]]


def aws_checks(deployment: Deployment) -> Sequence[Check]:
    """Return the checks of a stack."""
    looks: Mapping[str, Look] = {
        "template": _template,
        "image": _image,
        "configuration": _configuration,
        "parameters": _parameters,
        "role": _role,
        "schedules": _schedules,
        "quota": _quota,
    }
    return (
        Check("account", SECONDS, partial(_account, deployment)),
        Check("stack", SECONDS, partial(_stack, deployment)),
        *(
            Check(name, SECONDS, partial(_of_stack, deployment, look))
            for name, look in looks.items()
        ),
    )


async def _account(deployment: Deployment, _: Installation) -> Finding:
    """Ask whose keys these are, and for which region."""
    region = await deployment.region()
    whose = await deployment.call("sts", "get_caller_identity")
    return ok(f"{whose['Account']} in {region}, as {whose['Arn']}")


async def _stack(deployment: Deployment, _: Installation) -> Finding:
    name = deployment.name
    stack = await deployment.stack()
    if stack is None:
        return failed(
            f"there is no stack {name} in this region",
            "`make deploy` makes it; --stack names another, AWS_REGION another region",
        )
    if stack.status not in PRESENT:
        return failed(
            f"{name} is {stack.status}", "wait, or look at its events in CloudFormation's console"
        )
    return ok(f"{name}: {stack.status}, mode {stack.parameters.get('Mode', 'unknown')}")


async def _of_stack(deployment: Deployment, look: Look, _: Installation) -> Finding:
    stack = await deployment.stack()
    if stack is None:
        return skipped(f"there is no stack {deployment.name}")
    return await look(deployment, stack)


async def _template(deployment: Deployment, _: Stack) -> Finding:
    """Compare the stack's template with that of the checkout."""
    path = deployment.folder / "mayfly.yaml"
    if not path.exists():
        return skipped("this program does not run from a checkout: nothing to compare with")
    ours = path.read_text("utf-8")
    theirs = await deployment.call("cloudformation", "get_template", StackName=deployment.name)
    if _lines(str(theirs["TemplateBody"])) != _lines(ours):
        return failed(
            "the stack was made from another template than this checkout's", "make deploy"
        )
    return ok("the checkout's")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


async def _image(deployment: Deployment, stack: Stack) -> Finding:
    """Check that the image exists in this region and fits the processor."""
    image = stack.parameters.get("ImageId", "")
    kind = stack.parameters.get("InstanceType", "")
    remedy = "`make ami CONFIG=agent.toml` builds one here, then `make deploy`"
    try:
        found = (await deployment.call("ec2", "describe_images", ImageIds=[image]))["Images"]
    except CloudError as error:
        if not error.code.startswith("InvalidAMIID"):
            raise
        found = []
    if not found:
        return failed(f"{image} is not in this region, or was removed", remedy)
    if found[0]["State"] != "available":
        return failed(f"{image} is {found[0]['State']}", "wait until it is available, or " + remedy)
    arch = found[0]["Architecture"]
    fitting = (await _types(deployment, [kind]))[kind]["ProcessorInfo"]["SupportedArchitectures"]
    if arch not in fitting:
        return failed(
            f"{image} is for {arch}, {kind} is {', '.join(fitting)}",
            f"make ami ARCH={fitting[-1]}, or another InstanceType",
        )
    newest = _built(deployment.folder, await deployment.region(), arch)
    newer = f"; ami.json has {newest}, `make deploy` takes it" if newest not in {"", image} else ""
    return ok(f"{image}, {arch}, made {found[0]['CreationDate']}{newer}")


def _built(folder: Path, region: str, arch: str) -> str:
    """Return the image that `make ami` built last; empty if this checkout knows of none."""
    try:
        images = json.loads((folder / "ami.json").read_text("utf-8"))
        return str(images[region][arch]["image"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


async def _types(deployment: Deployment, names: Sequence[str]) -> dict[str, Any]:
    answer = await deployment.call("ec2", "describe_instance_types", InstanceTypes=list(names))
    return {row["InstanceType"]: row for row in answer["InstanceTypes"]}


async def _loaded(deployment: Deployment, stack: Stack) -> Loaded:
    """Return the configuration of a machine that the stack launches."""
    template = stack.resources.get("LaunchTemplate")
    if template is None:
        return deployment.configure(None)
    wanted = {"LaunchTemplateId": template, "Versions": ["$Latest"]}
    found = await deployment.call("ec2", "describe_launch_template_versions", **wanted)
    data = found["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    return deployment.configure(base64.b64decode(data.get("UserData", "")).decode())


async def _configuration(deployment: Deployment, stack: Stack) -> Finding:
    """Read the configuration as the machine will: this one, and the stack's form above it; the guard must fit it."""
    loaded = await _loaded(deployment, stack)
    if loaded.faults:
        return failed(
            "\n".join(map(str, loaded.faults)),
            "correct agent.toml (then make ami), or Config and its neighbours: make deploy PARAMETERS=...",
        )
    settings = loaded.settings
    run, deadline = settings.limits.run, stack.parameters.get("DeadlineMinutes")
    needed = math.ceil((run + DEADMAN_SECONDS) / 60)
    if deadline is not None and float(deadline) < needed:
        return failed(
            f"the guard ends a machine after DeadlineMinutes={deadline}, limits.run is {show_duration(run)},"
            f" and an hour more is the machine's own deadline: {needed} minutes",
            f"make deploy PARAMETERS=DeadlineMinutes={needed} (1440 at most), or a shorter limits.run",
        )
    return ok(f"releases of {settings.release.repository}, into {settings.store.url}")


async def _parameters(deployment: Deployment, stack: Stack) -> Finding:
    """Check that each path of the configuration has parameters here."""
    sources = sources_of((await _loaded(deployment, stack)).settings)
    if not sources:
        return skipped("the configuration reads nothing from SSM")
    missing, there = [], []
    for key, path in sources.items():
        names = {row["Name"].rpartition("/")[2] for row in await _listed(deployment, path)}
        lacking = sorted(set(STORE_NAMES[:2]) - names) if key == "store.credentials" else []
        if lacking or not names:
            missing.append(f"{key}: {path} has no {' and no '.join(lacking) or 'parameters'}")
        there.append(f"{path} ({', '.join(sorted(names))})")
    if missing:
        return failed(
            "\n".join(missing),
            "`mayfly secrets set NAME`, with --bucket for the bucket's keys, in the stack's region",
        )
    return ok("; ".join(there))


def sources_of(settings: Settings) -> dict[str, str]:
    """Return every SSM path of a configuration, by its key."""
    found: dict[str, str] = {}

    def walk(key: str, value: object) -> None:
        if isinstance(value, Mapping):
            for name, one in value.items():
                walk(f"{key}.{name}" if key else str(name), one)
        elif isinstance(value, str) and value.startswith(SSM):
            found[key] = "/" + value.removeprefix(SSM).strip("/")

    walk("", settings.model_dump(mode="json"))
    return found


async def _listed(deployment: Deployment, path: str) -> list[Any]:
    def pages(client: Any) -> list[Any]:
        wanted = [{"Key": "Path", "Option": "OneLevel", "Values": [path]}]
        found = client.get_paginator("describe_parameters").paginate(ParameterFilters=wanted)
        return [row for page in found for row in page["Parameters"]]

    return await deployment.ask("ssm", pages)


async def _role(deployment: Deployment, stack: Stack) -> Finding:
    """Let IAM simulate what the machine's role does first: read its secrets, use its bucket."""
    name = stack.resources.get("InstanceRole") or stack.parameters.get("InstanceRoleName", "")
    arn = (await deployment.call("iam", "get_role", RoleName=name))["Role"]["Arn"]
    region = await deployment.region()
    partition, account = arn.split(":")[1], arn.split(":")[4]
    ours = f"arn:{partition}:ssm:{region}:{account}:parameter"
    paths = list(sources_of((await _loaded(deployment, stack)).settings).values())
    calls = [("ssm:GetParametersByPath", ours + path) for path in paths]
    calls += [("kms:Decrypt", key) for key in await _own_keys(deployment, paths)]
    if bucket := stack.parameters.get("BucketName"):
        calls.append(("s3:ListBucket", f"arn:{partition}:s3:::{bucket}"))
        calls.append(("s3:PutObject", f"arn:{partition}:s3:::{bucket}/runs/x"))
    refused = [call for call in calls if not await _may(deployment, arn, *call)]
    if refused:
        return failed(
            "\n".join(f"{name} may not {action} on {resource}" for action, resource in refused),
            "make ParameterPrefix and BucketName fit agent.toml: make deploy PARAMETERS=..."
            if "InstanceRole" in stack.resources
            else "allow it in that role's policy, which is not the stack's",
        )
    return ok(
        f"{name}: {', '.join(dict.fromkeys(action for action, _ in calls)) or 'nothing to do'}"
    )


async def _own_keys(deployment: Deployment, paths: Sequence[str]) -> list[str]:
    """Return the account's keys that encrypt parameters, other than SSM's own."""
    rows = [row for path in paths for row in await _listed(deployment, path)]
    keys = sorted({row.get("KeyId", DEFAULT_KEY) for row in rows} - {DEFAULT_KEY})
    answers = [await deployment.call("kms", "describe_key", KeyId=key) for key in keys]
    return [answer["KeyMetadata"]["Arn"] for answer in answers]


async def _may(deployment: Deployment, role: str, action: str, resource: str) -> bool:
    wanted = {"PolicySourceArn": role, "ActionNames": [action], "ResourceArns": [resource]}
    answer = await deployment.call("iam", "simulate_principal_policy", **wanted)
    return all(row["EvalDecision"] == "allowed" for row in answer["EvaluationResults"])


async def _schedules(deployment: Deployment, stack: Stack) -> Finding:
    shown, off = [], []
    for name in stack.schedules:
        row = await deployment.call("scheduler", "get_schedule", Name=stack.resources[name])
        zone = row.get("ScheduleExpressionTimezone")
        shown.append(" ".join(filter(None, [name, row["ScheduleExpression"], zone])))
        if row["State"] != "ENABLED":
            off.append(shown[-1])
    if off or not shown:
        return failed(
            f"disabled: {', '.join(off)}" if off else "the stack has no schedule",
            "make deploy PARAMETERS=ScheduleState=ENABLED",
        )
    return ok(", ".join(shown))


async def _quota(deployment: Deployment, stack: Stack) -> Finding:
    """Compare the vCPUs of the largest type with what the account may have."""
    spread = ["SecondType", "ThirdType"] if stack.parameters.get("Spread") == "yes" else []
    names = {stack.parameters[name] for name in ["InstanceType", *spread]}
    names = {name for name in names if name[:1] in STANDARD}
    if not names:
        return skipped("the types have quotas of their own: look into Service Quotas")
    rows = await _types(deployment, sorted(names))
    needed = max(row["VCpuInfo"]["DefaultVCpus"] for row in rows.values())
    markets = ["spot", *(["on-demand"] if stack.parameters.get("LastResortExpression") else [])]
    limits = {market: await _limit(deployment, QUOTAS[market]) for market in markets}
    low = [market for market in markets if limits[market] < needed]
    if low:
        return failed(
            "\n".join(f"{one}: {limits[one]:g} vCPUs, a machine has {needed}" for one in low),
            "Service Quotas, Amazon EC2: ask for more of "
            + " and ".join(f"{MARKETS[one]!r} ({QUOTAS[one]})" for one in low),
        )
    shown = ", ".join(f"{limits[one]:g} of {one}" for one in markets)
    return ok(f"{shown}; a machine has {needed} vCPUs")


async def _limit(deployment: Deployment, code: str) -> float:
    """Return a quota: the account's own, else AWS's default."""

    def question(client: Any) -> float:
        named = {"ServiceCode": "ec2", "QuotaCode": code}
        try:
            answer = client.get_service_quota(**named)
        except client.exceptions.NoSuchResourceException:
            answer = client.get_aws_default_service_quota(**named)
        return float(answer["Quota"]["Value"])

    return await deployment.ask("service-quotas", question)
