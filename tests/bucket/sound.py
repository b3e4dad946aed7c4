"""What must hold of a bucket whatever was killed, failed or lied: judged with json and hashlib, and nothing else.

None of the product's code is in here, so that it cannot agree with the agent on what is wrong. Only `sound` and
`all_sound`, for runs of which nothing was lost, ask the contract's own readers besides.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

from agent.contract.entries import Invalid, read_entry
from agent.contract.layout import EntryKey, JobKey, ManifestKey, parse_key
from agent.contract.manifest import read_manifest
from agent.contract.package import read_package
from tests.bucket import layout
from tests.bucket.bucket import Bucket, Document, Run, read_runs
from tests.bucket.layout import DESCRIPTOR
from tests.bucket.objects import Objects

Job = tuple[str, str]
"""A run and a job of it."""


class File(NamedTuple):
    """A file that a job had finished: its path below the job's output, and the sha256 of its content."""

    run: str
    job: str
    path: str
    sha256: str


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


class Inspection:
    """All that a bucket holds, and what of it does not hold.

    Attributes:
        objects: What there is, by key.
    """

    def __init__(self, objects: Mapping[str, Held]) -> None:
        self.objects = objects

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with a prefix, in order."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        """Return a document of ours."""
        return self.objects[key].text

    @cached_property
    def runs(self) -> dict[str, Run]:
        """What is said of each run, the first to begin first."""
        return read_runs(self)

    @cached_property
    def pointed(self) -> frozenset[str]:
        """The runs that the index tells of."""
        found = map(layout.POINTER.fullmatch, self.objects)
        return frozenset(match["run"] for match in found if match)

    def successes(self, batch: str = "") -> set[tuple[str, str, str]]:
        """Return batch, run and job of each success, of all batches or of one."""
        return {
            (run.batch, run.id, name)
            for run in self.runs.values()
            for name, rows in run.rows.items()
            if batch in ("", run.batch) and any(row["status"] == "succeeded" for row in rows)
        }

    def unended(self) -> set[str]:
        """Return the runs that began and did not close."""
        return {run.id for run in self.runs.values() if run.status == "running"}

    def package(self, run: str, job: str) -> Document | None:
        """Return a job's package, if there is one."""
        return self._document(layout.job_key(run, job))

    def files(self, run: str, job: str) -> dict[str, str]:
        """Return the sha256 of a committed job's files that are there as its package says, by path."""
        told = self.runs[run].told if run in self.runs else {}
        package = self.package(run, job) if job in told else None
        prefix = layout.job_key(run, job, "")
        return {
            resource["path"].removeprefix("files/"): digest
            for resource in (package or {"resources": ()})["resources"]
            if resource["path"].startswith("files/")
            and (held := self.objects.get(prefix + resource["path"]))
            and (digest := held.sha256) == _digest_of(resource)
        }

    def problems(self) -> Iterator[Problem]:
        """Yield what does not hold."""
        for run in self.runs.values():
            yield from self.problems_of(run)

    def problems_of(self, run: Run) -> Iterator[Problem]:
        """Yield what does not hold of a run."""
        for wanted in _once(run.named):
            yield from self._difference(wanted["key"], wanted["bytes"], wanted["sha256"])
        for name, rows in run.rows.items():
            if len({row.get("package", {}).get("sha256") for row in rows}) > 1:
                yield "twice", f"{run.id} {name}"
            yield from self._problems_of_job(run.id, name)
        if len({closed.get("manifest", {}).get("sha256") for closed in run.ends}) > 1:
            yield "twice", run.id
        if run.closed:
            yield from self._problems_of_closed(run, run.closed)

    def _problems_of_job(self, run: str, job: str) -> Iterator[Problem]:
        prefix = layout.job_key(run, job, "")
        package = self.package(run, job)
        if package is None:
            return  # what an entry names and is not there has been told
        yield from self._problems_of_descriptor(prefix, package)
        named = {prefix + resource["path"] for resource in package["resources"]}
        for key in set(self.keys(prefix)) - named - {prefix + DESCRIPTOR}:
            yield "unlisted", key

    def _problems_of_closed(self, run: Run, closed: Document) -> Iterator[Problem]:
        prefix = layout.run_key(run.id)
        manifest = self._document(prefix + DESCRIPTOR)
        named = {wanted["key"] for wanted in run.named}
        pending = closed.get("pending", ())
        if manifest is not None:
            yield from self._problems_of_descriptor(prefix, manifest)
            listed = {prefix + resource["path"] for resource in manifest["resources"]}
            for name, row in run.told.items():
                key = layout.job_key(run.id, name)
                if "package" in row and name not in pending and key not in listed:
                    yield "unlisted", f"{run.id} {name} is not in the manifest"
            named |= listed
        if closed.get("not_sent") or set(pending) - run.told.keys():
            return  # what was on its way then is there and named by nobody, or not yet
        jobs = tuple(layout.job_key(run.id, name, "") for name in run.told)
        for key in set(self.keys(prefix)) - named:
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
        elif (held.size, held.sha256) != (size, digest):
            yield "different", key

    def _document(self, key: str) -> Document | None:
        held = self.objects.get(key)
        return json.loads(held.text) if held else None


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


def sound(bucket: Bucket, run: str) -> Run:
    """Return a run, which closed and of which everything is there as it says, and nothing else."""
    seen = Looker(bucket.objects).look()
    assert run in seen.pointed
    assert run in seen.runs
    none_of(seen.problems_of(seen.runs[run]))
    none_of(_invalid(bucket.objects, seen, {run}))
    assert seen.runs[run].status != "running", run
    return bucket.run(run)


def all_sound(bucket: Bucket) -> list[str]:
    """Return the ids of the runs that closed, oldest first: all that began and did not stand back; each is sound."""
    seen = Looker(bucket.objects).look()
    none_of(seen.problems())
    none_of(_invalid(bucket.objects, seen, seen.runs.keys()))
    none_of(seen.unended())
    none_of(seen.runs.keys() ^ seen.pointed)
    return [run.id for run in seen.runs.values() if not run.stood_back]


def none_of(problems: Iterable[object]) -> None:
    """Fail with the problems, if there are any."""
    found = list(problems)
    assert not found, found


def _invalid(objects: Objects, seen: Inspection, runs: AbstractSet[str]) -> Iterator[str]:
    """Yield the documents of runs that the contract's own readers do not take."""
    for text in seen.objects:
        key = parse_key(text)
        if not isinstance(key, EntryKey | JobKey | ManifestKey) or key.run not in runs:
            continue
        content = objects.get(text) if text.endswith(".json") else b""
        document: object = None
        if isinstance(key, EntryKey):
            document = read_entry(key, content)
        elif isinstance(key, ManifestKey):
            document = read_manifest(key, content)
        elif key.path == DESCRIPTOR:
            document = read_package(key, content)
        if isinstance(document, Invalid):
            yield f"{text}: {document.reason}"
