"""A file of a run, to be looked at: tables as tables, JSON indented, pictures as pictures. Decisions only."""

import csv
import json
from datetime import UTC

from agent.contract.descriptor import Resource
from consumer.page.given import Text, Visit
from consumer.page.render import Page, object_path, shown_text

PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
"""What is sent as a picture, and how it begins; all else is text here, or a download."""
TABLES = {"text/csv": ",", "text/tab-separated-values": "\t"}
TEXTS = frozenset({"application/json", "application/x-ndjson", "application/xml"})
MOST_ROWS = 500
MOST_COLUMNS = 50
MOST_CELL = 300
MOST_GROWTH = 10
"""A text of JSON with its indentation is at most so many times as long."""


def may_be_looked_at(resource: Resource) -> bool:
    """Tell whether `file_page` can show it: CSV, JSON, text, pictures."""
    kind = resource.mediatype
    return kind in PICTURES or kind in TEXTS or kind.startswith("text/")


def file_page(visit: Visit, run: str, job: str, resource: Resource, text: Text) -> str:
    """Return a page that shows a file: its first `MOST_VIEW_BYTES`, as a table where it is one.

    A picture needs no text: the page has a link to the object.
    """
    shown = shown_text(text.content)
    rows = _table(shown, resource.mediatype) if not text.problem else []
    return Page(visit, UTC).render(
        "file.html",
        run=run,
        job=job,
        resource=resource,
        name=resource.original or resource.path.partition("/")[2],
        url=object_path(run, job, resource.path),
        picture=resource.mediatype in PICTURES,
        rows=rows[:MOST_ROWS],
        cut=text.cut or len(rows) > MOST_ROWS,
        text=text,
        shown=_indented(shown) if resource.mediatype == "application/json" else shown,
    )


def _table(text: str, kind: str) -> list[list[str]]:
    if kind not in TABLES:
        return []
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=TABLES[kind]))
    except csv.Error:
        return []
    return [[cell[:MOST_CELL] for cell in row[:MOST_COLUMNS]] for row in rows if row]


def _indented(text: str) -> str:
    """Return JSON with an item a line; as it is, where lists in each other would make a thousand times of it."""
    pieces: list[str] = []
    size, most = 0, MOST_GROWTH * len(text)
    try:
        for piece in json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(json.loads(text)):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                return text
        return "".join(pieces)
    except (ValueError, RecursionError):
        return text
