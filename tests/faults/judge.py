"""What must hold of a bucket whatever was killed, failed or lied: judged with json and hashlib, and nothing else.

None of the product's code is in here, so that it cannot agree with the agent on what is wrong.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from tests.bucket.objects import Objects
from tests.faults.ledger import File

Document = dict[str, Any]
Job = tuple[str, str]
"""A run and a job of it."""

_ENTRY = re.compile(
    r"batches/(?P<batch>[^/]+/[^/]+)/(?P<run>[0-9TZ]+-[0-9a-f]{6})-[0-9a-f]{8}\.(?P<number>\d+)\.json"
)
_POINTER = re.compile(r"index/.*\.(?P<run>[0-9TZ]+-[0-9a-f]{6})-[0-9a-f]{8}\.\d+")
DESCRIPTOR = "datapackage.json"


@dataclass(frozen=True)
class Held:
    """What a bucket holds beneath a key.

    Attributes:
        size: In bytes.
        sha256: Of its content.
        text: Its content where it is a document of ours, which is read; else nothing.
    """

    size: int
    sha256: str
    text: bytes = b""

    @classmethod
    def of(cls, key: str, content: bytes) -> "Held":
        """Return what is known of a content."""
        is_read = key.startswith("batches/") or key.endswith(f"/{DESCRIPTOR}")
        digest = hashlib.sha256(content).hexdigest()
        return cls(len(content), digest, content if is_read else b"")

    @property
    def mark(self) -> tuple[int, str]:
        """Its size and digest."""
        return self.size, self.sha256


class Looker:
    """Looks at a bucket again and again, and reads only what is not what it was at the last look."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, tuple[object, Held]] = {}

    def look(self) -> "Inspection":
        """Return all that is there now."""
        self._known = {
            key: known
            if (known := self._known.get(key)) and known[0] == stamp
            else (stamp, Held.of(key, self._objects.get(key)))
            for key, stamp in self._objects.stamps().items()
        }
        return Inspection({key: held for key, (_, held) in self._known.items()})


@dataclass
class Broken:
    """What does not hold: all zeros is the promise.

    Attributes:
        lost: Files that a job had finished, and that no committed package has with that content.
        twice: Jobs that a run committed as two different packages, runs that closed in two ways, files that a package
            names more than once.
        missing: Objects that an entry, a package or a manifest names, and that are not there.
        different: Those that are there with another content.
        unlisted: Objects beneath a committed job that its package does not name; beneath a run that closed, that
            nothing names; jobs that a run committed and its manifest lacks.
        vanished: Runs that said they began, and did not close.
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

    @property
    def wrong(self) -> int:
        """What is said and is not so."""
        return self.missing + self.different + self.unlisted


Problem = tuple[str, str]
"""A field of `Broken`, and the key or the job that it is about."""


@dataclass
class Told:
    """What the entries of one run say.

    Attributes:
        batch: Schedule and batch.
        jobs: Its jobs, each with what its entries say.
        closed: Its ends; a repeated entry says the same again.
        stood_back: Whether it did nothing.
        objects: What they name.
    """

    batch: str
    jobs: dict[str, list[Document]] = field(default_factory=lambda: defaultdict(list))
    closed: list[Document] = field(default_factory=list)
    stood_back: bool = False
    objects: list[Document] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected of it but what was pending."""
        return self.stood_back or bool(self.closed)

    def take(self, entry: Document) -> None:
        """Take an entry."""
        self.stood_back |= "stood_back" in entry
        for job in entry.get("jobs", ()):
            self.jobs[job["name"]].append(job)
            self.objects += [job[kind] for kind in ("package", "state") if kind in job]
        self.objects += entry.get("log", ())
        if closed := entry.get("closed"):
            self.closed.append(closed)
            self.objects += [closed["manifest"]] if "manifest" in closed else []


class Inspection:
    """All that a bucket holds, and what of it does not hold.

    Attributes:
        objects: What there is, by key.
    """

    def __init__(self, objects: Mapping[str, Held]) -> None:
        self.objects = objects

    @cached_property
    def runs(self) -> dict[str, Told]:
        """What is said of each run, the first to begin first."""
        entries = [(match, key) for key in self.objects if (match := _ENTRY.fullmatch(key))]
        entries.sort(key=lambda one: (one[0]["run"], int(one[0]["number"])))
        told: dict[str, Told] = {}
        for match, key in entries:
            run = told.setdefault(match["run"], Told(match["batch"]))
            run.take(json.loads(self.objects[key].text))
        return told

    @cached_property
    def pointed(self) -> frozenset[str]:
        """The runs that the index tells of."""
        return frozenset(match["run"] for key in self.objects if (match := _POINTER.fullmatch(key)))

    @cached_property
    def committed(self) -> dict[Job, Document]:
        """What ended: of each job of each run what its first entry says."""
        return {
            (run, name): rows[0]
            for run, told in self.runs.items()
            for name, rows in told.jobs.items()
        }

    def successes(self, batch: str = "") -> set[tuple[str, str, str]]:
        """Return batch, run and job of each success, of all batches or of one."""
        return {
            (told.batch, run, name)
            for run, told in self.runs.items()
            for name, rows in told.jobs.items()
            if batch in ("", told.batch) and any(row["status"] == "succeeded" for row in rows)
        }

    def unended(self) -> set[str]:
        """Return the runs that began and did not close."""
        return {run for run, told in self.runs.items() if not told.ended}

    def package(self, run: str, job: str) -> Document | None:
        """Return a committed job's package."""
        return self._document(f"runs/{run}/jobs/{job}/{DESCRIPTOR}")

    def files(self, run: str, job: str) -> dict[str, str]:
        """Return the sha256 of a committed job's files that are there as its package says, by path."""
        package = self.package(run, job) if (run, job) in self.committed else None
        prefix = f"runs/{run}/jobs/{job}/"
        return {
            resource["path"].removeprefix("files/"): digest
            for resource in (package or {"resources": ()})["resources"]
            if resource["path"].startswith("files/")
            and (digest := self._digest(prefix + resource["path"])) == _digest_of(resource)
        }

    def problems(self) -> Iterator[Problem]:
        """Yield what does not hold."""
        for run, told in self.runs.items():
            for wanted in _once(told.objects):
                yield from self._difference(wanted["key"], wanted["bytes"], wanted["sha256"])
            for name, rows in told.jobs.items():
                if len({row.get("package", {}).get("sha256") for row in rows}) > 1:
                    yield "twice", f"{run} {name}"
                yield from self._problems_of_job(run, name)
            if len({closed.get("manifest", {}).get("sha256") for closed in told.closed}) > 1:
                yield "twice", run
            if told.closed:
                yield from self._problems_of_closed(run, told)

    def _problems_of_job(self, run: str, job: str) -> Iterator[Problem]:
        prefix = f"runs/{run}/jobs/{job}/"
        package = self.package(run, job)
        if package is None:
            return  # what an entry names and is not there has been told
        yield from self._problems_of_descriptor(prefix, package)
        named = {prefix + resource["path"] for resource in package["resources"]}
        for key in self._beneath(prefix) - named - {prefix + DESCRIPTOR}:
            yield "unlisted", key

    def _problems_of_closed(self, run: str, told: Told) -> Iterator[Problem]:
        prefix = f"runs/{run}/"
        manifest = self._document(prefix + DESCRIPTOR)
        named = {wanted["key"] for wanted in told.objects}
        if manifest is not None:
            yield from self._problems_of_descriptor(prefix, manifest)
            listed = {prefix + resource["path"] for resource in manifest["resources"]}
            pending = {name for closed in told.closed for name in closed.get("pending", ())}
            with_package = {
                name for name, rows in told.jobs.items() if "package" in rows[0]
            } - pending
            for name in with_package:
                if f"{prefix}jobs/{name}/{DESCRIPTOR}" not in listed:
                    yield "unlisted", f"{run} {name} is not in the manifest"
            named |= listed
        jobs = tuple(f"{prefix}jobs/{name}/" for name in told.jobs)
        for key in self._beneath(prefix) - named:
            if not jobs or not key.startswith(jobs):
                yield "unlisted", key

    def _problems_of_descriptor(self, prefix: str, document: Document) -> Iterator[Problem]:
        paths = Counter(resource["path"] for resource in document["resources"])
        for path in (path for path, count in paths.items() if count > 1):
            yield "twice", prefix + path
        for resource in document["resources"]:
            digest = _digest_of(resource)
            yield from self._difference(prefix + resource["path"], resource["bytes"], digest)

    def _difference(self, key: str, size: int, digest: str) -> Iterator[Problem]:
        held = self.objects.get(key)
        if held is None:
            yield "missing", key
        elif held.mark != (size, digest):
            yield "different", key

    def _document(self, key: str) -> Document | None:
        held = self.objects.get(key)
        return json.loads(held.text) if held else None

    def _digest(self, key: str) -> str | None:
        held = self.objects.get(key)
        return held.sha256 if held else None

    def _beneath(self, prefix: str) -> set[str]:
        return {key for key in self.objects if key.startswith(prefix)}


def _once(objects: Iterable[Document]) -> list[Document]:
    return list({(one["key"], one["bytes"], one["sha256"]): one for one in objects}.values())


def _digest_of(resource: Document) -> str:
    return str(resource["hash"]).removeprefix("sha256:")


def lost(seen: Inspection, finished: Iterable[File]) -> list[File]:
    """Return the files that a job had finished, and that no committed package has as they were."""
    files: dict[Job, dict[str, str]] = {}
    gone = []
    for file in finished:
        job = (file.run, file.job)
        if job not in files:
            files[job] = seen.files(*job)
        if files[job].get(file.path) != file.sha256:
            gone.append(file)
    return gone


def examine(
    seen: Inspection, finished: Iterable[File], *, gone: AbstractSet[str] = frozenset()
) -> Broken:
    """Return what does not hold of a bucket.

    Args:
        seen: The bucket.
        finished: What jobs had finished, and must be there.
        gone: Runs whose disk is gone with them: nobody can close them.
    """
    counts = Counter(kind for kind, _ in seen.problems())
    missing = len(lost(seen, finished))
    vanished = len(seen.unended() - gone) + len(seen.runs.keys() - seen.pointed)
    return Broken(**counts, lost=missing, vanished=vanished)
