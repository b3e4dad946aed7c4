"""A proxy in front of the stand-in for AWS, for what the stand-in leaves out."""

import ssl
from types import TracebackType
from typing import Self

import requests

from tests.parts.loopback_http import LoopbackHttp, QuietHandler

FORWARD_SECONDS = 60
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding"}

Answer = tuple[int, bytes]
"""Status and body."""


class AwsProxy:
    """Forwards requests of AWS's query and JSON protocols, as a context manager; subclasses change what comes back.

    Attributes:
        bodies: The requests' bodies, in order.
    """

    def __init__(self, target: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._http = LoopbackHttp(_handler(self), tls=tls)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        """Its address, for clients."""
        return self._http.url

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

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.__exit__(kind, error, trace)


class LateAws(AwsProxy):
    """An AWS that is away for the first requests, as SSM was for the first second of a boot."""

    def __init__(self, target: str, away: int) -> None:
        super().__init__(target)
        self._away = away

    def answer(self, body: bytes) -> Answer | None:
        """Fail while it is away."""
        return (503, b"") if len(self.bodies) <= self._away else None


def _handler(proxy: AwsProxy) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 -- the library's name
            body = self.read_body()
            proxy.bodies.append(body)
            own = proxy.answer(body)
            if own is not None:
                self._say(own[0], {}, own[1])
                return
            kept = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            answer = proxy.forward(self.path, kept, body)
            self._say(answer.status_code, dict(answer.headers), proxy.changed(body, answer.content))

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
