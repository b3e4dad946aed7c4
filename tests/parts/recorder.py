"""An HTTP server that records what it is sent: stands in for Healthchecks, ntfy and other receivers of news."""

from dataclasses import dataclass

from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.waiting import wait_until


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived.

    Attributes:
        path: The request target, with its query and still percent-encoded.
        headers: By lower-case name.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Recorder(LoopbackHttp):
    """A receiver of HTTP requests, as a context manager.

    Attributes:
        status: What it answers from now on.
        delay: Seconds that it takes for an answer from now on.
        requests: What has arrived, in order.
    """

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.requests: list[Recorded] = []
        super().__init__(_Handler)

    def wait_for(self, count: int, *, seconds: float = 60) -> list[Recorded]:
        """Wait until `count` requests have arrived, and return all."""
        wait_until(
            lambda: len(self.requests) >= count, seconds=seconds, what=f"{count} requests to arrive"
        )
        return list(self.requests)


class _Handler(QuietHandler):
    owner: Recorder

    def _record(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.read_body()
        self.owner.requests.append(Recorded(self.command, self.path, headers, body))
        self.owner.closing.wait(self.owner.delay)
        self.answer(self.owner.status, b"OK" if self.owner.status < 400 else b"not today")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _record  # noqa: N815 -- the library's names
