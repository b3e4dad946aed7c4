"""What the demo site answers. Nothing here has effects beyond reading the site's own files."""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from demo_site.timeline import timeline_answer

STATIC = Path(__file__).parent / "static"
CONTENT = Path(__file__).parent / "content"
QUOTES_PER_PAGE = 6
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response.

    Attributes:
        status: HTTP status.
        body: Everything that is sent.
        mediatype: Its type.
        headers: More headers.
        delay: Seconds to wait before answering.
        chunks: How many pieces to send the body in, a moment apart, so that a download can be seen under way.
    """

    status: int
    body: bytes
    mediatype: str = "text/html; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    chunks: int = 1


def answer(method: str, target: str, body: bytes) -> Answer:
    """Return the answer to a request.

    A first path segment chooses a fault: `broken` has new markup, `blocked` refuses, `captcha` asks for proof of being
    human, `slow` takes a second for each answer, `down` answers 503. All links are relative, so that a fault
    stays with its visitor.
    """
    path, _, query = target.partition("?")
    path = path.lstrip("/")
    fault, _, rest = path.partition("/")
    if fault not in {"blocked", "broken", "captcha", "down", "slow"}:
        return _route(method, path, query, body)
    refusals = {"blocked": _blocked(rest), "captcha": _page("captcha.html"), "down": _down()}
    if fault in refusals and not rest.startswith("static/"):
        return refusals[fault]
    if fault == "broken" and rest in {"quotes", "reports"}:
        return _redesigned(rest)
    return replace(_route(method, rest, query, body), delay=1.0 if fault == "slow" else 0.0)


def _route(method: str, path: str, query: str, body: bytes) -> Answer:
    if path.startswith("api/notes/"):
        status, value = timeline_answer(method, path.removeprefix("api/notes/"), body)
        return _json(value, status=status, delay=0.03)
    if method not in {"GET", "HEAD"}:
        return _error(405, "Not here", "This page is for reading.")
    if path == "api/quotes":
        return _quotes(query)
    missing = _error(404, "Nothing hatches here", "There is no such page.")
    return _pages().get(path) or _reports().get(path) or missing


@cache
def _pages() -> dict[str, Answer]:
    """Return what is a file, by path."""
    pages = {"": _page("index.html")} | {
        name: _page(f"{name}.html") for name in ("quotes", "reports", "timeline")
    }
    files = {
        path.name: Answer(200, path.read_bytes(), TYPES[path.suffix]) for path in STATIC.iterdir()
    }
    return (
        pages
        | {"favicon.ico": files["mayfly.svg"]}
        | {f"static/{name}": file for name, file in files.items()}
    )


def _redesigned(path: str) -> Answer:
    """Return a page as after a redesign that nobody announced."""
    page = _page(f"{path}.html")
    return Answer(
        200,
        page.body.replace(b"quotes.js", b"quotes-redesigned.js").replace(
            b'"download"', b'"get-it"'
        ),
    )


def _down() -> Answer:
    return _error(503, "Closed for the winter", "The archive opens again when the river thaws.")


def _blocked(path: str) -> Answer:
    if path.startswith("api/"):
        error = {
            "message": "Rate limit exceeded. Please try again later.",
            "code": "RATE_LIMIT_EXCEEDED",
        }
        return _json({"error": error | {"id": "d5826d14-3982-4d2e-8011-b9e9f02499ef"}}, status=429)
    return _error(403, "Forbidden", "Requests from your network are not accepted.")


def _quotes(query: str) -> Answer:
    wanted = parse_qs(query).get("page", ["1"])[0]
    quotes = _load("quotes.json")
    last = -(-len(quotes) // QUOTES_PER_PAGE)
    if not (wanted.isascii() and wanted.isdigit() and 1 <= int(wanted[:6]) <= last):
        return _json({"error": "no such page"}, status=404)
    number = int(wanted)
    shown = quotes[(number - 1) * QUOTES_PER_PAGE : number * QUOTES_PER_PAGE]
    return _json({"page": number, "pages": last, "total": len(quotes), "quotes": shown}, delay=0.04)


@cache
def _reports() -> dict[str, Answer]:
    """Return the downloads by their path: names with a space, with Japanese, and one that takes a while."""
    readings = ["hour,station,celsius"]
    readings += [
        f"{hour},{station},{(hour * 7 + station * 13) % 170 / 10:.1f}"
        for hour in range(720)
        for station in range(40)
    ]
    tables = {
        "files/sightings": (
            "evening sightings 2026.csv",
            (CONTENT / "sightings.csv").read_bytes(),
            1,
        ),
        "files/kawa": ("川の記録 十一月.csv", (CONTENT / "kawa.csv").read_bytes(), 1),
        "files/readings": ("water-temperature.csv", "\r\n".join([*readings, ""]).encode(), 8),
    }
    return {path: _attachment(name, body, chunks) for path, (name, body, chunks) in tables.items()}


def _attachment(name: str, body: bytes, chunks: int) -> Answer:
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
    return Answer(200, body, TYPES[".csv"], {"Content-Disposition": disposition}, chunks=chunks)


def _page(name: str) -> Answer:
    return Answer(200, (STATIC / name).read_bytes())


def _error(status: int, title: str, text: str) -> Answer:
    page = (STATIC / "error.html").read_text("utf-8")
    return Answer(status, page.replace("{title}", title).replace("{text}", text).encode())


def _json(value: object, *, status: int = 200, delay: float = 0.0) -> Answer:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Answer(status, body, "application/json; charset=utf-8", delay=delay)


def _load(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((CONTENT / name).read_text("utf-8"))
    return loaded
