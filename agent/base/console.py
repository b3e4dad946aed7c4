"""Untrusted text for a person's terminal. Decisions only."""

import unicodedata
from collections.abc import Sequence

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, reverse the text or break the line; not what people write."""
_JOINER = "\u200d"  # within emoji

_WIDE = frozenset({"W", "F"})

ELLIPSIS = "…"


def printable(text: str) -> str:
    """Return text on one line without control characters (escape sequences, changes of direction)."""
    if text.isprintable():  # in a tenth of the time: a log may have millions of lines
        return " ".join(text.split())
    shown = (
        character if character == _JOINER or unicodedata.category(character) not in _HIDDEN else " "
        for character in text
    )
    return " ".join("".join(shown).split())


def columns_of(text: str) -> int:
    """Return the terminal columns of printable text: two for most East Asian characters and emoji."""
    return sum(
        0
        if character == _JOINER or unicodedata.category(character) in {"Mn", "Me"}
        else 1 + (unicodedata.east_asian_width(character) in _WIDE)
        for character in text
    )


def cut(text: str, columns: int) -> str:
    """Shorten text to `columns`; an ellipsis marks the cut."""
    if columns_of(text) <= columns:
        return text
    kept, used = "", 1
    for character in text:
        used += columns_of(character)
        if used > columns:
            break
        kept += character
    return kept + ELLIPSIS


def aligned(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return rows of printable cells, of equal length, as lines; columns in `right` are aligned to the right."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - columns_of(cell))
            cells.append(gap + cell if index in right else cell + gap)
        lines.append("  ".join(cells).rstrip())
    return lines
