"""What a release's tree may contain, judged from git's listing before any of it is written to disk. Decisions only."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.base.units import show_size

MAX_FILES = 20_000
MAX_FOLDERS = MAX_FILES
MAX_BYTES = 512 * 1024**2
"""Scrapers are source code: these limits are far above any, and far below a small machine's disk."""
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
"""The file systems' own limit on one name."""
MAX_DEPTH = 100
"""Folders above a file: far below the depth at which Python's own `shutil.copytree` fails."""
MAX_TARGET_BYTES = 1024
MAX_LINK_STEPS = 40
"""As many symbolic links as the kernel follows for one path."""
MAX_LINK_NAMES = 500_000
"""Names that all links lead through: twenty-five for each of as many as there may be files."""
SHOWN = 20
"""Problems that a message names."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LINE = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-)\t(.+)", re.DOTALL)


class Kind(StrEnum):
    """The kind of a tree's entry, by git's mode."""

    FILE = "file"
    PROGRAM = "program"
    LINK = "link"
    SUBMODULE = "submodule"


_KINDS = {
    b"100644": Kind.FILE,
    b"100664": Kind.FILE,  # written by git before 1.0, still valid
    b"100755": Kind.PROGRAM,
    b"120000": Kind.LINK,
    b"160000": Kind.SUBMODULE,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree.

    Attributes:
        path: Relative, with `/`; bytes that are not UTF-8 as surrogates, which `tree_problems` rejects.
        kind: Its kind.
        oid: Its content's name in git.
        bytes: Its size; 0 for a submodule, which has none.
    """

    path: str
    kind: Kind
    oid: str
    bytes: int


def parse_listing(listing: bytes) -> tuple[Entry, ...]:
    """Return the output of `git ls-tree -r -l -z` as entries.

    Raises:
        ValueError: It is invalid, or cut short.
    """
    if listing and not listing.endswith(b"\0"):
        raise ValueError("the listing is cut short")
    return tuple(_entry(line) for line in listing.split(b"\0")[:-1])


def _entry(line: bytes) -> Entry:
    match = _LINE.fullmatch(line)
    kind = _KINDS.get(match.group(1)) if match else None
    if match is None or kind is None:
        raise ValueError(f"not an entry of a tree: {line[:80]!r}")
    _, _, oid, size, path = match.groups()
    if size == b"-" and kind is not Kind.SUBMODULE:
        raise ValueError(f"an entry without a size: {line[:80]!r}")
    return Entry(
        path.decode(errors="surrogateescape"), kind, oid.decode(), 0 if size == b"-" else int(size)
    )


def tree_problems(entries: Sequence[Entry]) -> list[str]:
    """Return why a tree is rejected as a release; at most `SHOWN` reasons and a count of the others."""
    if len(entries) > MAX_FILES:
        return [f"it has {len(entries)} files, more than {MAX_FILES}"]
    problems = []
    total = sum(entry.bytes for entry in entries)
    if total > MAX_BYTES:
        problems.append(f"it has {show_size(total)} of files, more than {show_size(MAX_BYTES)}")
    folders = _folders(entries)
    if len(folders) > MAX_FOLDERS:
        return [*problems, f"it has more than {MAX_FOLDERS} folders"]
    # A file or link that is a folder too would let one entry be written through another.
    twofold = folders & {entry.path for entry in entries}
    seen: set[str] = set()
    for entry in entries:
        problem = _entry_problem(entry, twofold)
        if problem is None and entry.path in seen:
            problem = "is listed twice"
        if problem is not None:
            problems.append(f"{entry.path!a} {problem}")
        seen.add(entry.path)
    return _first(problems)


def _folders(entries: Iterable[Entry]) -> set[str]:
    """Return the folders of a tree; of too many only one too many, because a small tree may have millions."""
    found: set[str] = set()
    for entry in entries:
        for folder in _parents(entry.path):
            if folder in found or len(found) > MAX_FOLDERS:
                break
            found.add(folder)
    return found


def _entry_problem(entry: Entry, twofold: set[str]) -> str | None:
    if entry.kind is Kind.SUBMODULE:
        return "is a submodule, which a release cannot have"
    if entry.kind is Kind.LINK and entry.bytes > MAX_TARGET_BYTES:
        return "is a link with too long a target"
    try:
        names = [len(name.encode()) for name in entry.path.split("/")]
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    parts = entry.path.split("/")
    rules = (
        (sum(names) + len(names) - 1 > MAX_PATH_BYTES, f"is longer than {MAX_PATH_BYTES} bytes"),
        (max(names) > MAX_NAME_BYTES, f"has a name longer than {MAX_NAME_BYTES} bytes"),
        (len(parts) - 1 > MAX_DEPTH, f"is in more than {MAX_DEPTH} folders"),
        (not {"", ".", ".."}.isdisjoint(parts), "has an empty or a dot segment"),
        (any(part.lower() == ".git" for part in parts), "has a segment that is git's own"),
        (_CONTROL.search(entry.path) is not None, "has control characters in its name"),
        (
            twofold and not twofold.isdisjoint(_parents(entry.path)),
            "is below something that is not a folder",
        ),
    )
    return next((problem for broken, problem in rules if broken), None)


def link_problems(targets: Mapping[str, str]) -> list[str]:
    """Return which symbolic links (path to target) lead out of the tree, or in a circle.

    A link may dangle inside the tree: that is a broken release at worst, not a way out.
    """
    problems, left = [], MAX_LINK_NAMES
    for path, target in targets.items():
        problem, names = _target_problem(target), 0
        if problem is None:
            problem, names = _followed(path, targets)
        if problem is not None:
            problems.append(f"{path!a} {problem}")
        left -= names
        if left < 0:  # a link that leads through long ones takes as long as a thousand others
            return _first([*problems, f"its links lead through more than {MAX_LINK_NAMES} names"])
    return _first(problems)


def _target_problem(target: str) -> str | None:
    if not target:
        return "is a link to nothing"
    return "is a link with control characters in its target" if _CONTROL.search(target) else None


def _followed(path: str, links: Mapping[str, str]) -> tuple[str | None, int]:
    """Follow a link as the kernel would, through the other links of the tree; count the names on the way."""
    *place, name = path.split("/")
    todo, steps, names = [name], 0, 0
    while todo:
        part = todo.pop()
        names += 1
        if part in {"", "."}:
            continue
        if part == "..":
            if not place:
                return f"is a link out of the release, to {links[path]!a}", names
            place.pop()
            continue
        here = "/".join((*place, part))
        target = links.get(here)
        if target is None:
            place.append(part)
            if len(place) > MAX_DEPTH + 1:
                return "is a link that leads deeper than any file is", names
            continue
        steps += 1
        if steps > MAX_LINK_STEPS:
            return "is a link that goes in a circle", names
        if target.startswith("/"):
            return f"is a link out of the release, to {links[path]!a}", names
        todo += reversed(target.split("/"))
    return None, names


def _parents(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN
    return problems if more <= 0 else [*problems[:SHOWN], f"and {more} more"]
