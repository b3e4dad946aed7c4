"""Under which names a job's files are put at home: their own, where the file system there can hold these."""

import os
from collections.abc import Callable
from contextlib import suppress

from agent.contract.names import looks_encoded, parse_written
from consumer.pull.plan import JobFiles

Holds = Callable[[str], bool]
"""Tells whether a file system can hold a file of this name."""


def names_at_home(job: JobFiles, holds: Holds) -> dict[str, str]:
    """Return the names of a job's files that are not the ones that they have in the bucket, by their paths there."""
    originals = {
        file.path: parse_written(file.original) for file in job.files if file.original is not None
    }
    names = {path: name for path, name in originals.items() if holds(name)}
    if len(names) < len(originals) and any(map(looks_encoded, names.values())):
        # A job may have named one of its files as another is called in the bucket.
        return {}
    return names


def held_by(folder: int) -> Holds:
    """Return what tries each part of a name in a folder; what is there already can be there."""

    def holds_part(name: str) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(name, flags, 0o600, dir_fd=folder))
        except FileExistsError:
            return True
        except (OSError, ValueError):
            return False
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        return True

    return lambda name: all(map(holds_part, name.split("/")))
