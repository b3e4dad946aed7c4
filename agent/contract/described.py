"""What a job says of its own data, in a `datapackage.json` at the root of its output. Decisions only.

Only properties of the standard are carried over into the job's package, each in the form that the standard wants: a
tool that reads the package must not fail on what a job wrote. What contradicts the facts is dropped, with a note.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import from_json

from agent.contract.descriptor import Sealed, resource_name
from agent.contract.entries import reason_of
from agent.contract.layout import DESCRIPTOR, FILES
from agent.contract.names import bucket_path

MOST_OWN_BYTES = 4 * 1024**2
"""Bytes of such a file; a longer one is an ordinary result."""
_MOST_NOTES = 20


@dataclass(frozen=True, slots=True)
class Said:
    """What a job says of its own data, as far as it contradicts nothing.

    Attributes:
        package: Of all of it, such as title and licences.
        resources: Of a file, by its path in the package.
        notes: What was dropped, and why.
    """

    package: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 20_000  # noqa: PLR2004 -- a long description


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value))


def _mappings(wanted: Collection[str], value: object) -> bool:
    """Tell whether it is a list of objects whose values are texts, each with at least one of the wanted names."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and all(map(_text, one.values())) for one in value)
        and all(not one.keys().isdisjoint(wanted) for one in value)
    )


def _schema(value: object) -> bool:
    """Tell whether it is a Table Schema; a reference to another file is none."""
    fields = value.get("fields") if isinstance(value, dict) else None
    return isinstance(fields, list) and bool(fields) and all(map(_field, fields))


def _field(value: object) -> bool:
    if not isinstance(value, dict) or not _text(value.get("name")):
        return False
    return value.get("type", "any") in _TYPES and _text(value.get("format", "default"))


def _dialect(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, _DIALECT.get(name, ())) for name, one in value.items()
    )


_DIALECT: Mapping[str, type] = {
    **dict.fromkeys(("delimiter", "lineTerminator", "quoteChar", "escapeChar"), str),
    **dict.fromkeys(("nullSequence", "commentChar"), str),
    **dict.fromkeys(("header", "doubleQuote", "skipInitialSpace"), bool),
}


_TYPES = (
    *("any", "string", "number", "integer", "boolean", "object", "array", "list"),
    *("datetime", "date", "time", "year", "yearmonth", "duration", "geopoint", "geojson"),
)
"""Of a field, as Table Schema has them."""


_licenses = partial(_mappings, ("name", "path"))
_titled = partial(_mappings, ("title",))
_OF_ALL: Mapping[str, Callable[[object], bool]] = {
    "title": _text,
    "description": _text,
    "homepage": _text,
    "image": _text,
    "keywords": _texts,
    "licenses": _licenses,
    "sources": _titled,
    "contributors": _titled,
}
_OF_A_FILE: Mapping[str, Callable[[object], bool]] = {
    "name": partial(_matches, r"[a-z0-9._/-]{1,200}"),
    "title": _text,
    "description": _text,
    "format": _text,
    "mediatype": partial(_matches, r"[\w.+-]{1,80}/[\w.+-]{1,80}"),
    "encoding": _text,
    "licenses": _licenses,
    "sources": _titled,
    "schema": _schema,
    "dialect": _dialect,
}
_OURS = frozenset({"$schema", "profile", "id", "name", "created", "version", "resources"})
_FACTS = frozenset({"path", "bytes", "hash", "type", "profile", "$schema"})


def carry_over(own: bytes, files: Mapping[str, Sealed]) -> Said:
    """Return what a job's own `datapackage.json`, at the root of its output, adds to its package.

    Args:
        own: The file's content; the job's, so hostile.
        files: The job's results, by their path in the package.
    """
    try:
        if len(own) > MOST_OWN_BYTES:
            raise ValueError(f"it has more than {MOST_OWN_BYTES} bytes")  # noqa: TRY301
        data = from_json(own, allow_inf_nan=False)
        # JSON can escape half a character, and 1e400 is infinite: no file of ours could hold them.
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        if not isinstance(data, dict):
            raise ValueError("it is not an object")  # noqa: TRY004, TRY301 -- one kind of damage
    except (ValueError, RecursionError) as error:
        return Said(notes=(f"{DESCRIPTOR} of the job is not used: {reason_of(error)}",))
    notes = _Notes()
    package = _wanted(data, _OF_ALL, _OURS, "", notes)
    resources = dict(_of_files(data.get("resources"), files, notes))
    return Said(package, resources, tuple(notes.first))


class _Notes:
    """What was dropped, and why: the first of what a hostile job can make a million of."""

    def __init__(self) -> None:
        self.first: list[str] = []

    def add(self, what: str) -> None:
        if len(self.first) < _MOST_NOTES:
            self.first.append(f"{DESCRIPTOR} of the job: {what}")


def _of_files(
    listed: object, files: Mapping[str, Sealed], notes: _Notes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is said of each file, and note what is said of none, twice, or wrongly."""
    names = {resource_name(path) for path in files}
    seen: set[str] = set()
    for resource in listed if isinstance(listed, list) else []:
        path = resource.get("path") if isinstance(resource, dict) else None
        stored = f"{FILES}{bucket_path(path)}" if isinstance(path, str) else ""
        if stored not in files or stored in seen:
            notes.add(f"{_short(path)} is no single file of it")
            continue
        seen.add(stored)
        carried = _wanted(resource, _OF_A_FILE, _FACTS, f"{_short(path)}: ", notes)
        for contradiction in _contradictions(resource, files[stored]):
            notes.add(contradiction)
        name = carried.get("name")
        if name in names and name != resource_name(stored):
            notes.add(f"the name {_short(name)} is another's")
            del carried["name"]
        elif name is not None:
            names.add(name)
        yield stored, carried


def _wanted(
    data: Mapping[str, Any],
    wanted: Mapping[str, Callable[[object], bool]],
    ours: frozenset[str],
    place: str,
    notes: _Notes,
) -> dict[str, Any]:
    """Return the properties that are carried over, and note those that are not and are nobody else's."""
    taken = {
        name: data[name] for name, sound in wanted.items() if name in data and sound(data[name])
    }
    for name in data:
        if name not in taken and name not in ours:
            notes.add(f"{place}{_short(name)} is not used")
    return taken


def _contradictions(resource: Mapping[str, Any], file: Sealed) -> Iterator[str]:
    """Yield where a job is wrong about its own file: what was sent is what holds."""
    said = resource.get("bytes", file.bytes)
    if said != file.bytes:
        yield f"{file.path} has {file.bytes} bytes, not {_short(said)}"
    digest = str(resource.get("hash", ""))
    kind, _, value = digest.rpartition(":")
    if kind == "sha256" and value.lower() != file.sha256:
        yield f"{file.path} has another sha256"


def _short(value: object) -> str:
    return repr(value)[:100]
