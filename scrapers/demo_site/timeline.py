"""The Misskey-like API: notes, newest first, paged with `untilId` and `limit`."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

MAX_LIMIT = 100
DEFAULT_LIMIT = 10
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""From which Misskey's `aid` ids count milliseconds."""

NEWEST = datetime(2026, 11, 21, 20, 48, tzinfo=UTC)
STEP = timedelta(minutes=97)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NOTES = Path(__file__).parent / "content" / "notes.json"


def timeline_answer(method: str, endpoint: str, body: bytes) -> tuple[int, object]:
    """Return status and JSON of a request to `/api/notes/<endpoint>`."""
    if endpoint != "local-timeline":
        return 404, _error(
            "Unknown API endpoint.", "UNKNOWN_API_ENDPOINT", "2ca3b769-540a-4f08-9dd5-b5a825b6d0f1"
        )
    if method != "POST":
        return 405, _error(
            "Use POST.", "METHOD_NOT_ALLOWED", "5a6b2d0c-3a5b-4a64-9d2e-6f1c0d8b7e11"
        )
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        asked = None
    problem = _problem(asked)
    if problem is not None or not isinstance(asked, dict):
        error = _error("Invalid param.", "INVALID_PARAM", "3d81ceae-475f-4600-b2a8-2bc116157532")
        error["error"]["info"] = {"param": problem or "body"}
        return 400, error
    until = asked.get("untilId", "~")  # sorts after every id
    older = [note for note in notes() if note["id"] < until]
    return 200, older[: asked.get("limit", DEFAULT_LIMIT)]


def _problem(asked: object) -> str | None:
    """Return the name of the first parameter that is wrong, or None."""
    if not isinstance(asked, dict):
        return "body"
    limit = asked.get("limit", DEFAULT_LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        return "limit"
    return None if isinstance(asked.get("untilId", ""), str) else "untilId"


@cache
def notes() -> list[dict[str, Any]]:
    """Return all notes, newest first, with ids that sort by time."""
    content = json.loads(_NOTES.read_text("utf-8"))
    users = {name: _user(name, shown) for name, shown in content["users"].items()}
    return [
        {
            "id": note_id(NEWEST - STEP * index, index),
            "createdAt": f"{NEWEST - STEP * index:%Y-%m-%dT%H:%M:%S}.000Z",
            "text": note["text"],
            "cw": note.get("cw"),
            "user": users[note["user"]],
            "visibility": "public",
            "reactions": note.get("reactions", {}),
            "renoteCount": note.get("renotes", 0),
            "repliesCount": note.get("replies", 0),
        }
        for index, note in enumerate(content["notes"])
    ]


def note_id(moment: datetime, counter: int) -> str:
    """Return an `aid`: eight base-36 digits of milliseconds, two of a counter."""
    return _base36(int((moment - EPOCH) / timedelta(milliseconds=1)), 8) + _base36(
        counter % 36**2, 2
    )


def _base36(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits.rjust(width, "0")


def _user(name: str, shown: str) -> dict[str, Any]:
    return {"id": f"u{name}", "username": name, "name": shown, "host": None, "isBot": False}


def _error(message: str, code: str, ident: str) -> dict[str, dict[str, Any]]:
    return {"error": {"message": message, "code": code, "id": ident, "kind": "client"}}
