"""Write a digest of a Misskey server's local timeline, over its API: a job without a browser."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import requests

from scrapers.kit import Job, JobFailure, Result, json_lines, run_job, write_text

PAGE = 20
MAX_NOTES = 1000
SECONDS = 30
"""Until the server has answered a request."""

Note = dict[str, Any]


def main(job: Job) -> Result:
    """Write `notes.jsonl` and `digest.md`, newest first."""
    notes: list[Note] = []
    with json_lines(job.output_dir / "notes.jsonl") as write:
        for note in timeline(job.url("api/notes/local-timeline")):
            write(note)
            notes.append(note)
    write_text(job.output_dir / "digest.md", digest(notes))
    reactions = sum(count_reactions(note) for note in notes)
    return Result(items=len(notes), message=f"{len(notes)} notes", metrics={"reactions": reactions})


def timeline(url: str) -> Iterator[Note]:
    """Yield notes, newest first, a page at a time."""
    with requests.Session() as session:
        session.headers["User-Agent"] = "mayfly-scrapers"
        until: dict[str, str] = {}
        for _ in range(MAX_NOTES // PAGE):
            response = session.post(url, json={"limit": PAGE, **until}, timeout=SECONDS)
            response.raise_for_status()
            page = response.json()
            if not isinstance(page, list) or not all(is_note(note) for note in page):
                raise JobFailure("page_changed", "the timeline is not a list of notes any more")
            yield from page
            if not page:
                return
            until = {"untilId": page[-1]["id"]}


def is_note(note: object) -> bool:
    """Tell whether an entry of the timeline has what the digest shows."""
    return isinstance(note, dict) and note.keys() >= {
        "id",
        "createdAt",
        "text",
        "user",
        "reactions",
    }


def count_reactions(note: Note) -> int:
    """Return how many reactions a note has had."""
    return sum(note["reactions"].values())


def digest(notes: list[Note]) -> str:
    """Return a page with a section per day: who wrote what, and how it was received."""
    lines = ["# Local timeline", "", f"{len(notes)} notes."]
    for day, group in groupby(notes, key=lambda note: note["createdAt"][:10]):
        lines += ["", f"## {day}"]
        for note in group:
            user = note["user"]
            text = (note["text"] or "(no text)").replace("\n", "\n> ")
            faces = " ".join(f"{face} {count}" for face, count in note["reactions"].items())
            lines += [
                "",
                f"**{user['name'] or user['username']}** @{user['username']} {note['createdAt'][11:16]}",
            ]
            lines += ["", f"> {text}", *(["", faces] if faces else [])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_job(main)
