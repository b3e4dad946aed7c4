"""State that survives a power cut: temporary file, fsync, rename, fsync of the directory."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.base.errors import UsageError


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Make durable all that anybody has written to the file system of a folder.

    One call of syncfs(2) instead of an fsync for each of ten thousand files. Where there is none, of all file systems.

    Raises:
        OSError: Something could not be written.
    """
    import ctypes  # noqa: PLC0415 -- 5 ms, and only a run needs it

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):  # macOS
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def write_atomic(path: Path, chunks: bytes | Iterable[bytes]) -> None:
    """Replace a file's content: after this returns it is the new one, and at no time anything but old or new.

    Raises:
        OSError: The disk is full, read-only, or broken; the old content stands.
    """
    draft = _draft_of(path)
    try:
        with draft.open("xb") as stream:
            for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def point_to(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, replacing an older one in a single rename."""
    draft = _draft_of(link)
    draft.symlink_to(target)
    draft.replace(link)
    sync_directory(link.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, also what was made read-only; one that is not there is fine.

    Raises:
        OSError: Something in it belongs to another user.
    """

    def open_up(_function: object, name: str, _error: object) -> None:
        parent = os.path.dirname(name)  # noqa: PTH120 -- rmtree speaks in strings
        for folder in (parent, name):
            if not os.path.islink(folder) and os.path.isdir(folder):  # noqa: PTH112, PTH114
                os.chmod(folder, 0o700)  # noqa: PTH101
        if os.path.islink(name) or not os.path.isdir(name):  # noqa: PTH112, PTH114
            os.unlink(name)  # noqa: PTH108
        else:
            shutil.rmtree(name)

    if path.is_symlink() or path.exists():
        shutil.rmtree(path, onerror=open_up)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created; it ends with the process, however that ends.

    Raises:
        UsageError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip()
            raise UsageError(
                f"another run (process {holder or 'unknown'}) is using {path.parent}",
                remedy='wait for it, or give this one a state directory of its own: --set "paths.state=..."',
            ) from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
