"""What jobs wrote down about their files and their ends, which no kill may take back."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file that a job finished.

    Attributes:
        run: The run.
        job: The job.
        path: Below the job's output.
        sha256: Of its content.
    """

    run: str
    job: str
    path: str
    sha256: str


def _lines(ledger: Path, kind: str) -> list[list[str]]:
    if not ledger.exists():
        return []
    lines = ledger.read_text().split("\n")[:-1]  # a line that a kill has torn says nothing
    return [words for said, *words in (line.split() for line in lines) if said == kind]


def finished(ledger: Path) -> list[File]:
    """Return the files that jobs finished, in that order: lines of `file RUN JOB PATH SHA256`."""
    return [File(*words) for words in _lines(ledger, "file")]


def ended(ledger: Path) -> dict[tuple[str, str], float]:
    """Return when jobs came to their end, by run and job, in seconds: lines of `ended RUN JOB SECONDS`."""
    return {(run, job): float(moment) for run, job, moment in _lines(ledger, "ended")}
