"""What must hold of a bucket after any number of kills, read with json and hashlib alone, none of our code."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """What a bucket holds beneath a key.

    Attributes:
        size: In bytes.
        sha256: Of its content.
        text: Its content where it is an index entry or a manifest, which are read; else nothing.
    """

    size: int
    sha256: str
    text: bytes = b""

    @classmethod
    def of(cls, key: str, content: bytes) -> "Held":
        """Return what is known of a content."""
        is_read = key.startswith("index/") or key.endswith("/datapackage.json")
        digest = hashlib.sha256(content).hexdigest()
        return cls(len(content), digest, content if is_read else b"")


class Looker:
    """Looks at a bucket again and again, and reads only what is not what it was at the last look."""

    def __init__(
        self, stamps: Callable[[], Mapping[str, object]], get: Callable[[str], bytes]
    ) -> None:
        """Look at a bucket.

        Args:
            stamps: Returns all its keys, each with what changes whenever the content is written again.
            get: Returns a content.
        """
        self._stamps, self._get = stamps, get
        self._known: dict[str, tuple[object, Held]] = {}

    def look(self) -> dict[str, Held]:
        """Return all that is there now, by key."""
        self._known = {
            key: known
            if (known := self._known.get(key)) and known[0] == stamp
            else (stamp, Held.of(key, self._get(key)))
            for key, stamp in self._stamps().items()
        }
        return {key: held for key, (_, held) in self._known.items()}


@dataclass
class Broken:
    """What does not hold: all zeros is the promise.

    Attributes:
        lost: Files that a job had finished, and that its run's manifest does not have with that content.
        twice: Runs with more than one index entry.
        missing: Objects that a committed manifest or an index entry names, and that are not there.
        different: Those that are there with another content.
        unlisted: Objects beneath a committed run that its manifest does not name.
        vanished: Runs that said they began, and that have no index entry.
    """

    lost: int = 0
    twice: int = 0
    missing: int = 0
    different: int = 0
    unlisted: int = 0
    vanished: int = 0

    def __add__(self, other: "Broken") -> "Broken":
        """Return the sum."""
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)
        }
        return Broken(**sums)

    def __sub__(self, other: "Broken") -> "Broken":
        """Return the difference."""
        return self + Broken(**{each.name: -getattr(other, each.name) for each in fields(self)})


def finished(ledger: Path) -> list[tuple[str, str, str]]:
    """Return what jobs wrote down after each file was finished: run, path in the run, sha256."""
    if not ledger.exists():
        return []
    lines = ledger.read_text().split("\n")[:-1]  # a line that a kill has torn says nothing
    return [(run, path, digest) for run, path, digest in (line.split() for line in lines)]


def files_in(folder: Path) -> dict[str, object]:
    """Return the stamps of a bucket in a folder; a store's own drafts (`name#number`) are not objects."""
    stats = {
        path: path.stat() for path in folder.rglob("*") if "#" not in path.name and path.is_file()
    }
    return {
        path.relative_to(folder).as_posix(): (
            stat.st_ino,
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ctime_ns,
        )
        for path, stat in stats.items()
    }


def examine(objects: Mapping[str, Held], finished: Iterable[tuple[str, str, str]]) -> Broken:
    """Return what does not hold of a bucket.

    Args:
        objects: All of them, by key beneath the prefix.
        finished: As `finished` returns it.
    """
    broken = Broken()
    entries = [json.loads(held.text) for key, held in objects.items() if key.startswith("index/")]
    runs = Counter(entry["run_id"] for entry in entries)
    broken.twice = sum(1 for count in runs.values() if count > 1)
    started = {key.split("/")[1][:-5] for key in objects if key.startswith("started/")}
    broken.vanished = len(started - set(runs))
    listed: dict[str, dict[str, str]] = {}
    for entry in entries:
        listed[entry["run_id"]] = _examine_run(entry, objects, broken)
    broken.lost = sum(
        1 for run, path, digest in finished if listed.get(run, {}).get(path) != digest
    )
    return broken


def _examine_run(
    entry: Mapping[str, object], objects: Mapping[str, Held], broken: Broken
) -> dict[str, str]:
    """Count what does not hold of a run, and return what its manifest lists: path, sha256."""
    prefix = f"runs/{entry['run_id']}/"
    own = objects.get(f"{prefix}datapackage.json")
    if own is None:
        broken.missing += 1
        return {}
    reference = entry["manifest"]
    assert isinstance(reference, dict)
    if reference["sha256"] != own.sha256:
        broken.different += 1
    manifest = json.loads(own.text)
    listed = {}
    for each in manifest["resources"]:
        held = objects.get(prefix + each["path"])
        digest = each["hash"].removeprefix("sha256:")
        if held is None:
            broken.missing += 1
        elif (held.size, held.sha256) != (each["bytes"], digest):
            broken.different += 1
        else:
            listed[each["path"]] = digest
    there = {key.removeprefix(prefix) for key in objects if key.startswith(prefix)}
    named = {each["path"] for each in manifest["resources"]}
    broken.unlisted += len(there - named - {"datapackage.json"})
    return listed
