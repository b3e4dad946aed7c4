"""The routes, as a WSGI application: small answers from memory and database, files through a bounded stream."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from consumer.serve.files import Files
from consumer.serve.http import MOST_QUERY, Request, Response, plain
from consumer.serve.logs import Log
from consumer.serve.state import State

Page = Callable[[Request], Response]
"""Answers what no other route does; what it does not know is a 404."""


class Application:
    """Answers requests (PEP 3333).

    Args:
        registry: Holds the metrics.
        state: Knows the health.
        files: Has the files of runs.
        page: The status page.
        log: Is told of defects.
    """

    def __init__(
        self, registry: CollectorRegistry, state: State, files: Files, page: Page, log: Log
    ) -> None:
        self._registry = registry
        self._state = state
        self._files = files
        self._page = page
        self._log = log

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        content = environ["REQUEST_METHOD"] != "HEAD"
        try:
            response = self._answer(environ, content=content)
        except Exception as error:  # noqa: BLE001 -- a defect of a page must not be a stranger's traceback
            self._log.error("request.failed", error=repr(error)[:500], exc_info=True)
            response = plain(500, "internal error; the log has it")
        start_response(response.line, response.fields)
        if not content:
            return ()
        return (response.body,) if isinstance(response.body, bytes) else response.body

    def _answer(self, environ: dict[str, Any], *, content: bool) -> Response:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            refusal = plain(405, "GET and HEAD only")
            return Response(405, {**refusal.headers, "Allow": "GET, HEAD"}, refusal.body)
        try:
            request = _request(environ)
        except ValueError:
            return plain(400, "the path is not UTF-8")
        if request.path == "/metrics":
            return self._metrics(request)
        if request.path == "/healthz":
            reason = self._state.sick()
            return plain(503, reason) if reason else plain(200, "ok")
        first, run, kind, path = _parts(request.path)
        if first == "runs" and kind == "files" and path:
            return self._files.respond(run, path, content=content)
        return self._page(request)

    def _metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(200, {"Content-Type": kind}, encode(self._registry))


def _request(environ: dict[str, Any]) -> Request:
    """Return the request.

    Raises:
        ValueError: Its path is not UTF-8.
    """
    path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8")
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")[:4096])[:MOST_QUERY])
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return Request(path if path.startswith("/") else f"/{path}", query, headers)


def _parts(path: str) -> tuple[str, str, str, str]:
    """Return the first three segments of a path, and the rest."""
    parts = [*path.removeprefix("/").split("/", 3), "", "", ""]
    return parts[0], parts[1], parts[2], parts[3]
