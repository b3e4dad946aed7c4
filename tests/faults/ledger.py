"""What jobs wrote down about their files and their ends, which no kill may take back."""

from pathlib import Path

from tests.bucket.sound import File


def _lines(ledger: Path, kind: str) -> list[list[str]]:
    if not ledger.exists():
        return []
    lines = ledger.read_text().split("\n")[:-1]  # a line that a kill has torn says nothing
    return [words for said, *words in (line.split() for line in lines) if said == kind]


def finished(ledger: Path) -> list[File]:
    """Return the files that jobs finished, in that order: lines of `file RUN JOB PATH SHA256`."""
    return [File(*words) for words in _lines(ledger, "file")]


def succeeded(ledger: Path) -> dict[tuple[str, str], float]:
    """Return when jobs came to a good end, by run and job: lines of `ended RUN JOB SECONDS`."""
    return {(run, job): float(moment) for run, job, moment in _lines(ledger, "ended")}
