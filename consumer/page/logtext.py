"""The log of a run as people read it, from untrusted JSON lines. Decisions only."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any

from pydantic_core import from_json

from agent.base.console import printable
from agent.contract.ids import EARLIEST, LATEST

LEVELS = ("debug", "info", "warning", "error")
MOST_TEXT = 2000
_OWN = frozenset({"timestamp", "level", "event", "job", "run_id"})


@dataclass(frozen=True, slots=True)
class Line:
    """An event; all of it is printable.

    Attributes:
        at: When; None where the line does not say.
        level: One of `LEVELS`; `info` for what says none of them.
        job: The job that it is about; empty for the run.
        rest: Its other fields.
        json: The event as it was written, in ASCII.
    """

    at: datetime | None
    level: str
    job: str
    event: str
    rest: str
    json: str

    def text(self, zone: tzinfo | None) -> str:
        """Return it as a line of text; None is the computer's zone."""
        time = f"{self.at.astimezone(zone):%H:%M:%S}" if self.at else " " * 8
        parts = (time, f"{self.level:<7}", self.job, self.event, self.rest)
        return " ".join(part for part in parts if part)


def log_lines(content: bytes, *, cut: bool = False) -> list[Line]:
    """Return the events of a log; of one whose beginning is cut off, without the first line."""
    return [*_backwards(content, cut=cut)][::-1]


def filtered(lines: Iterable[Line], level: str = "", job: str = "") -> Iterator[Line]:
    """Yield the events of a level or above, and of a job; empty is all."""
    least = LEVELS.index(level) if level in LEVELS else 0
    for line in lines:
        if LEVELS.index(line.level) >= least and (not job or line.job == job):
            yield line


def end_of(
    content: bytes, most: int, *, cut: bool = False, level: str = "", job: str = ""
) -> tuple[list[Line], bool]:
    """Return the last events of a level and a job, and whether there are more: no more is read than has to be."""
    found = [*islice(filtered(_backwards(content, cut=cut), level, job), most + 1)]
    return found[most - 1 :: -1], len(found) > most


def _backwards(content: bytes, *, cut: bool) -> Iterator[Line]:
    lines = content.split(b"\n")
    return (_line(line) for line in reversed(lines[1 if cut else 0 :]) if line.strip())


def _line(text: bytes) -> Line:
    try:
        said = from_json(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        event = _shown(text.decode("utf-8", "replace"))
        return Line(None, "info", "", event, "", json.dumps({"event": event}))
    level = {"critical": "error", "exception": "error"}.get(
        str(said.get("level")), said.get("level")
    )
    rest = " ".join(
        f"{_shown(name)}={_shown(value)}" for name, value in said.items() if name not in _OWN
    )
    return Line(
        _moment(said.get("timestamp")),
        level if level in LEVELS else "info",
        _shown(said.get("job", "")),
        _shown(said.get("event", "")),
        rest[:MOST_TEXT],
        json.dumps(said),
    )


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else str(value))[:MOST_TEXT]


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    # Others have no time in some zone.
    return moment if moment.tzinfo and EARLIEST <= moment <= LATEST else None
