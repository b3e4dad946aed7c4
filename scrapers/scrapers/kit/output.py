"""Files that appear whole or not at all: written beside their place, synced, then renamed into it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from scrapers.kit.stops import Stopped, finishing


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, replacing what was there; missing folders are made."""
    with finishing(), _beside(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        _commit(file, path)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON that a person can read."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def read_json(path: Path, default: Any) -> Any:
    """Return what `write_json` wrote, or `default` where there is no such file yet."""
    return json.loads(path.read_text("utf-8")) if path.exists() else default


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Give a function that writes one row; the file appears under its name when the block ends.

    A job that is told to stop keeps the rows it has so far; one that fails keeps none, since what it read may be wrong.
    """
    part = _beside(path)
    with part.open("w", encoding="utf-8", newline="\n") as file:

        def write(row: Mapping[str, object]) -> None:
            with finishing():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

        try:
            yield write
        except Stopped:
            _commit(file, path)
            raise
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with finishing():
            _commit(file, path)


def keep_file(source: Path, target: Path) -> None:
    """Move a finished file to `target`, which may be on another disk."""
    with finishing():
        with source.open("rb") as reading, _beside(target).open("wb") as file:
            shutil.copyfileobj(reading, file)
            _commit(file, target)
        source.unlink()


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.part")


def _commit(file: IO[Any], path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    _beside(path).replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
