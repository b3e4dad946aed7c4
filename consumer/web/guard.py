"""What holds for every request: for which host it is, which headers the answer has, how long a reader may be silent."""

import asyncio
import ipaddress
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SILENT_SECONDS = 60.0
"""For which a reader may take nothing."""
PIECE_BYTES = 64 * 1024
"""Of what is sent at once: so much, and as much again in the socket, is held for a slow reader."""
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
OWN_NAMES = ("*.svc", "*.cluster.local", "*.localhost")
"""What a cluster and a browser call a service of their own; nobody can register these."""


class Guard:
    """The application behind these rules.

    `hosts` are names of the service besides its addresses and names without a dot; `*` is any part of one.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = (*OWN_NAMES, *(host.lower() for host in hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            async with asyncio.timeout(SILENT_SECONDS):
                await send(message)

        host = host_of(Headers(scope=scope).get("host", ""))
        app = self._app if self._is_ours(host) else misdirected(host)
        await app(scope, receive, guarded)

    def _is_ours(self, host: str) -> bool:
        """Tell whether a page of somebody else cannot have this name: DNS rebinding needs a name that he registered."""
        if not host or "." not in host or any(fnmatchcase(host, one) for one in self._hosts):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def host_of(header: str) -> str:
    """Return the host of a Host header, without port, brackets and the root's dot."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a line of text."""
    return PlainTextResponse(f"{text}\n", status, dict(headers or {}))


def misdirected(host: str) -> Response:
    """Return the answer to a request that is for somebody else."""
    return plain(421, f"{host[:100]!a} is not a name of this service: see --allow-host")
