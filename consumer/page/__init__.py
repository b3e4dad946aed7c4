"""The status page: what a person at home looks at. Server-rendered, without scripts, in two languages.

Everything that a bucket holds is a stranger's text: templates escape all of it, and links are built of percent-encoded
parts only.
"""

from dataclasses import dataclass
from urllib.parse import quote

from consumer.page.render import Page, static_file
from consumer.page.words import Words, words_for
from consumer.queries import Queries
from consumer.serve.http import Request, Response

SPANS = (30, 90, 365)
"""Days to choose from."""
DEFAULT_SPAN = 90
LIST_LENGTH = 50
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Visit:
    """Who asks for what, in which language."""

    request: Request
    queries: Queries
    words: Words

    def page(self, depth: int) -> Page:
        """Return a page that lies `depth` folders below the root."""
        query = {
            name: self.request.query[name]
            for name in ("lang", "days")
            if name in self.request.query
        }
        return Page(self.words, "../" * depth, query)


def respond(request: Request, queries: Queries) -> Response:
    """Return the page at a path, or the one that says that there is none."""
    words = words_for(request.query.get("lang"), request.headers.get("accept-language", ""))
    visit = _Visit(request, queries, words)
    return _page(visit) or _html(visit.page(request.path.count("/") - 1).missing(), status=404)


def _page(visit: _Visit) -> Response | None:
    match visit.request.path.strip("/").split("/"):
        case [""]:
            return _front(visit)
        case ["static", name]:
            return _static(name)
        case ["runs"]:
            return _runs(visit)
        case ["runs", run]:
            return _run(visit, run)
    return None


def _front(visit: _Visit) -> Response:
    return _html(visit.page(0).front(visit.queries.overview(_span(visit.request)), SPANS))


def _runs(visit: _Visit) -> Response:
    before = visit.request.query.get("before")
    return _html(visit.page(0).runs(visit.queries.runs(LIST_LENGTH + 1, before), LIST_LENGTH))


def _run(visit: _Visit, run: str) -> Response | None:
    view = visit.queries.run(run)
    if view is None:
        return None
    return _html(visit.page(1).run(view, visit.queries.files(quote(run, safe=""))))


def _static(name: str) -> Response | None:
    found = static_file(name)
    if found is None:
        return None
    kind, body = found
    return Response(200, {"content-type": kind, "cache-control": "max-age=86400"}, body)


def _span(request: Request) -> int:
    wanted = request.query.get("days", "")
    return int(wanted) if wanted in {str(span) for span in SPANS} else DEFAULT_SPAN


def _html(text: str, status: int = 200) -> Response:
    headers = {"content-type": HTML, "cache-control": "no-cache", "vary": "accept-language"}
    return Response(status, headers, text.encode())
