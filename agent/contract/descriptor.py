"""What packages and manifests have in common: Data Package v2 (https://datapackage.org). Decisions only."""

import json
import mimetypes
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, model_validator

from agent.contract.names import path_problem
from agent.contract.results import LARGEST, OpenEnum, Record

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
NO_RELEASE = "none"
"""The `version` of what was made without a release."""

MOST_NAME = 300
"""Characters of a resource's name; a path has up to 1024."""

# The built-in table only: the same file has the same media type on every machine.
_TYPES = mimetypes.MimeTypes(filenames=())
_TYPES.add_type("application/x-ndjson", ".jsonl")
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("image/webp", ".webp")
_TYPES.add_type("application/vnd.apache.parquet", ".parquet")
_COMPRESSED = {"gzip": "application/gzip", "xz": "application/x-xz"}


class Role(OpenEnum):
    """What a resource is."""

    RESULT = "result"
    LOG = "log"
    EVIDENCE = "evidence"
    PACKAGE = "package"
    OTHER = "other"


class Resource(Record):
    """A file, as a Data Package resource."""

    name: str = Field(min_length=1, max_length=MOST_NAME)
    path: str = Field(max_length=1024)
    bytes: int = Field(ge=0, le=LARGEST)
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    mediatype: str = Field(max_length=200)
    format: str | None = Field(
        None,
        max_length=200,
        description="`log` where the name looks like a table's and it is none.",
    )
    role: Role = Field(alias="mayfly:role")
    original: str | None = Field(
        None,
        alias="mayfly:path",
        max_length=20_000,
        description="Its path where the job wrote it, if `path` could not be that; `%XX` is a byte.",
    )


class Descriptor(Record):
    """A Data Package of ours."""

    profile: Literal["https://datapackage.org/profiles/2.0/datapackage.json"] = Field(
        alias="$schema"
    )
    id: str = Field(max_length=300)
    name: str = Field(max_length=300)
    created: str = Field(max_length=64)
    version: str = Field(max_length=300, description="The release's ref.")
    # The first fault is enough: the faults of a million forged ones would take a gigabyte.
    resources: Annotated[tuple[Resource, ...], FailFast()] = Field(min_length=1)

    @model_validator(mode="after")
    def _own_files(self) -> Self:
        """Refuse a path that leads elsewhere, a name or path used twice, and what `file_problem` finds."""
        paths: set[str] = set()
        names: set[str] = set()
        for resource in self.resources:
            problem = (
                path_problem(resource.path)
                or self.file_problem(resource.path)
                or ("listed twice" if resource.path in paths else None)
                or ("another resource has this name" if resource.name in names else None)
            )
            if problem:
                raise ValueError(f"{resource.path!r}: {problem}")
            paths.add(resource.path)
            names.add(resource.name)
        return self

    @abstractmethod
    def file_problem(self, path: str) -> str | None:
        """Return why a path cannot be one of this kind of package; None when it can."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file as it is in the bucket.

    Attributes:
        path: Relative to the descriptor, such as `files/page 1.json`.
        sha256: Hex digest of exactly the bytes that were sent.
        original: Its path on the disk, as `written` has it; None where `path` is that.
    """

    path: str
    bytes: int
    sha256: str
    role: Role
    original: str | None = None


def render(
    head: Mapping[str, Any],
    files: Iterable[Sealed],
    carried: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[bytes]:
    """Yield a descriptor as UTF-8 JSON in small pieces: there may be a hundred thousand files.

    `head` is everything but the resources; `carried` is what else is known of a file, by its path. The same arguments
    make the same bytes, on every machine.
    """
    yield json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}").encode()
    yield b',\n "resources": ['
    separator = b"\n  "
    for file in files:
        resource = resource_of(file) | dict((carried or {}).get(file.path, {}))
        yield separator + json.dumps(resource, ensure_ascii=False).encode()
        separator = b",\n  "
    yield b"\n ]\n}\n"


_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx")


def resource_of(file: Sealed) -> dict[str, Any]:
    """Return a file as a Data Package resource."""
    resource: dict[str, Any] = {
        "name": resource_name(file.path),
        "path": file.path,
        "bytes": file.bytes,
        "hash": f"sha256:{file.sha256}",
        "mediatype": media_type(file.path),
        "mayfly:role": file.role.value,
    }
    if file.role in {Role.LOG, Role.EVIDENCE} and file.path.endswith(_TABLES):
        # Readers would take it for a table; in a log, one name means different things in different events.
        resource["format"] = "log"
    return resource if file.original is None else resource | {"mayfly:path": file.original}


_DIGESTED = re.compile(r"-[0-9a-f]{32}$")
"""How a name with a digest ends; a path that ends so gets one too, or it could be another's name."""


def resource_name(path: str) -> str:
    """Return a name that is unique as the path is, in the alphabet that Data Package recommends."""
    slug = re.sub(r"[^a-z0-9._/-]+", "-", path.lower()).strip("-")
    if slug == path and len(slug) <= MOST_NAME and not _DIGESTED.search(slug):
        return slug
    # Of a name in Chinese only the digest is left, and a package may have a hundred thousand of them.
    return f"{slug[:100].rstrip('-')}-{sha256(path.encode()).hexdigest()[:32]}"


def media_type(path: str) -> str:
    """Return a file's media type by its name; `application/octet-stream` when that says nothing."""
    kind, encoding = _TYPES.guess_type(path)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    return kind or "application/octet-stream"
