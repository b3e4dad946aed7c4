"""A bucket as the design describes it, read with json alone: batches' logs, runs, jobs' packages and files."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from agent.bucket.address import bucket_at
from agent.config.credentials import static_credentials
from consumer.bucket import ReadOnlyBucket
from tests.bucket import layout
from tests.bucket.objects import PREFIX, FolderObjects, Objects, S3Objects
from tests.parts.seaweed import S3Server

Document = dict[str, Any]


OF_A_RUN = ("release", "interruption", "slot", "cost", "browser", "isolation")
OF_A_RELEASE = ("stale", "trial", "rolled_back_from", "verified_by", "pin")
"""What is left out where it is null."""
KINDS = ("package", "state")
"""What a row of a job that ended may name."""


class Readable(Protocol):
    """Objects beneath keys, to be read."""

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with a prefix, in order."""

    def get(self, key: str) -> bytes:
        """Return an object's content."""


@dataclass(frozen=True)
class Run:
    """A run, as its entries, its jobs' packages and its manifest tell of it.

    Attributes:
        objects: The bucket.
        id: The run's id.
        batch: Schedule and batch, such as `main/20261122T180000Z`.
        entries: What it said in the batch's log, in that order.
    """

    objects: Readable
    id: str
    batch: str
    entries: list[Document] = field(default_factory=list)

    def _part(self, name: str) -> Document | None:
        return next((entry[name] for entry in self.entries if name in entry), None)

    @property
    def began(self) -> Document:
        """How it began."""
        began = self._part("began")
        assert began is not None, f"{self.id} did not begin"
        return began

    @property
    def planned(self) -> Document | None:
        """Its latest plan."""
        return next((entry["planned"] for entry in self.entries[::-1] if "planned" in entry), None)

    @property
    def closed(self) -> Document | None:
        """How it closed."""
        return self._part("closed")

    @property
    def stood_back(self) -> Document | None:
        """Why it did nothing."""
        return self._part("stood_back")

    @property
    def status(self) -> str:
        """How it stands; a run that did not close is `running`, whatever the time is."""
        closed = self.closed
        return str(closed["status"]) if closed else "stood_back" if self.stood_back else "running"

    @property
    def ends(self) -> list[Document]:
        """Its ends; an entry that was put again says the same once more."""
        return [entry["closed"] for entry in self.entries if "closed" in entry]

    @property
    def rows(self) -> dict[str, list[Document]]:
        """What the log says of each job that ended, in that order; what was put again says the same once more."""
        rows: dict[str, list[Document]] = {}
        for row in (row for entry in self.entries for row in entry.get("jobs", ())):
            rows.setdefault(row["name"], []).append(row)
        return rows

    @property
    def told(self) -> dict[str, Document]:
        """What the log says of each job that ended."""
        return {name: rows[0] for name, rows in self.rows.items()}

    @property
    def named(self) -> list[Document]:
        """The objects that its entries name: packages, states, parts of the log, the manifest."""
        named = [
            row[kind]
            for rows in self.rows.values()
            for row in rows
            for kind in KINDS
            if kind in row
        ]
        named += [part for entry in self.entries for part in entry.get("log", ())]
        return named + [closed["manifest"] for closed in self.ends if "manifest" in closed]

    @cached_property
    def manifest(self) -> Document:
        """Its manifest."""
        return self._document(layout.manifest_key(self.id))

    @property
    def record(self) -> Document:
        """What it says of itself in the manifest; what JSON leaves out as null is null."""
        return {**dict.fromkeys(OF_A_RUN), **self.manifest["mayfly:run"]}

    @property
    def release(self) -> Document:
        """The release that ran."""
        planned = self.planned
        assert planned is not None, f"{self.id} has no plan"
        return {**dict.fromkeys(OF_A_RELEASE), **planned["release"]}

    @property
    def warnings(self) -> list[str]:
        """What a person should look at."""
        warnings: list[str] = self.record["warnings"]
        return warnings

    def package(self, job: str) -> Document:
        """Return a job's package."""
        return self._document(layout.job_key(self.id, job))

    def job(self, name: str) -> Document:
        """Return what its package says of a job, `files` and `bytes` of it, and how many were `refused_files`."""
        row = self.told[name]
        record = self.package(name)["mayfly:job"] if "package" in row else {}
        return {"cause": None, **row, "refused": [], **record, "refused_files": row["refused"]}

    @property
    def jobs(self) -> list[Document]:
        """What became of each job that ended, in that order."""
        return [self.job(name) for name in self.told]

    @property
    def statuses(self) -> dict[str, str]:
        """How each job ended."""
        return {name: row["status"] for name, row in self.told.items()}

    @property
    def resources(self) -> dict[str, Document]:
        """The results of all jobs, by job and path (`quotes/page 1.json`)."""
        return {
            f"{job}/{each['path'].removeprefix('files/')}": each
            for job, row in self.told.items()
            if "package" in row
            for each in self.package(job)["resources"]
            if each["path"].startswith("files/")
        }

    @property
    def results(self) -> set[str]:
        """The paths of all results, below their jobs' names."""
        return set(self.resources)

    @property
    def files(self) -> dict[str, bytes]:
        """All results, by the same paths."""
        return {path: self.file(*path.split("/", 1)) for path in self.resources}

    def file(self, job: str, path: str) -> bytes:
        """Return a result."""
        return self.objects.get(layout.file_key(self.id, job, path))

    def files_of(self, job: str) -> dict[str, bytes]:
        """Return a job's results, by their path below the job."""
        return {
            path.removeprefix(f"{job}/"): content
            for path, content in self.files.items()
            if path.startswith(f"{job}/")
        }

    def printed(self, job: str, attempt: int = 1) -> bytes:
        """Return what an attempt printed."""
        return self.objects.get(layout.job_key(self.id, job, f"logs/attempt-{attempt}.log"))

    def evidence(self, job: str, attempt: int = 1) -> dict[str, bytes]:
        """Return what an attempt put aside to explain a failure, by path."""
        prefix = layout.job_key(self.id, job, f"evidence/attempt-{attempt}/")
        keys = self.objects.keys(prefix)
        return {key.removeprefix(prefix): self.objects.get(key) for key in keys}

    @property
    def log(self) -> list[Document]:
        """The events of its log, as far as its parts are there."""
        prefix = layout.run_key(self.id, "log/")
        numbers = sorted(
            int(key.removeprefix(prefix).removesuffix(".jsonl"))
            for key in self.objects.keys(prefix)
        )
        text = b"".join(self.objects.get(layout.log_key(self.id, number)) for number in numbers)
        return [json.loads(line) for line in text.splitlines()]

    def everything(self) -> dict[str, bytes]:
        """Return all that the bucket has of it, and all entries, by key: to look for what must not be there."""
        keys = [*self.objects.keys(layout.run_key(self.id)), *self.objects.keys(layout.ENTRIES)]
        keys += [key for key in self.objects.keys(layout.STATES) if self.id in key]
        return {key: self.objects.get(key) for key in keys}

    def _document(self, key: str) -> Document:
        document: Document = json.loads(self.objects.get(key))
        return document


class Bucket:
    """A bucket, read with json and hashlib.

    Attributes:
        objects: What it is made of.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def in_folder(cls, root: Path) -> "Bucket":
        """Return the bucket of a folder, which need not be there yet."""
        return cls(FolderObjects(root))

    @classmethod
    def on_s3(
        cls, server: S3Server, bucket: str, prefix: str = PREFIX, *, endpoint: str = ""
    ) -> "Bucket":
        """Return a bucket of the S3 server, below a prefix; programs are told another endpoint, where there is one."""
        return cls(S3Objects(server, bucket, prefix, endpoint=endpoint))

    @property
    def environ(self) -> dict[str, str]:
        """What a command must be told to use it."""
        return self.objects.environ

    @property
    def root(self) -> Path:
        """The folder that it is."""
        assert isinstance(self.objects, FolderObjects)
        return self.objects.root

    def reader(self) -> ReadOnlyBucket:
        """Return it as home opens it."""
        address = bucket_at(self.objects.store, Path("/nowhere"))
        return ReadOnlyBucket.open(address, static_credentials(self.objects.credentials))

    @property
    def runs(self) -> dict[str, Run]:
        """Its runs by id, oldest first: all that wrote an entry."""
        return read_runs(self.objects)

    @property
    def working(self) -> list[Run]:
        """The runs that did not stand back, oldest first."""
        return [run for run in self.runs.values() if not run.stood_back]

    def run(self, run: str) -> Run:
        """Return a run."""
        return self.runs[run]

    @property
    def newest(self) -> Run:
        """The run that began last."""
        return list(self.runs.values())[-1]

    def states(self, job: str = "") -> list[str]:
        """Return the keys of the states that a job left, or all jobs."""
        return self.objects.keys(f"{layout.STATES}{job}/" if job else layout.STATES)


def _read(text: bytes) -> Document | None:
    """Return an entry; one that was cut short, by a store that lies, says nothing."""
    try:
        entry: Document = json.loads(text)
    except ValueError:
        return None
    return entry


def read_runs(objects: Readable) -> dict[str, Run]:
    """Return the runs of a bucket by id, oldest first."""
    texts = {key: objects.get(key) for key in objects.keys(layout.ENTRIES)}
    found = [
        (match, entry)
        for key, text in texts.items()
        if (match := layout.ENTRY.fullmatch(key)) and (entry := _read(text))
    ]
    first = {match["run"]: match["nonce"] for match, entry in found if "began" in entry}
    # Whoever finishes a run that died is a process of its own, and speaks after the first one.
    found.sort(
        key=lambda one: (
            one[0]["run"],
            first.get(one[0]["run"]) != one[0]["nonce"],
            int(one[0]["number"]),
        )
    )
    runs: dict[str, Run] = {}
    for match, entry in found:
        run = runs.setdefault(match["run"], Run(objects, match["run"], match["batch"]))
        run.entries.append(entry)
    return dict(sorted(runs.items(), key=_start))


def _start(named: tuple[str, Run]) -> tuple[datetime, str]:
    """Return what runs sort by: ids tell the second alone, and runs of one second sort by chance."""
    name, run = named
    began = (entry["began"]["started"] for entry in run.entries if "began" in entry)
    return datetime.fromisoformat(next(began, name.partition("-")[0])), name
