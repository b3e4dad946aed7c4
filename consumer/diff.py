"""What changed in a job's results from one run to the next: files by their digests, records by their primary keys."""

import csv
import functools
import io
import json
import os
import re
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from agent.base.console import printable
from agent.contract.descriptor import Resource
from agent.contract.entries import Invalid
from agent.contract.layout import DESCRIPTOR, FILES
from agent.contract.package import Package
from consumer.entries import MOST_DESCRIPTOR_BYTES, read_own_package
from consumer.pull.folder import SPARE_BYTES, open_below

MOST_SHOWN = 20
"""Records of a table that are shown, of each kind; all are counted."""
MOST_TEXT = 500
"""Characters of a line about a file or a record."""
MOST_FIELDS = 10_000
"""Characters of a record that is shown."""
MOST_RECORD = 1024**2
"""Characters of one record, also as it is sorted, or of one line. Its values may take fifty times as many bytes."""
MOST_TABLES = 1000
"""Files that changed and whose records are compared."""
MOST_KEY = 100
"""Fields of a primary key."""
CHUNK = 64 * 1024
PORTION = 20_000
"""Records that are in memory at once."""
PORTION_BYTES = 8 * 1024**2
"""What these may take; and what one record of each temporary file that is merged may take."""
MOST_FILES = 64
"""Temporary files that are merged at once."""
IGNORE = "mayfly:ignore"
"""Of a field in a job's own schema: it changes without being news, such as the time at which a page was read."""
FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_UNREADABLE = (ValueError, TypeError, LookupError, csv.Error, RecursionError, OSError)
"""What is raised of a file that is not what it says; `csv` raises a TypeError of a dialect that cannot be."""
_text = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_SPACE = re.compile(r"[\s,]*")

Record = Mapping[str, Any]
Open = Callable[[str], IO[bytes]]
"""Opens a file of a run, by its path in the package."""


@dataclass(frozen=True, slots=True)
class Sum:
    """How many were added, removed and changed."""

    added: int = 0
    removed: int = 0
    changed: int = 0

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"+{self.added}, -{self.removed}, {self.changed} changed"

    def __add__(self, other: "Sum") -> "Sum":
        """Return both together."""
        return Sum(
            self.added + other.added, self.removed + other.removed, self.changed + other.changed
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A record that changed: its key, and of each field what it was and what it is; None where there was none."""

    key: tuple[str, ...]
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """What changed in a file of records.

    Attributes:
        sum: How many records changed.
        added, removed, changed: The first of them.
        odd: Records without a key, or with one that another had before; of these the last counts.
        problem: Why its records cannot be compared; empty when they can.
    """

    path: str
    sum: Sum = Sum()
    added: tuple[Record, ...] = ()
    removed: tuple[Record, ...] = ()
    changed: tuple[Change, ...] = ()
    odd: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed from a run to another.

    Attributes:
        added, removed, changed: Paths of files.
        tables: What changed in those whose records have keys.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def files(self) -> Sum:
        """How many files changed."""
        return Sum(len(self.added), len(self.removed), len(self.changed))


@dataclass(frozen=True, slots=True)
class Section:
    """What changed in one respect, for people.

    Attributes:
        path: The file whose records are meant; empty for the files themselves.
        sum: How many changed.
        lines: The first of them, printable; each begins with `+`, `-` or `~`.
        odd: See `Table`.
        problem: Why records cannot be compared; empty when they can.
    """

    path: str
    sum: Sum
    lines: tuple[str, ...] = ()
    odd: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from a run to another, as little of it as people look at and home keeps.

    Attributes:
        before, run: The runs, the earlier first.
        sections: The files, then the records of each that has keys.
        others: Files that changed and whose records were not compared; each counts as one beside records.
    """

    before: str
    run: str
    sections: tuple[Section, ...]
    others: Sum = Sum()

    @property
    def of(self) -> str:
        """Return what is counted: `records` where any can be compared, else `files`."""
        return "records" if len(self._counted) > 1 else "files"

    @property
    def sum(self) -> Sum:
        """How many of them changed."""
        return sum(self._counted[1:], self.others) if self.of == "records" else self._counted[0]

    @property
    def _counted(self) -> list[Sum]:
        return [one.sum for one in self.sections if not one.problem]


def changes_of(found: Diff, before: str, run: str) -> Changes:
    """Return a difference as people look at it."""
    kinds = (("+", found.added), ("-", found.removed), ("~", found.changed))
    paths = tuple(f"{mark} {_shown(path)}" for mark, some in kinds for path in some[:MOST_SHOWN])
    compared = {one.path for one in found.tables if not one.problem}
    renamed = len(compared.intersection(found.added))  # of each, the file before was removed
    others = Sum(
        len(found.added) - renamed,
        len(found.removed) - renamed,
        len(found.changed) - len(compared.intersection(found.changed)),
    )
    sections = (Section("", found.files, paths), *map(_section, found.tables))
    return Changes(before, run, sections, others)


def _section(table: Table) -> Section:
    lines = [
        f"{mark} {_value(record)}"
        for mark, some in (("+", table.added), ("-", table.removed))
        for record in some
    ]
    for change in table.changed:
        fields = ", ".join(
            f"{name} {_value(old)} -> {_value(new)}" for name, (old, new) in change.fields.items()
        )
        lines.append(f"~ {_shown('/'.join(change.key))}: {_shown(fields)}")
    problem = _shown(table.problem)
    return Section(_shown(table.path), table.sum, tuple(lines), table.odd, problem)


def _value(value: object) -> str:
    return _shown(json.dumps(value, ensure_ascii=False))


def _shown(text: str) -> str:
    return printable(text)[:MOST_TEXT]


@dataclass(frozen=True, slots=True)
class Side:
    """The results of a run, and how they are read."""

    resources: tuple[Resource, ...]
    open: Open

    @classmethod
    def of_folder(cls, folder: Path) -> "Side":
        """Return what was pulled into a folder; what is no file there, or a link, is not opened.

        Raises:
            ValueError: It holds no package.
            OSError: It cannot be read.
        """
        return cls(package_in(folder).resources, functools.partial(open_below, folder))

    def records(self, resource: Resource, schema: "Schema") -> Iterator[Record]:
        """Yield the records of a file."""
        with self.open(resource.path) as stream:
            yield from records(io.TextIOWrapper(stream, schema.encoding, newline=""), schema)


def package_in(folder: Path) -> Package:
    """Return the package in a folder that was pulled, or is said to be one.

    Raises:
        ValueError: It holds none.
        OSError: It cannot be read.
    """
    with open_below(folder, DESCRIPTOR) as stream:
        package = read_own_package(stream.read(MOST_DESCRIPTOR_BYTES + 1))
    if isinstance(package, Invalid):
        raise ValueError(f"{folder}: {package.reason}")  # noqa: TRY004
    return package


def results_of(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Return the results of a package, by path."""
    return {one.path: one for one in resources if one.path.startswith(FILES)}


@dataclass(slots=True)
class Allowance:
    """What all files of two runs may still take together.

    Attributes:
        sorted: Bytes of records; a header of a megabyte before a million short rows makes a terabyte of them.
        shown: Characters of records that are shown; when they are used up, the others are counted only.
    """

    sorted: int = 2 * 1024**3
    shown: int = 2 * 1024**2

    def take(self, size: int) -> None:
        """Let so many bytes be sorted.

        Raises:
            ValueError: There were too many.
        """
        self.sorted -= size
        if self.sorted < 0:
            raise ValueError("there are too many records to be sorted, or too large ones")


def compare(
    old: Side,
    new: Side,
    ignored: Iterable[str] = (),
    temporary: Path | None = None,
    allowance: Allowance | None = None,
) -> Diff:
    """Compare two runs of a job, but for the fields of records that are ignored.

    Records that do not fit into memory are put into the folder `temporary` meanwhile.
    """
    before, after = results_of(old.resources), results_of(new.resources)
    allowance = allowance or Allowance()
    tables: list[Table] = []
    compared = 0
    for one, other in pairs(before, after):
        schema = Schema.of(other)
        if schema and one.hash == other.hash:
            tables.append(Table(other.path))
        elif schema and compared == MOST_TABLES:
            problem = f"{MOST_TABLES} files that changed were compared, which is the most"
            tables.append(Table(other.path, problem=problem))
            break
        elif schema:
            compared += 1
            try:
                table = compare_records(
                    old.records(one, schema),
                    new.records(other, schema),
                    schema.key,
                    {*ignored, *schema.ignored},
                    temporary=temporary,
                    allowance=allowance,
                )
                tables.append(replace(table, path=other.path))
            except _UNREADABLE as error:
                tables.append(Table(other.path, problem=str(error)[:300]))
    return replace(compare_files(before, after), tables=tuple(tables))


def compare_files(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> Diff:
    """Compare the results of two runs, by path, from what their packages say alone."""
    both = sorted(before.keys() & after.keys())
    return Diff(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(path for path in both if before[path].hash != after[path].hash),
    )


@dataclass(frozen=True, slots=True)
class Schema:
    """What a job says of a file of records.

    Attributes:
        format: `csv`, `json` or `jsonl`.
        key: The fields that tell records from each other.
        fields: All fields, in their order.
        ignored: Those that do not count.
        dialect, encoding: How it is written.
    """

    format: str
    key: tuple[str, ...]
    fields: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()
    dialect: Mapping[str, Any] = field(default_factory=dict)
    encoding: str = "utf-8-sig"

    @classmethod
    def of(cls, resource: Resource) -> "Schema | None":
        """Return what is said of a file; None where its records have no key, or it has none."""
        said = resource.model_extra or {}
        schema, dialect = said.get("schema"), said.get("dialect")
        form = FORMATS.get(Path(resource.path).suffix.lower())
        if form is None or not isinstance(schema, dict):
            return None
        key = schema.get("primaryKey")
        names = [key] if isinstance(key, str) else key
        if (
            not isinstance(names, list)
            or not 0 < len(names) <= MOST_KEY
            or not all(isinstance(one, str) for one in names)
        ):
            return None
        listed = schema.get("fields")
        fields = (
            [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        encoding = str(said.get("encoding") or "utf-8")
        tabs = {"delimiter": "\t"} if resource.path.lower().endswith(".tsv") else {}
        return cls(
            form,
            tuple(names),
            tuple(str(one.get("name")) for one in fields),
            frozenset(str(one.get("name")) for one in fields if one.get(IGNORE) is True),
            {**tabs, **(dialect if isinstance(dialect, dict) else {})},
            # Excel begins such a file with a mark, which is no part of the first field's name.
            "utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding,
        )

    @property
    def text(self) -> str:
        """All of it, by which it is found among others."""
        return _text({**asdict(self), "ignored": sorted(self.ignored)})


def pairs(
    before: Mapping[str, Resource], after: Mapping[str, Resource]
) -> list[tuple[Resource, Resource]]:
    """Return which files are compared by their records: those of one path, and those that alone have one schema.

    A job may give its file another name each night.
    """
    found = [(before[path], after[path]) for path in sorted(before.keys() & after.keys())]
    alone: dict[str, tuple[list[Resource], list[Resource]]] = {}
    for side, (mine, others) in enumerate(((after, before), (before, after))):
        for path in sorted(mine.keys() - others.keys()):
            if schema := Schema.of(mine[path]):
                alone.setdefault(schema.text, ([], []))[side].append(mine[path])
    return found + [(old[0], new[0]) for new, old in alone.values() if len(old) == len(new) == 1]


def compare_records(
    old: Iterable[Record],
    new: Iterable[Record],
    key: Sequence[str],
    ignored: Iterable[str] = (),
    *,
    temporary: Path | None = None,
    allowance: Allowance | None = None,
) -> Table:
    """Compare records by their keys, in whatever order they come; millions need no more memory than thousands.

    Both sides are sorted by the key, in files where need be, and then read beside each other.

    Raises:
        ValueError: A record is too large, or they are too many.
        OSError: The disk has no room for sorting them.
    """
    sums, odd = Counter[str](), 0
    shown: dict[str, list[Any]] = {"added": [], "removed": [], "changed": []}
    ignored = frozenset(ignored) - set(key)
    allowed = allowance or Allowance()
    with ExitStack() as stack:
        first, second = (
            _sorted((_line(one, key, ignored) for one in side), _Files(temporary, stack), allowed)
            for side in (old, new)
        )
        for name, before, after in _beside(_by_key(first), _by_key(second)):
            odd += sum(one.count - bool(name) for one in (before, after) if one)
            if name and not (before and after and before.text == after.text):
                was, now = (json.loads(one.text) if one else {} for one in (before, after))
                kind = "changed" if before and after else "removed" if before else "added"
                sums[kind] += 1
                if len(shown[kind]) < MOST_SHOWN and allowed.shown > 0:
                    fields = _short(_fields(was, now) if kind == "changed" else was or now)
                    allowed.shown -= len(_text(fields))
                    change = Change(tuple(map(_cut, json.loads(name))), fields)
                    shown[kind].append(change if kind == "changed" else fields)
    return Table(
        "",
        Sum(**sums),
        tuple(shown["added"]),
        tuple(shown["removed"]),
        tuple(shown["changed"]),
        odd,
    )


def _line(record: Record, key: Sequence[str], ignored: frozenset[str]) -> tuple[str, str]:
    """Return a record's key and its text; the key is empty where one of its fields is."""
    values = [record.get(one) for one in key]
    name = "" if None in values or "" in values else _text([str(value) for value in values])
    return name, _text({one: value for one, value in record.items() if one not in ignored})


def _short(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record, or what changed in it; of a large one the beginning, since a whole one takes megabytes."""
    found: dict[str, Any] = {}
    size = 0
    for name, value in fields.items():
        found[_cut(name)] = tuple(map(_cut, value)) if isinstance(value, tuple) else _cut(value)
        size += len(_text([_cut(name), found[_cut(name)]]))
        if size > MOST_FIELDS:
            break
    return found


def _cut(value: Any) -> Any:
    """Return a value, or the beginning of its text when that is longer than a line shows."""
    text = value if isinstance(value, str) else _text(value)
    return value if len(text) <= MOST_TEXT else text[:MOST_TEXT]


@dataclass(frozen=True, slots=True)
class _File:
    """Sorted lines on the disk: their bytes, and those of the longest in memory."""

    lines: IO[str]
    size: int
    longest: int


class _Files:
    """Sorted lines on the disk. Files are merged before many are open, or one line of each takes much memory."""

    def __init__(self, folder: Path | None, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._levels: list[list[_File]] = []

    @property
    def all(self) -> list[IO[str]]:
        """What there is to merge in the end."""
        return [file.lines for level in self._levels for file in level]

    def add(self, lines: Iterable[str], size: int, longest: int, level: int = 0) -> None:
        """Store lines; at each level are files that were merged as often.

        Raises:
            OSError: The disk has no room, or next to none.
        """
        stream = tempfile.TemporaryFile("w+", encoding="ascii", dir=self._folder)  # noqa: SIM115
        self._stack.callback(stream.close)
        disk = os.fstatvfs(stream.fileno())
        if disk.f_bavail * disk.f_frsize < size + SPARE_BYTES:
            raise OSError("the disk has no room for sorting its records")
        stream.writelines(lines)
        stream.seek(0)
        if level == len(self._levels):
            self._levels.append([])
        here = self._levels[level]
        here.append(_File(stream, size, longest))
        in_memory = sum(file.longest for file in here)
        if len(here) == MOST_FILES or (len(here) > 1 and in_memory > PORTION_BYTES):
            self._levels[level] = []
            merged = merge(*(file.lines for file in here))
            self.add(
                merged,
                sum(file.size for file in here),
                max(file.longest for file in here),
                level + 1,
            )
            for file in here:
                file.lines.close()


def _sorted(
    rows: Iterable[tuple[str, str]], files: _Files, allowance: Allowance
) -> Iterator[list[str]]:
    """Yield `[key, number, text]` in the order of the keys; rows of one key keep theirs."""
    portion: list[str] = []
    size = longest = 0
    for number, (name, text) in enumerate(rows):
        # JSON has neither tabs nor ends of lines, and no array is the beginning of another.
        line = f"{name}\t{number:012}\t{text}\n"
        if len(line) > MOST_RECORD:
            raise ValueError(f"it has a record of more than {MOST_RECORD} characters")
        takes = sys.getsizeof(line)
        allowance.take(takes)
        portion.append(line)
        size, longest = size + takes, max(longest, takes)
        if len(portion) == PORTION or size > PORTION_BYTES:
            files.add(sorted(portion), size, longest)
            portion.clear()
            size = longest = 0
    return (line.rstrip("\n").split("\t", 2) for line in merge(*files.all, sorted(portion)))


@dataclass(frozen=True, slots=True)
class _Same:
    """The records of one key: how many there are, and the text of the last."""

    name: str
    count: int
    text: str


def _by_key(rows: Iterable[list[str]]) -> Iterator[_Same]:
    for name, group in groupby(rows, key=itemgetter(0)):
        ((count, (_, _, text)),) = deque(enumerate(group, 1), maxlen=1)
        yield _Same(name, count, text)


def _beside(
    old: Iterator[_Same], new: Iterator[_Same]
) -> Iterator[tuple[str, _Same | None, _Same | None]]:
    """Yield each key with what both sides have of it."""
    one, other = next(old, None), next(new, None)
    while one or other:
        name = min(side.name for side in (one, other) if side)
        mine, yours = (side if side and side.name == name else None for side in (one, other))
        yield name, mine, yours
        one = next(old, None) if mine else one
        other = next(new, None) if yours else other


def _fields(old: Record, new: Record) -> dict[str, tuple[Any, Any]]:
    names = sorted({*old, *new})
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }


def records(stream: IO[str], schema: Schema) -> Iterator[Record]:
    """Yield the records of a file.

    Raises:
        ValueError: It is not what it says.
        csv.Error: The same, of a CSV.
    """
    if schema.format == "csv":
        yield from _csv(stream, schema)
        return
    lines = (json.loads(line) for line in _lines(stream) if line.strip())
    for one in _elements(stream) if schema.format == "json" else lines:
        if not isinstance(one, dict):
            raise ValueError("it has a record that is no object")  # noqa: TRY004 -- one kind of damage
        yield one


def _csv(stream: IO[str], schema: Schema) -> Iterator[Record]:
    csv.field_size_limit(MOST_RECORD)  # of the process; the default is less than a page has
    dialect, size = schema.dialect, 0

    def lines() -> Iterator[str]:
        nonlocal size
        for line in _lines(stream):
            size += len(line)
            if size > MOST_RECORD:
                raise ValueError(f"it has a record of more than {MOST_RECORD} characters")
            yield line

    rows = csv.reader(
        lines(),
        delimiter=dialect.get("delimiter", ","),
        quotechar=dialect.get("quoteChar", '"'),
        escapechar=dialect.get("escapeChar"),
        doublequote=dialect.get("doubleQuote", True),
        skipinitialspace=dialect.get("skipInitialSpace", False),
    )
    header = next(rows, []) if dialect.get("header", True) else list(schema.fields)
    if header:
        _check_header(header, schema.key)
    size = 0
    for row in rows:
        size = 0
        if any(row[len(header) :]):
            raise ValueError("it has a record of more fields than its header")
        if row:
            yield dict(zip(header, row, strict=False))


def _check_header(header: Sequence[str], key: Iterable[str]) -> None:
    """Raise `ValueError` when records would lose a value, or all of them their keys."""
    for name in key:
        if name not in header:
            raise ValueError(f"its header has no field {name!r}")
    if len({*header}) < len(header):
        name = max(header, key=header.count)
        raise ValueError(f"its header has the field {name!r} more than once")


def _lines(stream: IO[str]) -> Iterator[str]:
    while line := stream.readline(MOST_RECORD + 1):
        if len(line) > MOST_RECORD:
            raise ValueError(f"it has a line of more than {MOST_RECORD} characters")
        yield line


def _elements(stream: IO[str]) -> Iterator[Any]:
    """Yield the elements of a JSON array, of which only one is in memory."""
    decoder, text, at = json.JSONDecoder(), stream.read(CHUNK).lstrip(), 1
    if not text.startswith("["):
        raise ValueError("it is no JSON array")
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        try:
            if text[at : at + 1] == "]":
                return
            element, end = decoder.raw_decode(text, at)
        except ValueError:
            more = stream.read(max(CHUNK, len(text) - at))
            text, at = text[at:] + more, 0
            if not more or len(text) > MOST_RECORD:
                raise
            continue
        yield element
        at = end
