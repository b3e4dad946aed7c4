"""How tests pull: what is there to pull, and `mayfly pull` in this process, or as a process of its own."""

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.contract.ids import Batch
from agent.contract.names import bucket_path
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RELEASE, RunWriter
from tests.parts.command import MAYFLY, call, surroundings

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
"""On a server nobody can say when an object arrived: what is done in tests of a pull is of these days."""
NIGHTS = [TODAY - timedelta(days=days) for days in (5, 4, 3, 2, 1)]

Files = Mapping[str, bytes]
JOBS: Mapping[str, Files] = {
    "quotes": {
        "page 1.json": b'{"price": 1}\n',
        "ページ/2.csv": b"a,b\n1,2\n",
        "empty": b"",
        "large.bin": bytes(range(256)) * 9000,
    },
    "notes": {"\U0001f98b.md": b"# Mayfly"},
}
"""What two jobs leave, where nobody says."""
SMALL: Mapping[str, Files] = {"quotes": {"a": b"a"}}


def leave(
    bucket: Bucket,
    started: datetime = NIGHTS[-1],
    jobs: Mapping[str, Files] = JOBS,
    *,
    failed: Collection[str] = (),
    batch: Batch | None = None,
    closed: bool = True,
    wait: timedelta = timedelta(minutes=1),
) -> str:
    """Leave a run in a bucket, as an agent would, and return its id.

    Args:
        bucket: Where.
        started: When it began.
        jobs: What its jobs left.
        failed: Jobs that failed all the same.
        batch: Which batch it is an attempt at; one by itself where nobody says.
        closed: Whether it came to its end, or is under way.
        wait: How much later each of its steps arrives than the one before.
    """
    writer = RunWriter(bucket.objects, started, batch)
    writer.append(began=writer.began(limit=timedelta(hours=2)))
    plan = {"release": RELEASE.model_dump(), "count": len(jobs), "jobs": tuple(jobs)}
    writer.append(planned=plan)
    for name, files in jobs.items():
        writer.after += wait
        status = "failed" if name in failed else "succeeded"
        shot = {"shot.png": b"\x89PNG"} if name in failed else {}
        ended = writer.job(
            name, status, files=files, evidence=shot, message="no .quote" if shot else ""
        )
        writer.append(jobs=(ended,))
    if closed:
        writer.after += wait
        writer.append(closed=writer.closed())
    return writer.run


@dataclass(frozen=True)
class Pulled:
    """What one pull said."""

    code: int
    document: dict[str, Any]
    stderr: str

    def rows(self, kind: str) -> list[tuple[str, str]]:
        """The `(run, job)` of a part of the document."""
        return [(row["run"], row["job"]) for row in self.document[kind]]

    @property
    def problems(self) -> str:
        """Why jobs were rejected."""
        return "\n".join(text for row in self.document["rejected"] for text in row["problems"])

    @property
    def notes(self) -> list[str]:
        """What else there was to say."""
        return [row["text"] for row in self.document["notes"]]


def pull_into(dest: Path, bucket: Bucket, *options: str) -> Pulled:
    """Pull once, in this process."""
    result = call("pull", str(dest), "--json", *options, environ=bucket.environ)
    document = json.loads(result.stdout) if result.stdout.strip() else {}
    return Pulled(result.exit_code, document, result.stderr)


def pulling(
    dest: Path, environ: Mapping[str, str], *options: str, log: Path, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a pull as a process of its own, whose document goes to `log`; `before` is a program that starts it."""
    return subprocess.Popen(
        [*before, *MAYFLY, "pull", str(dest), "--json", *options],
        env=surroundings(environ),
        stdout=log.open("wb"),
        stderr=log.with_suffix(".err").open("wb"),
    )


def installed(dest: Path, jobs: Sequence[str] = ("quotes", "notes")) -> list[tuple[str, str]]:
    """The `(run, job)` that a reader sees."""
    return sorted(
        (path.name, job) for job in jobs for path in (dest / job).glob("*") if path.name != "latest"
    )


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def results(folder: Path) -> dict[str, bytes]:
    """The results of a job at home."""
    return content(folder / "files")


def of_job(job: str, jobs: Mapping[str, Files] = JOBS) -> dict[str, bytes]:
    """The results of a job, as they should be at home."""
    return {bucket_path(path): data for path, data in jobs[job].items()}


def state_of(dest: Path) -> Path:
    """The file in which a folder remembers what was installed."""
    return dest / ".mayfly" / "pull.db"
