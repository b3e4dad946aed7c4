"""What `make ami` needs besides Packer: is there an account to build in, and where does the deployment find the image?

python packer/ami.py check REGION
python packer/ami.py record MANIFEST DESTINATION
"""

import json
import os
import sys
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


def record(manifest: Path, destination: Path) -> str:
    """Write the image of Packer's last build into the deployment's file, and return its id.

    The file maps region and architecture to the newest image: `{"ap-northeast-3": {"x86_64": {"image": "ami-..."}}}`.

    Raises:
        AmiError: The manifest has no image.
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
    if destination.exists():
        known = json.loads(destination.read_text("utf-8"))
    known.setdefault(region, {})[facts.pop("arch")] = {"image": image, **facts}
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")
    draft.replace(destination)
    return image


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    try:
        match arguments:
            case ["check", region]:
                print(f"ami: account {check(region)}, region {region}", file=sys.stderr)
            case ["record", manifest, destination]:
                print(record(Path(manifest), Path(destination)))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except AmiError as error:
        print(f"ami: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
