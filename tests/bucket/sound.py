"""What must hold of a bucket: what is committed is there as it says, and nothing else is; looked at from both sides."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from tests.bucket import layout
from tests.bucket.bucket import Bucket, Run
from tests.bucket.objects import Objects


@dataclass(frozen=True)
class Held:
    """What a bucket holds beneath a key.

    Attributes:
        size: In bytes.
        sha256: Of its content.
        text: Its content where it is an entry or a manifest, which are read; else nothing.
    """

    size: int
    sha256: str
    text: bytes = b""

    @classmethod
    def of(cls, key: str, content: bytes) -> "Held":
        """Return what is known of a content."""
        is_read = key.startswith(layout.ENTRIES) or key.endswith(f"/{layout.MANIFEST}")
        digest = hashlib.sha256(content).hexdigest()
        return cls(len(content), digest, content if is_read else b"")

    @property
    def mark(self) -> tuple[int, str]:
        """Its size and hash as a manifest has them."""
        return self.size, f"sha256:{self.sha256}"


class Looker:
    """Looks at a bucket again and again, and reads only what is not what it was at the last look."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, tuple[object, Held]] = {}

    def look(self) -> dict[str, Held]:
        """Return all that is there now, by key."""
        self._known = {
            key: known
            if (known := self._known.get(key)) and known[0] == stamp
            else (stamp, Held.of(key, self._objects.get(key)))
            for key, stamp in self._objects.stamps().items()
        }
        return {key: held for key, (_, held) in self._known.items()}


@dataclass
class Broken:
    """What does not hold: all zeros is the promise.

    Attributes:
        lost: Files that a job had finished, and that its run's manifest does not have with that content.
        twice: Runs with more than one entry, and files that a manifest names more than once.
        missing: Objects that a committed manifest or an entry names, and that are not there.
        different: Those that are there with another content.
        unlisted: Objects beneath a committed run that its manifest does not name. A request that was given up may still
            arrive: a file of which the manifest says that it was not sent is none.
        vanished: Runs that said they began, and that have no entry.
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


Problem = tuple[str, str]
"""A field of `Broken`, and the run or the path that it is about."""


class Inspection:
    """All that a bucket holds, and what of it does not hold."""

    def __init__(self, objects: Mapping[str, Held]) -> None:
        self._objects = objects
        texts = [
            held.text for key, held in sorted(objects.items()) if key.startswith(layout.ENTRIES)
        ]
        self._entries = [json.loads(text) for text in texts]
        self.committed = Counter(str(entry["run_id"]) for entry in self._entries)

    def run(self, run: str) -> Run:
        """Return what a run's manifest says."""
        return Run(run, json.loads(self._objects[layout.manifest_key(run)].text))

    def vanished(self) -> set[str]:
        """Return the runs that began and have no entry."""
        begun = {layout.begun_run(key) for key in self._objects if key.startswith(layout.BEGUN)}
        return begun - self.committed.keys()

    def problems(self, run: str) -> Iterator[Problem]:
        """Yield what does not hold of a committed run."""
        if self.committed[run] > 1:
            yield "twice", run
        own = self._objects.get(layout.manifest_key(run))
        if own is None:
            yield "missing", layout.MANIFEST
            return
        for entry in self._entries:
            if entry["run_id"] == run and entry["manifest"]["sha256"] != own.sha256:
                yield "different", layout.MANIFEST
        yield from _differences(self.run(run), self.files(run))

    def files(self, run: str) -> dict[str, Held]:
        """Return what there is beneath a run but its manifest, by path."""
        prefix = layout.file_key(run, "")
        return {
            key.removeprefix(prefix): held
            for key, held in self._objects.items()
            if key.startswith(prefix) and key != layout.manifest_key(run)
        }

    def delivered(self, run: str) -> dict[str, str]:
        """Return the sha256 of the files that a run committed and that are there as it says, by path."""
        if not self.committed[run] or layout.manifest_key(run) not in self._objects:
            return {}
        marks = self.run(run).marks
        there = self.files(run)
        return {path: held.sha256 for path, held in there.items() if marks.get(path) == held.mark}


def _differences(run: Run, there: Mapping[str, Held]) -> Iterator[Problem]:
    """Yield in what the files of a run differ from its manifest."""
    for path, mark in run.marks.items():
        if path not in there:
            yield "missing", path
        elif there[path].mark != mark:
            yield "different", path
    for path in there.keys() - run.marks.keys() - run.unsent:
        yield "unlisted", path
    counts = Counter(each["path"] for each in run.manifest["resources"])
    for path in (path for path, count in counts.items() if count > 1):
        yield "twice", path


def examine(objects: Mapping[str, Held], finished: Iterable[tuple[str, str, str]]) -> Broken:
    """Return what does not hold of a bucket.

    Args:
        objects: All of them, by key.
        finished: Run, path in the run and sha256 of each file that a job had finished.
    """
    seen = Inspection(objects)
    counts = Counter(kind for run in seen.committed for kind, _ in seen.problems(run))
    delivered = {run: seen.delivered(run) for run in seen.committed}
    lost = sum(delivered.get(run, {}).get(path) != digest for run, path, digest in finished)
    return Broken(**counts, lost=lost, vanished=len(seen.vanished()))


def sound(bucket: Bucket, run: str) -> Run:
    """Return a run, which is committed once and whose manifest lists exactly what is there, as it is."""
    seen = Inspection(Looker(bucket.objects).look())
    assert run in seen.committed
    assert list(seen.problems(run)) == []
    return seen.run(run)


def all_sound(bucket: Bucket) -> list[str]:
    """Return the ids of the runs that are committed, oldest first, each of which is sound."""
    seen = Inspection(Looker(bucket.objects).look())
    assert [problem for run in seen.committed for problem in seen.problems(run)] == []
    return list(seen.committed)
