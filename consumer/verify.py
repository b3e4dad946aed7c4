"""Checks a run against its manifest, both ways: all that is listed is there as listed, and nothing else is."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from agent.core.datapackage import manifest_problems
from agent.core.layout import MANIFEST, run_prefix
from agent.core.manifest import IndexEntry, Manifest, ManifestRef, Resource
from pydantic import ValidationError

from agent.contract.names import path_problem
from consumer.bucket import ReadOnlyBucket, TooLargeError
from consumer.history import MOST, Committed, commit_of, read_entry

MAX_MANIFEST_BYTES = 256 * 1024**2
"""Nearly a million files."""
HASHES_AT_ONCE = 16
"""Each holds about a mebibyte of its file."""
MAX_FORM_PROBLEMS = 20
"""Of a manifest that is none: the first few tell it all."""


class Kind(StrEnum):
    """What kind of problem it is."""

    INDEX = "index"
    MANIFEST = "manifest"
    PATH = "path"
    MISSING = "missing"
    EXTRA = "extra"
    SIZE = "size"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as the manifest, or the index, says.

    Attributes:
        kind: Its kind.
        path: The file, relative to the run; empty for the run as a whole.
        detail: What is wrong, without the path.
    """

    kind: Kind
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        name: The run's id, or the folder.
        files: Files that are exactly as listed.
        bytes: Their bytes, all of which were read.
        problems: Everything else, in the order of the paths.
    """

    name: str
    files: int = 0
    bytes: int = 0
    problems: tuple[Problem, ...] = ()


async def verify_run(bucket: ReadOnlyBucket, run: str) -> Report:
    """Check a run of a bucket, starting from the index entry that commits it.

    Raises:
        StoreError: The bucket cannot be read.
    """
    key = await commit_of(bucket, run)
    if key is None:
        problem = Problem(Kind.INDEX, "", "no index entry commits this run")
        return await _verify(bucket, run, run_prefix(run), None, [problem])
    row = await read_entry(bucket, key)
    if not isinstance(row, Committed):
        problem = Problem(Kind.INDEX, "", f"{key.key}: {row.problem}")
        return await _verify(bucket, run, run_prefix(run), None, [problem])
    return await _verify(bucket, run, run_prefix(run), row.entry, [])


async def verify_folder(folder: ReadOnlyBucket) -> Report:
    """Check a folder that holds a run, such as one that was fetched, against the manifest in it.

    Raises:
        StoreError: The folder cannot be read.
    """
    return await _verify(folder, folder.name, "", None, [])


async def _verify(
    bucket: ReadOnlyBucket,
    name: str,
    prefix: str,
    entry: IndexEntry | None,
    problems: list[Problem],
) -> Report:
    problems = list(problems)
    text = await _manifest_text(bucket, prefix, problems)
    if text is None:
        return Report(name, problems=tuple(problems))
    if entry is not None:
        problems += _ref_problems(text, entry.manifest)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        problems += _form_problems(error)
        return Report(name, problems=tuple(problems))
    problems += [Problem(Kind.MANIFEST, "", text) for text in manifest_problems(manifest)]
    if prefix and manifest.run.run_id != name:
        problems.append(Problem(Kind.MANIFEST, MANIFEST, "it is about another run"))
    if entry is not None:
        problems += summary_problems(entry, manifest)
    there = {info.key.removeprefix(prefix): info.bytes async for info in bucket.list(prefix)}
    found, to_hash = listing_problems(manifest.resources, there)
    found += await _hash_problems(bucket, prefix, to_hash)
    wrong = {problem.path for problem in found}
    fine = [resource for resource in to_hash if resource.path not in wrong]
    return Report(
        name,
        len(fine),
        sum(resource.bytes for resource in fine),
        (*problems, *sorted(found, key=lambda problem: (problem.path, problem.kind))),
    )


async def _manifest_text(
    bucket: ReadOnlyBucket, prefix: str, problems: list[Problem]
) -> bytes | None:
    key = f"{prefix}{MANIFEST}"
    try:
        text = await bucket.get(key, limit=MAX_MANIFEST_BYTES)
    except TooLargeError as error:
        problems.append(Problem(Kind.MANIFEST, MANIFEST, str(error)))
        return None
    if text is None:
        problems.append(Problem(Kind.MISSING, MANIFEST, "the manifest is not there"))
    return text


def _ref_problems(text: bytes, ref: ManifestRef) -> Iterator[Problem]:
    if len(text) != ref.bytes:
        detail = f"{len(text)} bytes, the index entry says {ref.bytes}"
        yield Problem(Kind.SIZE, MANIFEST, detail)
    if sha256(text).hexdigest() != ref.sha256:
        yield Problem(Kind.HASH, MANIFEST, "its content is not what the index entry committed")


def _form_problems(error: ValidationError) -> Iterator[Problem]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for one in found[:MAX_FORM_PROBLEMS]:
        where = ".".join(str(step) for step in one["loc"])
        yield Problem(Kind.MANIFEST, MANIFEST, f"{where}: {one['msg']}" if where else one["msg"])


def summary_problems(entry: IndexEntry, manifest: Manifest) -> list[Problem]:
    """Return where an index entry and the manifest that it commits tell different stories."""
    if any(resource.bytes >= MOST for resource in manifest.resources):
        # Their sum may have more digits than Python is willing to print.
        return [Problem(Kind.MANIFEST, "", "it lists a file of an impossible size")]
    results = [resource for resource in manifest.resources if resource.job]
    pairs = (
        ("status", entry.status, manifest.run.status),
        ("files", entry.files, len(results)),
        ("bytes", entry.bytes, sum(resource.bytes for resource in results)),
        (
            "jobs",
            [(job.name, job.status.value) for job in entry.jobs],
            [(job.name, job.status.value) for job in manifest.run.jobs],
        ),
    )
    return [
        Problem(Kind.INDEX, "", f"{what}: the index entry says {said}, the manifest {listed}")
        for what, said, listed in pairs
        if said != listed
    ]


def listing_problems(
    resources: tuple[Resource, ...], there: dict[str, int]
) -> tuple[list[Problem], list[Resource]]:
    """Compare what a manifest lists with what is there, by path and size.

    Returns:
        What is missing, extra, or of another size, and the resources whose content is still to be compared. A path
        that could lead elsewhere is a problem of the manifest, and nobody follows it.
    """
    problems: list[Problem] = []
    to_hash: list[Resource] = []
    for resource in resources:
        if path_problem(resource.path):
            problems.append(Problem(Kind.PATH, resource.path, "it is not a path within the run"))
        elif resource.path not in there:
            problems.append(Problem(Kind.MISSING, resource.path, "it is not there"))
        elif there[resource.path] != resource.bytes:
            problems.append(_size_problem(resource, str(there[resource.path])))
        else:
            to_hash.append(resource)
    listed = {resource.path for resource in resources} | {MANIFEST}
    problems += [
        Problem(Kind.EXTRA, path, "the manifest does not list it") for path in there.keys() - listed
    ]
    return problems, to_hash


def _size_problem(resource: Resource, found: str) -> Problem:
    detail = f"{found} bytes, the manifest says {resource.bytes}"
    return Problem(Kind.SIZE, resource.path, detail)


async def _hash_problems(
    bucket: ReadOnlyBucket, prefix: str, resources: list[Resource]
) -> list[Problem]:
    queue = iter(resources)
    problems: list[Problem] = []

    async def work() -> None:
        for resource in queue:
            problem = await _hash_problem(bucket, prefix, resource)
            if problem is not None:
                problems.append(problem)

    await asyncio.gather(*(work() for _ in range(HASHES_AT_ONCE)))
    return problems


async def _hash_problem(bucket: ReadOnlyBucket, prefix: str, resource: Resource) -> Problem | None:
    digest, size = sha256(), 0
    try:
        async for chunk in bucket.stream(f"{prefix}{resource.path}"):
            digest.update(chunk)
            size += len(chunk)
            if size > resource.bytes:
                return _size_problem(resource, "more")
    except FileNotFoundError:
        return Problem(Kind.MISSING, resource.path, "it went away while it was checked")
    if size != resource.bytes:
        return _size_problem(resource, str(size))
    if f"sha256:{digest.hexdigest()}" != resource.hash:
        return Problem(Kind.HASH, resource.path, "its content is not what the manifest says")
    return None
