"""An instance metadata service: the IMDSv2 protocol of Amazon's, for machines that QEMU boots.

Without a token it answers 401, as `http_tokens = required` makes the real one do.
"""

import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.parts.loopback_http import LoopbackHttp, QuietHandler

ADDRESS = "169.254.169.254"
TOKEN_PATH = "/latest/api/token"
TOKEN_SECONDS = 21600
ROLE = "mayfly"
VERSION = re.compile(r"/(latest|\d{4}-\d\d-\d\d)/")
"""Of the protocol; what is asked for of an old one is answered alike."""


class Metadata(LoopbackHttp):
    """The service of one instance, as a context manager.

    Attributes:
        tags: The instance's tags.
        document: The identity document.
        notice: When the instance will be taken away; None for never.
        rebalance: Whether it may be taken away soon.
        credentials: Access key and secret key of the instance's role; None for an instance without a role.
        session_token: What belongs to the role's keys.
        tokens: The session tokens that it accepts.
        requests: Method, path and whether the token was good, of each request in order.
        said: What it says at a path below `/latest/` instead of the truth; None for a 404.
        status: When set, what it answers to everything but what is spared, such as 503.
        spared: How the paths begin that it answers all the same.
        delay: Seconds that each answer takes from now on.
    """

    def __init__(
        self,
        *,
        tags: dict[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
        instance_id: str = "i-0123456789abcdef0",
        instance_type: str = "t3.medium",
        zone: str = "ap-northeast-3a",
        image: str = "ami-0123456789abcdef0",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Make the service; `facts` are more of what lies below `meta-data/`."""
        self.tags = dict(tags or {})
        self.notice: datetime | None = None
        self.rebalance = False
        self.credentials = credentials
        self.session_token = ""
        self.requests: list[tuple[str, str, bool]] = []
        self.said: dict[str, str | None] = {}
        self.status: int | None = None
        self.spared: tuple[str, ...] = ()
        self.delay = 0.0
        self.document: dict[str, Any] = {
            "accountId": "123456789012",
            "architecture": "x86_64",
            "availabilityZone": zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": None,
            "imageId": image,
            "instanceId": instance_id,
            "instanceType": instance_type,
            "kernelId": None,
            "pendingTime": stamp(datetime.now(UTC)),
            "privateIp": (facts or {}).get("local-ipv4", "172.31.0.10"),
            "ramdiskId": None,
            "region": zone[:-1],
            "version": "2017-09-30",
        }
        self._facts = {
            "instance-id": instance_id,
            "instance-type": instance_type,
            "instance-life-cycle": "spot",
            "ami-id": image,
            "ami-launch-index": "0",
            "placement/availability-zone": zone,
            "placement/region": zone[:-1],
            **(facts or {}),
        }
        self.tokens: set[str] = set()
        super().__init__(_Handler)

    def make_token(self) -> str:
        """A new session token."""
        token = secrets.token_urlsafe(24)
        self.tokens.add(token)
        return token

    def answer(self, path: str) -> str | None:
        """What it says at a path below `/latest/`; None for a 404."""
        if path in self.said:
            return self.said[path]
        tree = self._tree()
        name = path.strip("/")
        if name in tree:
            return tree[name]
        inside = {key[len(name) + 1 :] for key in tree if key.startswith(f"{name}/")}
        names = {part.split("/")[0] + ("/" if "/" in part else "") for part in inside}
        return "\n".join(sorted(names)) or None

    def _tree(self) -> dict[str, str]:
        data = dict(self._facts)
        data |= {f"tags/instance/{name}": value for name, value in self.tags.items()}
        if self.notice is not None:
            action = {"action": "terminate", "time": stamp(self.notice)}
            data["spot/instance-action"] = json.dumps(action)
        if self.rebalance:
            data["events/recommendations/rebalance"] = json.dumps(
                {"noticeTime": stamp(datetime.now(UTC))}
            )
        if self.credentials is not None:
            data[f"iam/security-credentials/{ROLE}"] = json.dumps(self._role(*self.credentials))
        below = {f"meta-data/{name}": value for name, value in data.items()}
        return {**below, "dynamic/instance-identity/document": json.dumps(self.document)}

    def _role(self, key: str, secret: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "Code": "Success",
            "LastUpdated": stamp(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": self.session_token,
            "Expiration": stamp(now + timedelta(hours=6)),
        }


class _Handler(QuietHandler):
    owner: Metadata

    def do_PUT(self) -> None:  # noqa: N802 -- the library's name
        good = self.path == TOKEN_PATH and "X-Forwarded-For" not in self.headers
        self.owner.requests.append(("PUT", self.path, good))
        self.read_body()
        if not good:
            self._say(403)
        elif not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            self._say(400)
        else:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._say(200, self.owner.make_token(), lifetime)

    def do_GET(self) -> None:  # noqa: N802 -- the library's name
        good = self.headers.get("X-aws-ec2-metadata-token") in self.owner.tokens
        self.owner.requests.append(("GET", self.path, good))
        if not good:
            self._say(401)
            return
        said = self.owner.answer(VERSION.sub("", self.path, count=1))
        self._say(404 if said is None else 200, said or "")

    def _say(self, status: int, text: str = "", more: Mapping[str, str] | None = None) -> None:
        self.owner.closing.wait(self.owner.delay)
        if self.owner.status and not self.path.startswith(self.owner.spared or ("-",)):
            status = self.owner.status
        self.answer(status, text.encode(), {"Content-Type": "text/plain", **(more or {})})


def stamp(moment: datetime) -> str:
    """Return a time as EC2 writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
