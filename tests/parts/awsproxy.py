"""A proxy in front of the stand-in for AWS, for what the stand-in leaves out."""

import re
from collections.abc import Iterable

import requests

from tests.parts.certificate import Certificate
from tests.parts.loopback_http import LoopbackHttp, QuietHandler

FORWARD_SECONDS = 60
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding"}

Answer = tuple[int, bytes]
"""Status and body."""


class AwsProxy(LoopbackHttp):
    """Forwards requests of AWS's query and JSON protocols, as a context manager; subclasses change what comes back.

    Attributes:
        bodies: The requests' bodies, in order.
    """

    def __init__(self, target: str, *, certificate: Certificate | None = None) -> None:
        super().__init__(_Handler, certificate=certificate)
        self._target = target
        self.bodies: list[bytes] = []

    def answer(self, body: bytes) -> Answer | None:
        """Answer a request in the stand-in's place; None forwards it."""
        return None

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Return what the client gets of the stand-in's answer."""
        return answer

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> requests.Response:
        """Send a request on."""
        return requests.post(
            f"{self._target}{path}", data=body, headers=headers, timeout=FORWARD_SECONDS
        )


class Ec2Proxy(AwsProxy):
    """Forwards requests of EC2, without what the stand-in does not know of a fleet."""

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> requests.Response:
        """Send a request on."""
        if b"Action=CreateFleet" in body:
            body = re.sub(rb"&ClientToken=[^&]*", b"", body)
        return super().forward(path, headers, body)


def ec2_answer(action: str, content: str) -> bytes:
    """Return the body of EC2's answer to a request."""
    return f'<{action}Response xmlns="{NAMESPACE}"><requestId>r</requestId>{content}</{action}Response>'.encode()


def ec2_error(code: str, message: str) -> bytes:
    """Return the body of EC2's refusal of a request."""
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>".encode()


class LateAws(AwsProxy):
    """An AWS that is away for the first requests, as SSM was for the first second of a boot."""

    def __init__(self, target: str, away: int) -> None:
        super().__init__(target)
        self._away = away

    def answer(self, body: bytes) -> Answer | None:
        """Fail while it is away."""
        return (503, b"") if len(self.bodies) <= self._away else None


class _Handler(QuietHandler):
    owner: AwsProxy

    def do_POST(self) -> None:  # noqa: N802 -- the library's name
        body = self.read_body()
        self.owner.bodies.append(body)
        own = self.owner.answer(body)
        if own is not None:
            self.answer(*own)
            return
        answer = self.owner.forward(self.path, _own(self.headers.items()), body)
        content = self.owner.changed(body, answer.content)
        self.answer(answer.status_code, content, _own(answer.headers.items()))


def _own(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of a message that are not of its connection."""
    return {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}
