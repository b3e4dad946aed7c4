"""A bucket as the design describes it: runs that began, runs that are committed, their files, states and claims."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.bucket.address import bucket_at
from agent.config.credentials import static_credentials
from consumer.bucket import ReadOnlyBucket
from tests.bucket import layout
from tests.bucket.objects import PREFIX, FolderObjects, Objects, S3Objects
from tests.parts.seaweed import S3Server


@dataclass(frozen=True)
class Run:
    """What the manifest of a run says.

    Attributes:
        id: The run's id.
        manifest: All of it.
    """

    id: str
    manifest: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """What the run says of itself."""
        record: dict[str, Any] = self.manifest["mayfly:run"]
        return record

    @property
    def release(self) -> dict[str, Any]:
        """The release that ran."""
        release: dict[str, Any] = self.record["release"]
        return release

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The results of the jobs."""
        jobs: list[dict[str, Any]] = self.record["jobs"]
        return jobs

    def job(self, name: str) -> dict[str, Any]:
        """Return a job's result."""
        return next(job for job in self.jobs if job["name"] == name)

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The files that it names, by path."""
        return {each["path"]: each for each in self.manifest["resources"]}

    @property
    def marks(self) -> dict[str, tuple[int, str]]:
        """Size and hash (`sha256:...`) of the files that it names."""
        return {path: (each["bytes"], each["hash"]) for path, each in self.resources.items()}

    @property
    def unsent(self) -> set[str]:
        """The paths of files that did not arrive, as it says."""
        return {each["path"] for each in self.record.get("unsent", ())}

    @property
    def results(self) -> dict[str, bool]:
        """The paths of the jobs' files, and whether each is marked as partial."""
        return {
            path: each.get("mayfly:partial", False)
            for path, each in self.resources.items()
            if not path.startswith("_run/")
        }

    def marks_of(self, job: str) -> dict[str, tuple[int, str]]:
        """Return size and hash of a job's files, by their path below the job."""
        return {
            path.removeprefix(f"{job}/"): mark
            for path, mark in self.marks.items()
            if self.resources[path].get("mayfly:job") == job
        }


class Bucket:
    """A bucket, read and filled with json and hashlib.

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

    # What is there.

    def entry_keys(self) -> list[str]:
        """Return the keys of the entries, oldest first."""
        return self.objects.keys(layout.ENTRIES)

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries, oldest first."""
        return [json.loads(self.objects.get(key)) for key in self.entry_keys()]

    def entry(self, run: str) -> dict[str, Any]:
        """Return the entry that commits a run."""
        entry: dict[str, Any] = json.loads(self.objects.get(self._entry_key(run)))
        return entry

    def committed(self) -> Counter[str]:
        """Return the runs that are committed, oldest first, and how often each is."""
        return Counter(str(entry["run_id"]) for entry in self.entries())

    def begun(self) -> dict[str, dict[str, Any]]:
        """Return what each run wrote first, oldest first."""
        return {
            layout.begun_run(key): json.loads(self.objects.get(key))
            for key in self.objects.keys(layout.BEGUN)
        }

    def manifest_text(self, run: str) -> bytes:
        """Return a run's manifest as it was written."""
        return self.objects.get(layout.manifest_key(run))

    def run(self, run: str) -> Run:
        """Return what a run's manifest says."""
        return Run(run, json.loads(self.manifest_text(run)))

    def paths(self, run: str) -> list[str]:
        """Return the paths of all files of a run but the manifest."""
        prefix = layout.file_key(run, "")
        keys = (key.removeprefix(prefix) for key in self.objects.keys(prefix))
        return [path for path in keys if path != layout.MANIFEST]

    def file(self, run: str, path: str) -> bytes:
        """Return a file of a run."""
        return self.objects.get(layout.file_key(run, path))

    def files(self, run: str) -> dict[str, bytes]:
        """Return all files of a run but the manifest, by path."""
        return {path: self.file(run, path) for path in self.paths(run)}

    def log(self, run: str) -> list[dict[str, Any]]:
        """Return the events of a run's log."""
        return [json.loads(line) for line in self.file(run, layout.LOG).splitlines()]

    def states(self, job: str = "") -> list[str]:
        """Return the keys of the states that a job left, or all jobs."""
        return self.objects.keys(f"{layout.STATES}{job}/" if job else layout.STATES)

    def claims(self) -> dict[str, dict[str, Any]]:
        """Return the claims of slots, by what their keys say: slot, slot and number, or slot and run."""
        return {
            key.removeprefix(layout.CLAIMS).removesuffix(".json"): json.loads(self.objects.get(key))
            for key in self.objects.keys(layout.CLAIMS)
        }

    # What is forged.

    def put_file(self, run: str, path: str, content: bytes) -> None:
        """Store a file of a run, over what is there."""
        self.objects.put(layout.file_key(run, path), content)

    def remove_file(self, run: str, path: str) -> None:
        """Remove a file of a run."""
        self.objects.delete(layout.file_key(run, path))

    def put_claim(self, slot: str, claim: Mapping[str, object]) -> None:
        """Store the first claim of a slot."""
        self.objects.put(f"{layout.CLAIMS}{slot}.json", _text(claim))

    def put_begun(self, run: str, content: bytes | Mapping[str, object]) -> None:
        """Store what a run writes first."""
        self.objects.put(layout.begun_key(run), _text(content))

    def remove_begun(self, run: str) -> None:
        """Remove what a run wrote first."""
        self.objects.delete(layout.begun_key(run))

    def put_manifest(self, run: str, text: bytes) -> None:
        """Store a manifest, which the entry of its run need not fit."""
        self.objects.put(layout.manifest_key(run), text)

    def put_entry(
        self, run: str, entry: bytes | Mapping[str, object], *, at: datetime | None = None
    ) -> str:
        """Store an entry for a run: the one that there is, or one of a moment; return its key."""
        key = layout.entry_key(run, at) if at else self._entry_key(run)
        self.objects.put(key, _text(entry))
        return key

    def amend(self, run: str, **changes: object) -> None:
        """Let the entry of a run say something else."""
        self.put_entry(run, {**self.entry(run), **changes})

    def remove_entry(self, run: str) -> None:
        """Remove the entry of a run, as if nobody had committed it."""
        self.objects.delete(self._entry_key(run))

    def move_entry(self, run: str, at: datetime) -> str:
        """Let the entry of a run be of another moment; return its key."""
        entry = self.objects.get(self._entry_key(run))
        self.remove_entry(run)
        return self.put_entry(run, entry, at=at)

    def commit(self, run: str, text: bytes, **changes: object) -> None:
        """Let the entry of a run commit a text as its manifest, with a summary that fits where it can."""
        self.put_manifest(run, text)
        self.put_entry(
            run, {**self.entry(run), **reference(run, text), **_summary(text), **changes}
        )

    def rewrite(self, run: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest of a run, and commit what comes out of it."""
        manifest = json.loads(self.manifest_text(run))
        change(manifest)
        self.commit(run, json.dumps(manifest).encode())

    def _entry_key(self, run: str) -> str:
        return next(key for key in self.entry_keys() if key.endswith(f"-{run}.json"))


def reference(run: str, text: bytes) -> dict[str, object]:
    """Return what an entry says of a manifest."""
    digest = sha256(text).hexdigest()
    return {"manifest": {"key": layout.manifest_key(run), "bytes": len(text), "sha256": digest}}


def _summary(text: bytes) -> dict[str, object]:
    try:
        rows = [row for row in json.loads(text)["resources"] if row.get("mayfly:job")]
        return {"files": len(rows), "bytes": sum(int(row["bytes"]) for row in rows)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _text(content: bytes | Mapping[str, object]) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()
