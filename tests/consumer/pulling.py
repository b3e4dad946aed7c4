"""How tests pull: as a command in this process, or as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.cli import mayfly
from tests.bucket.bucket import Bucket
from tests.bucket.leaving import FILES


@dataclass(frozen=True)
class Pulled:
    """What one pull said."""

    code: int
    document: dict[str, Any]
    stderr: str

    def rows(self, kind: str) -> list[tuple[str, str]]:
        """The `(run, job)` of a part of the document."""
        return [(row["run"], row["job"]) for row in self.document[kind]]


def pull_into(dest: Path, shelf: Bucket, *options: str) -> Pulled:
    """Pull once, in this process."""
    ours = {name: None for name in os.environ if name.startswith(("MAYFLY_", "AWS_"))}
    result = CliRunner().invoke(
        mayfly, ["pull", str(dest), "--json", *options], env={**ours, **shelf.environ}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(result.stdout) if result.stdout.strip() else {}
    return Pulled(result.exit_code, document, result.stderr)


def pulling(
    dest: Path, environ: Mapping[str, str], *options: str, log: Path, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a pull as a process of its own, whose document goes to `log`; `before` is a program that starts it."""
    kept = {
        key: text for key, text in os.environ.items() if not key.startswith(("MAYFLY_", "AWS_"))
    }
    return subprocess.Popen(
        [*before, sys.executable, "-m", "agent", "pull", str(dest), "--json", *options],
        env={**kept, "MAYFLY_CONFIG": os.devnull, **environ},
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
