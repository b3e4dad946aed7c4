"""Folders that somebody else has filled: any number of entries, at any depth."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def below(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield all entries below a folder, each folder before what is in it.

    No link is followed; a folder that cannot be read, or whose path is too long, has no entries.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
