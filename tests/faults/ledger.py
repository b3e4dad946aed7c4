"""What jobs wrote down about their files, which no kill may take back."""

from pathlib import Path


def finished(ledger: Path) -> list[tuple[str, str, str]]:
    """Return what jobs wrote down after each file was finished: run, path in the run, sha256."""
    if not ledger.exists():
        return []
    lines = ledger.read_text().split("\n")[:-1]  # a line that a kill has torn says nothing
    return [(run, path, digest) for run, path, digest in (line.split() for line in lines)]
