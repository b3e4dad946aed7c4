"""Reads and checks what the bucket holds: the only place for entries, packages and manifests. Decisions only.

Everything is untrusted until it has passed here. What comes out is sound, possible and printable, or `Invalid` with a
reason that can be shown. Whether an entry is valid depends on the object and on when it arrived, by the store's clock,
and on nothing else: all readers agree, whenever they read it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, TypeVar

from pydantic_core import from_json, to_json

from agent.base.console import printable
from agent.batch.fold import Arrived
from agent.contract import entries as contract
from agent.contract.descriptor import Descriptor, Resource
from agent.contract.entries import Began, Entry, Invalid, Object
from agent.contract.ids import run_started
from agent.contract.layout import FILES, EntryKey, JobKey, ManifestKey, parse_key
from agent.contract.manifest import Manifest
from agent.contract.manifest import read_manifest as parse_manifest
from agent.contract.names import bucket_path, parse_written
from agent.contract.package import Package
from agent.contract.package import read_package as parse_package
from consumer.model import Job

CLOCKS = timedelta(days=1)
"""How far the clock of a machine may be off, or may have been set while a run went on."""
MOST_JOBS = 10_000
"""Different jobs in one batch: a shard has a thousand, where a thousand shards share a million."""
MOST_RUNS = 1000
"""Attempts at one batch."""
MOST_DESCRIPTOR_BYTES = 48 * 1024**2
"""Of a package or a manifest: 200,000 files at the 250 bytes that one takes."""
MOST_VALUES = 2_000_000
"""Separators in a descriptor; values take far more memory than their text."""
MOST_FILES = 200_000
MOST_REASON = 300

_UNPRINTABLE = re.compile(rb"[\\\x7f-\xff]")
"""Bytes that a JSON text needs for whatever is not printable: an escape, or what is not ASCII."""
_VALUES = re.compile(rb"[,\[{]")
_Document = TypeVar("_Document", bound=Descriptor)


def read_entry(
    key: EntryKey, at: datetime, text: bytes, extra: Literal["allow", "ignore"] = "allow"
) -> Entry | Invalid:
    """Return the entry in an object that was found at a key and arrived at a time by the store's clock.

    `extra` says what becomes of a newer writer's fields.
    """
    entry = contract.read_entry(key, text, extra)
    if isinstance(entry, Entry) and _UNPRINTABLE.search(text):
        # Control characters, escape sequences and overrides of the direction end here, for every text alike.
        entry = _printable_entry(key, text, extra)
    if isinstance(entry, Invalid):
        return _invalid(entry.reason)
    problem = _entry_problem(key, at, entry)
    return _invalid(problem) if problem else entry


def read_again(key: EntryKey, document: bytes) -> Entry | Invalid:
    """Return an entry that was checked before, from a document that `written` made.

    Without what a newer writer said besides: nobody at home asks for it, and all of a log is in memory at once.
    """
    return contract.read_entry(key, document, "ignore")


def written(entry: Entry) -> bytes:
    """Return a checked entry as a document, with all that a newer writer said in it."""
    return entry.model_dump_json(exclude_unset=True).encode()


def within_bounds(log: Iterable[Arrived]) -> list[Arrived]:
    """Return a batch's log without what no batch can have: more than `MOST_RUNS` attempts, or `MOST_JOBS` jobs.

    What arrived first stays, so that a flood later on takes nothing away.
    """
    runs: set[str] = set()
    jobs: set[str] = set()
    kept = []
    for one in sorted(log, key=lambda one: one.order):
        named = {job.name for job in one.entry.jobs} if isinstance(one.entry, Entry) else set()
        if len(runs | {one.key.run}) > MOST_RUNS:
            continue
        if len(jobs | named) > MOST_JOBS:
            kept.append(replace(one, entry=_invalid(f"its batch has more than {MOST_JOBS} jobs")))
            continue
        runs.add(one.key.run)
        jobs |= named
        kept.append(one)
    return kept


def read_package(key: JobKey, committed: Object, text: bytes) -> Package | Invalid:
    """Return a job's package, when it is what an entry committed and each file of it can have a place of its own."""
    problem = _descriptor_problem(key.text, committed, text)
    package = Invalid(problem) if problem else parse_package(key, text)
    return _invalid(package.reason) if isinstance(package, Invalid) else _checked(package)


def disagreements(job: Job, package: Package) -> list[str]:
    """Return where an entry and the package that it commits tell different stories of a job."""
    results = [one for one in package.resources if one.path.startswith(FILES)]
    pairs = (
        ("status", job.status.value, package.job.status.value),
        ("files", job.files, len(results)),
        ("bytes", job.bytes, sum(one.bytes for one in results)),
    )
    return [
        f"{what}: its entry says {said}, its package {listed}"
        for what, said, listed in pairs
        if said != listed
    ]


def read_own_package(text: bytes) -> Package | Invalid:
    """Return the package in a text, of whichever job it is: one that lies in a folder at home."""
    try:
        said = from_json(text, allow_inf_nan=False)["mayfly:job"]
        key = JobKey(str(said["run"]), str(said["name"]))
        own = Object(key=key.text, bytes=len(text), sha256=sha256(text).hexdigest())
    except (ValueError, RecursionError, KeyError, TypeError):
        return Invalid("it is no package of a job")
    return read_package(key, own, text)


def read_manifest(key: ManifestKey, committed: Object, text: bytes) -> Manifest | Invalid:
    """Return a run's manifest, when it is what an entry committed."""
    problem = _descriptor_problem(key.text, committed, text)
    manifest = Invalid(problem) if problem else parse_manifest(key, text)
    return _invalid(manifest.reason) if isinstance(manifest, Invalid) else _checked(manifest)


def _invalid(reason: str) -> Invalid:
    return Invalid(printable(reason)[:MOST_REASON])


def _printable_entry(
    key: EntryKey, text: bytes, extra: Literal["allow", "ignore"]
) -> Entry | Invalid:
    try:
        document = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        return Invalid(str(error))
    return contract.read_entry(key, to_json(_printable(document)), extra)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return value


def _entry_problem(key: EntryKey, at: datetime, entry: Entry) -> str | None:
    latest = at + CLOCKS
    named = run_started(key.run)
    if problem := to_come(key, at):
        return problem
    if entry.closed and not named - CLOCKS <= entry.closed.finished <= latest:
        return "its run ended before it began, or at a time to come"
    return _beginning_problem(key, entry.began, latest) if entry.began else None


def to_come(key: EntryKey, at: datetime) -> str | None:
    """Return what a key names that is later than any clock may have been at a time; None when nothing is."""
    moments = (("its run begins", run_started(key.run)), ("its slot is", key.batch.slot))
    late = (what for what, moment in moments if moment and moment > at + CLOCKS)
    return next((f"{what} at a time to come" for what in late), None)


def _beginning_problem(key: EntryKey, began: Began, latest: datetime) -> str | None:
    shard = (began.group, began.shard, began.shards)
    rules = (
        (
            abs(began.started - run_started(key.run)) > CLOCKS,
            "it began at another time than its id says",
        ),
        (began.started > latest, "it begins at a time to come"),
        (began.slot and began.slot > latest, "its slot is at a time to come"),
        (
            key.batch.slot and began.slot and key.batch.slot != began.slot.replace(microsecond=0),
            "its slot is another one than its batch's",
        ),
        (
            shard not in {(None, None, None), key.batch.shard},
            "its shard is another one than its batch's",
        ),
    )
    return next((problem for broken, problem in rules if broken), None)


def _descriptor_problem(key: str, committed: Object, text: bytes) -> str | None:
    rules = (
        (
            committed.key != key or parse_key(key) is None,
            "it is in another place than its entry says",
        ),
        (len(text) > MOST_DESCRIPTOR_BYTES, f"it has more than {MOST_DESCRIPTOR_BYTES} bytes"),
        (
            len(text) != committed.bytes,
            f"it has {len(text)} bytes, its entry says {committed.bytes}",
        ),
    )
    problem = next((problem for broken, problem in rules if broken), None)
    if problem is None and sha256(text).hexdigest() != committed.sha256:
        problem = "its content is not what its entry committed"
    if problem is None and sum(1 for _ in _VALUES.finditer(text)) > MOST_VALUES:
        problem = f"it has more than {MOST_VALUES} values"
    return problem


def _checked(document: _Document) -> _Document | Invalid:
    """Refuse what has no place on a disk: too many files, a file where another needs a folder, a name of another's."""
    if len(document.resources) > MOST_FILES:
        return Invalid(f"it lists {len(document.resources)} files, more than {MOST_FILES}")
    for resource in document.resources:
        if problem := _original_problem(resource):
            return _invalid(f"{resource.path!r}: {problem}")
    for path in misplaced(resource.path for resource in document.resources):
        return _invalid(f"{path!r}: a folder of it is a file as well")
    return document


def misplaced(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths that are listed twice, or lie in a folder that is a file as well; of such a folder the first alone.

    They have no control characters, but may have hundreds of folders: what their parts would take in memory is a
    hundred times what they do.
    """
    # With a slash that sorts before all else, what lies in a folder comes right after a file of its name.
    for one, other in pairwise(sorted(path.replace("/", "\0") for path in paths)):
        if other == one or other.startswith(one + "\0"):
            yield other.replace("\0", "/")


def _original_problem(resource: Resource) -> str | None:
    """Return why a file cannot have had the name that it says; two files never had the same."""
    if resource.original is None:
        return None
    try:
        name = parse_written(resource.original)
    except ValueError as error:
        return f"its original name is impossible: {error}"
    is_own = resource.path == f"{FILES}{bucket_path(name)}"
    return None if is_own else "its original name is another file's"
