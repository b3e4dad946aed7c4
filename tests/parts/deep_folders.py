"""Folders that are nested so deeply that no path reaches the last of them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nested(folder: Path, levels: int) -> Iterator[None]:
    """Make a folder in the folder in the folder, `levels` times, each with a file beside it.

    What is left of `folder` at the end is removed, all of it: pytest could not.
    """
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(levels):
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        yield
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", "--", folder], check=True)
