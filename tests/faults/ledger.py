"""What must hold of a bucket after any number of kills, read with json and hashlib alone, none of our code."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path


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


def objects_in(folder: Path) -> dict[str, bytes]:
    """Return all that a bucket in a folder holds; a store's own drafts (`name#number`) are not objects."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "#" not in path.name
    }


def examine(objects: Mapping[str, bytes], finished: Iterable[tuple[str, str, str]]) -> Broken:
    """Return what does not hold of a bucket.

    Args:
        objects: All of them, by key beneath the prefix.
        finished: As `finished` returns it.
    """
    broken = Broken()
    entries = [json.loads(data) for key, data in objects.items() if key.startswith("index/")]
    runs = Counter(entry["run_id"] for entry in entries)
    broken.twice = sum(1 for count in runs.values() if count > 1)
    started = {key.split("/")[1][:-5] for key in objects if key.startswith("started/")}
    broken.vanished = len(started - set(runs))
    held: dict[str, dict[str, str]] = {}
    for entry in entries:
        held[entry["run_id"]] = _examine_run(entry, objects, broken)
    broken.lost = sum(1 for run, path, digest in finished if held.get(run, {}).get(path) != digest)
    return broken


def _examine_run(
    entry: Mapping[str, object], objects: Mapping[str, bytes], broken: Broken
) -> dict[str, str]:
    """Count what does not hold of a run, and return what its manifest lists: path, sha256."""
    prefix = f"runs/{entry['run_id']}/"
    text = objects.get(f"{prefix}datapackage.json")
    if text is None:
        broken.missing += 1
        return {}
    reference = entry["manifest"]
    assert isinstance(reference, dict)
    if reference["sha256"] != hashlib.sha256(text).hexdigest():
        broken.different += 1
    manifest = json.loads(text)
    listed = {}
    for each in manifest["resources"]:
        data = objects.get(prefix + each["path"])
        digest = each["hash"].removeprefix("sha256:")
        if data is None:
            broken.missing += 1
        elif len(data) != each["bytes"] or hashlib.sha256(data).hexdigest() != digest:
            broken.different += 1
        else:
            listed[each["path"]] = digest
    there = {key.removeprefix(prefix) for key in objects if key.startswith(prefix)}
    named = {each["path"] for each in manifest["resources"]}
    broken.unlisted += len(there - named - {"datapackage.json"})
    return listed
