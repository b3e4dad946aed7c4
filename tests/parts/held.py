"""Files that the kernel lets nobody change or remove, root neither: they stand in for another user's."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.missing import MissingPartError, program


@contextmanager
def let_go_of(folder: Path) -> Iterator[None]:
    """Let what is held below a folder be removed again at the end; `chattr +i FILE` holds one."""
    chattr = program("chattr")
    if os.geteuid() != 0:
        raise MissingPartError("a file that cannot be removed", "to make one needs root")
    try:
        yield
    finally:
        subprocess.run([chattr, "-R", "-i", folder], check=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file while the block runs."""
    with let_go_of(path):
        subprocess.run(["chattr", "+i", path], check=True)
        yield
