"""Where big things that outlive a test session are kept."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """The folder for images, archives and the container engine's data; created when it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mayfly-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Let no other process of the tests into a block of this name; where ours dies, the kernel lets the next one in."""
    with (cache_folder() / f"{what}.lock").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield
