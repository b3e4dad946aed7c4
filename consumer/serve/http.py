"""Requests and responses, as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

MOST_QUERY = 32
"""Parameters of a query; what comes after is not looked at."""

SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""In every response that does not bring its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET or HEAD request.

    Attributes:
        path: Percent-decoded, and begins with a slash.
        query: Each parameter's last value.
        headers: By lower-case name, such as `accept-language`.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered.

    Attributes:
        status: The HTTP status.
        headers: Besides `SECURITY` and the length; `Content-Type` among them.
        body: All of it, or pieces.
        length: In bytes, of pieces, or of what HEAD leaves out.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    length: int | None = None

    @property
    def line(self) -> str:
        """The status with its phrase."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    @property
    def fields(self) -> list[tuple[str, str]]:
        """All headers."""
        size = self.length
        if size is None and isinstance(self.body, bytes):
            size = len(self.body)
        length = {} if size is None else {"Content-Length": str(size)}
        return list({**SECURITY, **self.headers, **length}.items())


def plain(status: int, text: str) -> Response:
    """Return a line of text."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())


def html(text: str, status: int = 200) -> Response:
    """Return a page."""
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())
