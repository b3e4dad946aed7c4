"""Secrets are replaced by value in every text, in all the forms in which they occur. Decisions only."""

import base64
import html
import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from agent.base.urlsecrets import REVEALING_NAMES

Model = TypeVar("Model", bound=BaseModel)

FOR_PEOPLE = frozenset({"interruption", "message", "notes", "reason", "warnings"})
"""Fields of records that hold sentences, which may quote errors."""
LONGEST = 2000
"""Most characters of such a sentence in an entry: a mask may be longer than what it hides."""

SHORTEST = 5
"""Shorter values are not searched for: they would remove ordinary words from every line."""

_HEX = re.compile(r"%[0-9A-F]{2}")
_AS_GO = {ord(one): f"\\u{ord(one):04x}" for one in "<>&"}


def _forms(value: str) -> set[str]:
    """Return the spellings of a secret: plain, URL, HTML, JSON, Python, and base64 at each alignment."""
    data = value.encode(errors="surrogateescape")
    urls = {quote(value, safe=""), quote(value), quote_plus(value)}
    # As browsers write them: `encodeURIComponent`, and a form that is sent.
    urls |= {quote(value, safe="!'()*"), quote_plus(value, safe="*").replace("~", "%7E")}
    forms = {value, *urls, *(_HEX.sub(lambda match: match.group().lower(), url) for url in urls)}
    for text in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        # Twice: a document that is a text in another one.
        forms |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    # PHP writes JSON so, and Go.
    for text in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        forms |= {text.replace("/", "\\/"), text.translate(_AS_GO)}
    page = html.escape(value, quote=False)
    quoted = html.escape(value)
    forms |= {page, page.replace('"', "&quot;"), quoted, quoted.replace("&#x27;", "&#39;")}
    for shown in (repr(value)[1:-1], ascii(value)[1:-1], repr(data)[2:-1]):
        # As tracebacks show it; which quotes have a backslash depends on what stands around it.
        bare = shown.replace("\\'", "'")
        forms |= {bare, bare.replace("'", "\\'")}
    for shift in range(3):
        # Of the encoding of (shift unknown bytes + value + unknown bytes) only the middle is fixed.
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        start = (shift * 8 + 5) // 6
        fixed = encoded[start : (shift + len(data)) * 8 // 6]
        if len(fixed) >= SHORTEST:
            forms |= {fixed, fixed.replace("+", "-").replace("/", "_")}
    return forms


class Redactor:
    """Replaces each secret, given by name, by `[redacted:NAME]`.

    A value of several lines is also hidden line by line, because logs are lines.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        names: dict[str, str] = {}
        for name, value in secrets.items():
            lines = [line.strip() for line in value.splitlines()]
            for part in (value, value.strip(), *lines):
                if len(part) >= SHORTEST:
                    names |= dict.fromkeys(_forms(part), name)
        self._names = names
        # Only how each begins is a pattern: of a long one, all of it would take seconds to compile.
        self._beginning: dict[str, list[str]] = {}
        # Longest first: the whole before any part that it contains.
        for form in sorted(names, key=len, reverse=True):
            self._beginning.setdefault(form[:SHORTEST], []).append(form)
        begin = "|".join(map(re.escape, self._beginning))
        self._pattern = re.compile(begin) if begin else None

    def text(self, text: str) -> str:
        """Return `text` without secrets."""
        if self._pattern is None:
            return text
        kept: list[str] = []
        done = look = 0
        while match := self._pattern.search(text, look):
            start = look = match.start()
            found = next(
                (form for form in self._beginning[match.group()] if text.startswith(form, start)),
                None,
            )
            if found is None:
                look += 1
                continue
            kept += (text[done:start], f"[redacted:{self._names[found]}]")
            done = look = start + len(found)
        return "".join((*kept, text[done:]))

    def data(self, data: bytes) -> bytes:
        """Return a file's content without secrets; bytes that are not UTF-8 are unchanged."""
        text = self.text(data.decode(errors="surrogateescape"))
        return text.encode(errors="surrogateescape")

    def value(self, value: object) -> object:
        """Return a JSON-like value without secrets, in keys too; what JSON does not have becomes text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(_shown(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | AbstractSet):
            return [self.value(item) for item in value]
        return self.text(_shown(value))

    def record(self, record: Model) -> Model:
        """Return a record whose sentences have no secrets; names and paths, which identify things, are unchanged."""
        clean = {name: (value, self.field(name, value)) for name, value in record}
        changed = {name: after for name, (before, after) in clean.items() if after != before}
        return record.model_copy(update=changed)

    def field(self, name: str, value: object) -> object:
        """Return the value of a field of a record: see `record`."""
        if isinstance(value, BaseModel):
            return self.record(value)
        if isinstance(value, tuple) and all(isinstance(item, BaseModel) for item in value):
            return tuple(self.record(item) for item in value)
        if name in FOR_PEOPLE:
            texts = value if isinstance(value, tuple) else (value,)
            clean = tuple(
                self.text(item)[:LONGEST] if isinstance(item, str) else item for item in texts
            )
            return clean if isinstance(value, tuple) else clean[0]
        return value


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 -- it may be anybody's class
        return f"<{type(value).__name__}>"


def without_credentials(text: str) -> str:
    """Return a text whose URLs have no user, no password, and no values of secret-like names in a query."""
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


_LOGIN = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(rf"([?&;][\w.-]*{REVEALING_NAMES}[\w.-]*=)[^&;#\s\"')]*")
