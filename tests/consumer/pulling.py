"""How tests pull: as a command in this process, or as a process of its own."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bucket.bucket import Bucket
from tests.bucket.leaving import FILES
from tests.parts.command import MAYFLY, call, surroundings


@dataclass(frozen=True)
class Pulled:
    """What one pull said."""

    code: int
    document: dict[str, Any]
    stderr: str

    def rows(self, kind: str) -> list[tuple[str, str]]:
        """The `(run, job)` of a part of the document."""
        return [(row["run"], row["job"]) for row in self.document[kind]]


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


def placed(dest: Path, jobs: Sequence[str] = ("quotes", "notes")) -> list[tuple[str, str]]:
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


def of_job(job: str) -> dict[str, bytes]:
    """What `FILES` holds of a job, as it should be at home."""
    return {
        path.removeprefix(f"{job}/"): data
        for path, data in FILES.items()
        if path.startswith(f"{job}/")
    }
