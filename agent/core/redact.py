"""Secrets leave every text by value, also in the forms in which they travel."""

import base64
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 5
"""Values shorter than this are not searched for: they would take ordinary words out of every line."""


def _forms(value: str) -> set[str]:
    """Return the ways one secret may be spelled: plain, URL, JSON, and base64 at each of the three alignments."""
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value)}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    data = value.encode(errors="surrogateescape")
    for shift in range(3):
        # Of the encoding of (shift unknown bytes + value + unknown bytes) only the middle is fixed.
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        start = (shift * 8 + 5) // 6
        fixed = encoded[start : (shift + len(data)) * 8 // 6]
        if len(fixed) >= SHORTEST:
            forms |= {fixed, fixed.replace("+", "-").replace("/", "_")}
    return forms


class Redactor:
    """Replaces each known secret by `[redacted:NAME]`.

    Args:
        secrets: Name to value. A value of several lines is also hidden line by line, because logs are lines.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        names: dict[str, str] = {}
        for name, value in secrets.items():
            lines = [line.strip() for line in value.splitlines()]
            for part in (value, value.strip(), *lines):
                if len(part) >= SHORTEST:
                    names |= dict.fromkeys(_forms(part), name)
        self._names = names
        # Longest first: the whole before any part that it contains.
        longest = sorted(names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def text(self, text: str) -> str:
        """Return `text` without any secret."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: f"[redacted:{self._names[match.group()]}]", text)

    def data(self, data: bytes) -> bytes:
        """Return a file's content without any secret; what is not UTF-8 in it stays as it is."""
        text = self.text(data.decode(errors="surrogateescape"))
        return text.encode(errors="surrogateescape")

    def value(self, value: object) -> object:
        """Return a JSON-like value without any secret, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def without_credentials(url: str) -> str:
    """Return a URL without the user and password it may carry."""
    return re.sub(r"(?<=://)[^/\s]*@", "", url)
