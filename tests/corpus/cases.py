"""The corpus: stacks and repositories in the shapes that people have, each with what Mayfly makes of it.

Written here, after what is public. A folder is a repository; `expected.toml` says what happens, and is no part of it.
`dot-NAME` stands for `.NAME`, which would mean something for this repository itself, and SITE for a local web server.

`python -m tests.corpus.cases` writes the table of docs/files.md again.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "files.md"
SITE = "http://books.example"
BEGIN, END = "<!-- corpus -->\n", "<!-- /corpus -->\n"


@dataclass(frozen=True)
class Case:
    """A repository, and what is expected of it.

    Attributes:
        name: The folder.
        expected: `expected.toml`.
    """

    name: str
    expected: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return HERE / self.name

    def files(self, site: str) -> Iterator[tuple[str, bytes, bool]]:
        """Yield path, content and whether it is executable, of each file of the repository."""
        for file in sorted(self.folder.rglob("*")):
            if not file.is_file() or file.name == "expected.toml" or "__pycache__" in file.parts:
                continue
            path = str(file.relative_to(self.folder)).replace("dot-", ".")
            content = file.read_bytes().replace(SITE.encode(), site.encode())
            if path in self.expected.get("crlf", ()):
                content = content.replace(b"\n", b"\r\n")
            if path in self.expected.get("utf16", ()):
                content = content.decode().encode("utf-16")
            yield path, content, bool(file.stat().st_mode & 0o100)

    @property
    def jobs(self) -> Mapping[str, Mapping[str, Any]]:
        """What is expected of each job."""
        jobs: Mapping[str, Mapping[str, Any]] = self.expected.get("jobs", {})
        return jobs


def cases() -> list[Case]:
    """Return the corpus."""
    return [
        Case(file.parent.name, tomllib.loads(file.read_text()))
        for file in sorted(HERE.glob("*/expected.toml"))
    ]


def table() -> str:
    """Return the corpus as a table of Markdown."""
    rows = [
        "| repository | what is special | `mayfly check` | run | delivered |",
        "| --- " * 5 + "|",
    ]
    rows += [
        f"| `{case.name}` | {case.expected['special']} | {_checked(case)} | {_ran(case)} | {_delivered(case)} |"
        for case in cases()
    ]
    return "\n".join(rows) + "\n"


def _checked(case: Case) -> str:
    faults, notes = case.expected.get("faults", []), case.expected.get("notes", [])
    counted = [
        f"{len(found)} {kind}{'s' if len(found) != 1 else ''}"
        for found, kind in ((faults, "fault"), (notes, "note"))
        if found
    ]
    return ", ".join(counted) or "ok"


def _ran(case: Case) -> str:
    if not case.jobs:
        return "rejected"
    return ", ".join(dict.fromkeys(str(job["status"]) for job in case.jobs.values()))


def _delivered(case: Case) -> str:
    files = [f"`{file}`" for job in case.jobs.values() for file in job.get("files", ())]
    return ", ".join(files) or "nothing"


def page() -> str:
    """Return the page with the table as it should be."""
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page()) == 0)
