"""What `make ami` needs besides Packer: is there an account to build in, and where does the deployment find the image?

python packer/ami.py check REGION
python packer/ami.py record MANIFEST DESTINATION
python packer/ami.py prune REGION KEEP
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REMEDY = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and try again"
SECONDS = 10


class AmiError(Exception):
    """Something a person can put right; the message says how."""


def check(region: str) -> str:
    """Return the account that the credentials of this environment belong to.

    Raises:
        AmiError: There are none, or AWS does not accept them.
    """
    import boto3  # noqa: PLC0415 -- a third of a second
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(
        connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 2}
    )
    try:
        client = boto3.session.Session().client("sts", region_name=region, config=config)
        return str(client.get_caller_identity()["Account"])
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise AmiError(f"AWS does not accept these credentials ({code}); {REMEDY}") from error
    except BotoCoreError as error:
        raise AmiError(f"no AWS account to build in: {error}; {REMEDY}") from error


def prune(region: str, keep: int) -> list[str]:
    """Remove images of Mayfly with their snapshots, but for the newest of each processor and those in use.

    Args:
        region: Where.
        keep: How many of each processor stay.

    Returns:
        A line for each image that is gone.

    Raises:
        AmiError: AWS does not do it.
    """
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=SECONDS, read_timeout=60, retries={"total_max_attempts": 3})
    gone: list[str] = []
    left: list[str] = []
    try:
        ec2: Any = boto3.session.Session().client("ec2", region_name=region, config=config)
        wanted = [{"Name": "tag-key", "Values": ["mayfly:built"]}]
        images = ec2.describe_images(Owners=["self"], Filters=wanted)["Images"]
        for image in superseded(images, in_use(ec2), keep):
            ec2.deregister_image(ImageId=image["ImageId"])
            disks = (disk.get("Ebs", {}).get("SnapshotId") for disk in image["BlockDeviceMappings"])
            # Nobody finds them by the image any more.
            left = [snapshot for snapshot in disks if snapshot]
            while left:
                ec2.delete_snapshot(SnapshotId=left[0])
                del left[0]
            gone.append(f"removed {image['ImageId']} {image['Name']}, with its snapshots")
    except (BotoCoreError, ClientError) as error:
        alone = f"; delete these snapshots, whose image is gone: {', '.join(left)}" if left else ""
        done = f" ({'; '.join(gone)})" if gone else ""
        raise AmiError(f"old images cannot be removed: {error}{alone}; {REMEDY}{done}") from error
    return gone


def superseded(
    images: Iterable[Mapping[str, Any]], used: set[str], keep: int
) -> list[Mapping[str, Any]]:
    """Return the images that go: neither in use nor among the newest of their processor."""
    by_arch = defaultdict(list)
    for image in images:
        by_arch[image["Architecture"]].append(image)
    return [
        image
        for some in by_arch.values()
        for image in sorted(some, key=_built, reverse=True)[keep:]
        if image["ImageId"] not in used
    ]


def _built(image: Mapping[str, Any]) -> str:
    return next((tag["Value"] for tag in image["Tags"] if tag["Key"] == "mayfly:built"), "")


def in_use(ec2: Any) -> set[str]:
    """Return the images of the launch templates' latest versions, and those that machines which are not gone came from.

    A stack starts its machines from the latest version; the default one stays the first, whose image nobody needs.
    """
    pages = ec2.get_paginator("describe_launch_templates").paginate()
    templates = [row["LaunchTemplateId"] for page in pages for row in page["LaunchTemplates"]]
    found = {
        version["LaunchTemplateData"].get("ImageId", "")
        for name in templates
        for version in ec2.describe_launch_template_versions(
            LaunchTemplateId=name, Versions=["$Latest"]
        )["LaunchTemplateVersions"]
    }
    machines = ec2.get_paginator("describe_instances").paginate()
    return found | {
        machine["ImageId"]
        for page in machines
        for row in page["Reservations"]
        for machine in row["Instances"]
        if machine["State"]["Name"] != "terminated"
    }


def record(manifest: Path, destination: Path) -> str:
    """Write the image of Packer's last build into the deployment's file, and return its id.

    The file maps region and architecture to the newest image: `{"ap-northeast-3": {"x86_64": {"image": "ami-..."}}}`.

    Raises:
        AmiError: The manifest has no image, or the deployment's file is not what this writes.
    """
    try:
        builds = json.loads(manifest.read_text("utf-8"))["builds"]
        built = builds[-1]
        region, _, image = str(built["artifact_id"]).split(",")[0].partition(":")
        facts = {
            key: str(built["custom_data"][key]) for key in ("arch", "version", "commit", "built")
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AmiError(f"{manifest} names no image: {error!r}") from error
    if not image.startswith("ami-"):
        raise AmiError(f"{manifest} names no image but {built['artifact_id']!r}")
    known: dict[str, Any] = {}
    try:
        if destination.exists():
            known = json.loads(destination.read_text("utf-8"))
        known.setdefault(region, {})[facts.pop("arch")] = {"image": image, **facts}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise AmiError(f"{image} is built, and {destination} cannot take it: {error}") from error
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")
    draft.replace(destination)
    return image


def main(arguments: list[str]) -> int:
    """Run one of the commands."""
    try:
        match arguments:
            case ["check", region]:
                print(f"ami: account {check(region)}, region {region}", file=sys.stderr)
            case ["record", manifest, destination]:
                print(record(Path(manifest), Path(destination)))
            case ["prune", region, keep] if keep.isdecimal() and int(keep) > 0:
                for line in prune(region, int(keep)):
                    print(f"ami: {line}", file=sys.stderr)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except AmiError as error:
        print(f"ami: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
