"""State that survives a power cut: temporary file, fsync, rename, fsync of the directory."""

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.base.errors import UsageError

DEEPEST = 50
"""Folders in folders that are removed where they are: each has two descriptors meanwhile."""


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Write a folder's whole file system to the disk: one syncfs(2) instead of an fsync for each of ten thousand files.

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
    """Replace a file's content durably; a reader sees the old or the new content, never a part.

    Raises:
        OSError: The disk is full, read-only or broken; the old content is unchanged.
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
    """Make `link` a symbolic link to `target`; an older link is replaced in one rename."""
    draft = _draft_of(link)
    draft.symlink_to(target)
    draft.replace(link)
    sync_directory(link.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with all its content, however deep, read-only parts too; a missing folder is fine.

    Raises:
        OSError: Something in it belongs to another user.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    top = _open_folder(str(path))
    try:
        while _empty(top, top, 0):
            pass
    finally:
        os.close(top)
    path.rmdir()


def _empty(folder: int, top: int, depth: int) -> bool:
    """Remove what is in a folder; return whether something deeper than `DEEPEST` was moved to the top, to be next.

    Folders are opened by descriptor and no link is followed: what a job has left may still be changed by it.
    """
    _let_in(folder)
    moved = False
    # Removed while it is read: a job may leave more names than there is memory.
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
                continue
            inner = _open_folder(entry.name, folder)
            try:
                if depth < DEEPEST:
                    moved |= _empty(inner, top, depth + 1)
                else:
                    _let_in(inner)  # its `..` is written, too
            finally:
                os.close(inner)
            if depth < DEEPEST:
                os.rmdir(entry.name, dir_fd=folder)
            else:
                os.rename(entry.name, secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=top)
                moved = True
    return moved


def _let_in(folder: int) -> None:
    with suppress(PermissionError):  # another user's, which may let everybody write
        os.fchmod(folder, 0o700)


def _open_folder(name: str, inside: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=inside)
    except PermissionError:  # its owner, whom it does not let in
        os.chmod(name, 0o700, dir_fd=inside)
        return os.open(name, flags, dir_fd=inside)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created; it ends with the process.

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
