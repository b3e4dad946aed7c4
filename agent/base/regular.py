"""Opens regular files only: a pipe in a file's place would block its reader for ever."""

import os
import stat
from errno import EFBIG, EINVAL
from pathlib import Path
from typing import BinaryIO


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(EFBIG, f"it has more than {most} bytes", str(path))
    return content


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; links are followed.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK the opening of a pipe itself waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, os.strerror(21), str(path))
    raise OSError(EINVAL, "it is not a regular file", str(path))
