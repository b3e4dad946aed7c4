"""The folder at home: with `fetch` and `durable`, which write what is being fetched, all that touches it.

    DEST/<job>/<run>/...             a job of a run; appears whole, by one rename
    DEST/<job>/latest -> <run>       replaced by one rename
    DEST/.mayfly/                    lock, state, history, and what is still being fetched or removed

Everything is opened relative to a descriptor of the folder above it, and no link is followed below DEST: neither a
name from the bucket nor a link that somebody left in DEST leads anywhere else.
"""

import asyncio
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Self

from agent.base.errors import MayflyError, UsageError
from agent.base.folders import opened
from agent.contract.entries import Object
from agent.contract.ids import JOB, is_run_id
from agent.contract.layout import DESCRIPTOR

OURS = ".mayfly"
LATEST = "latest"
STAGING = "staging"
TRASH = "trash"
LOCK = "lock"

LOCK_SECONDS = 300.0
"""How long a pull waits for another that works on the same folder; one that only watches holds no lock."""
LOCK_LOOK_SECONDS = 0.1
SPARE_BYTES = 64 * 1024**2
"""What a pull leaves free on the disk."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHOLE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class FolderError(MayflyError):
    """The folder at home does not let us: full, read-only, or something stands in the way.

    Attributes:
        whole: Whether that is so of all of the folder, and not of one job.
    """

    def __init__(self, message: str, *, remedy: str = "", whole: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.whole = whole


class Destination:
    """A folder into which jobs are pulled. All methods raise `FolderError` when it fails them.

    Attributes:
        path: Where it is, absolute.
    """

    def __init__(self, path: Path, root: int, ours: int) -> None:
        self.path = path
        self._root = root
        self._ours = ours

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open a folder, which is made when it is not there."""
        path = path.absolute()
        with ExitStack() as stack:
            with edge("use", path):
                path.mkdir(parents=True, exist_ok=True)
                root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                ours = stack.enter_context(opened(root, OURS, make=True))
            yield cls(path, root, ours)

    @asynccontextmanager
    async def locked(self, seconds: float, waiting: Callable[[str], None]) -> AsyncIterator[None]:
        """Keep other pulls out.

        Args:
            seconds: How long to wait for another.
            waiting: Is told the other's process id, once, when there is one.

        Raises:
            UsageError: Another pull holds the folder for longer than `seconds`.
        """
        began = time.monotonic()
        with edge("lock", self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(LOCK, flags, 0o644, dir_fd=self._ours)
        try:
            told = False
            while holder := self._take(descriptor):
                if time.monotonic() - began > seconds:
                    raise UsageError(
                        f"another pull (process {holder}) is working on {self.path}",
                        remedy="wait for it, or pull into another folder",
                    )
                if not told:
                    waiting(holder)
                    told = True
                await asyncio.sleep(LOCK_LOOK_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _take(self, lock: int) -> str:
        """Take the lock; return the process id of who has it, empty when that is this process now."""
        with edge("lock", self.path):  # there are shares without locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return ""

    def own_file(self, name: str) -> Path:
        """Return the path of a file of ours, for a library that opens files by their paths."""
        path = self.path / OURS / name
        with edge("use", path), suppress(FileNotFoundError):
            if not stat.S_ISREG(_mode(self._ours, name)):
                raise FolderError(f"{path} is in the way")
        return path

    def temporary(self) -> Path:
        """Return a folder for what may be thrown away, and is by the next sweep."""
        with edge("use", self.path / OURS / TRASH), opened(self._ours, TRASH, make=True):
            return self.path / OURS / TRASH

    def jobs(self) -> list[str]:
        """Return the jobs that have a folder."""
        with edge("list", self.path):
            return _folders(self._root, re.compile(JOB).fullmatch)

    def runs(self, job: str) -> list[str]:
        """Return the runs of a job that are in place, oldest first."""
        with (
            edge("list", self.path / job),
            suppress(FileNotFoundError),
            opened(self._root, job) as folder,
        ):
            return _folders(folder, is_run_id)
        return []

    def has(self, job: str, run: str) -> bool:
        """Tell whether a job of a run is in place."""
        with edge("look into", self.path / job), suppress(FileNotFoundError):
            with opened(self._root, job) as folder:
                if stat.S_ISDIR(_mode(folder, run)):
                    return True
            raise FolderError(f"{self.path / job / run} is in the way")
        return False

    def is_package(self, job: str, run: str, committed: Object) -> bool:
        """Tell whether the package that is in place of a job of a run is the one that was committed."""
        with (
            edge("look into", self.path / job / run),
            suppress(FileNotFoundError),
            opened(self._root, job, run) as folder,
        ):
            descriptor = os.open(DESCRIPTOR, _READ, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as stream:
                return sha256(stream.read(committed.bytes + 1)).hexdigest() == committed.sha256
        return False

    def paths(self, job: str, run: str) -> list[str]:
        """Return the paths of all that is in place of a job of a run, but for folders."""
        with edge("look into", self.path / job / run), opened(self._root, job, run) as folder:
            return [path for path, *_ in walk(folder)]

    def folder_of(self, job: str, run: str) -> Path:
        """Return where a job of a run is, or will be."""
        return self.path / job / run

    def check_room(self, size: int) -> None:
        """Raise `FolderError` unless the disk has room for `size` more bytes, and something to spare."""
        with edge("measure", self.path):
            disk = os.fstatvfs(self._root)
        free = disk.f_bavail * disk.f_frsize - SPARE_BYTES
        if free <= size:
            raise FolderError(f"no room in {self.path} for {size} more bytes", whole=free <= 0)

    @contextmanager
    def staging(self, job: str, run: str) -> Iterator[int]:
        """Yield a descriptor of the folder in which a job of a run is put together."""
        with ExitStack() as stack:
            with edge("stage", self.folder_of(job, run)):
                folder = stack.enter_context(opened(self._ours, STAGING, run, job, make=True))
            yield folder

    def staged_bytes(self, job: str, run: str) -> int:
        """Return how many bytes are staged of a job of a run."""
        with (
            edge("measure", self.path / OURS / STAGING),
            suppress(FileNotFoundError),
            opened(self._ours, STAGING, run, job) as folder,
        ):
            return sum(
                os.stat(name, dir_fd=parent, follow_symlinks=False).st_size
                for _, parent, name, _ in walk(folder)
            )
        return 0

    def clear(self, job: str, run: str) -> None:
        """Throw away what is staged of a job of a run."""
        with (
            edge("clear", self.path / OURS / STAGING),
            suppress(FileNotFoundError),
            opened(self._ours, STAGING) as staging,
        ):
            with opened(staging, run) as of_run, suppress(FileNotFoundError):
                _discard(of_run, job)
            with suppress(OSError):  # another job of it is staged
                os.rmdir(run, dir_fd=staging)

    def install(self, job: str, run: str) -> None:
        """Make a staged job of a run visible, by one rename."""
        with edge("install", self.folder_of(job, run)):
            with (
                opened(self._root, job, make=True) as folder,
                opened(self._ours, STAGING, run) as of_run,
            ):
                # Nothing but an empty folder can be replaced by this.
                os.rename(job, run, src_dir_fd=of_run, dst_dir_fd=folder)
                os.fsync(folder)
            os.fsync(self._root)
        self.clear(job, run)

    def latest(self, job: str) -> str | None:
        """Return where a job's `latest` leads; None without one."""
        with (
            edge("look into", self.path / job),
            suppress(FileNotFoundError),
            opened(self._root, job) as folder,
        ):
            if not stat.S_ISLNK(_mode(folder, LATEST)):
                raise FolderError(f"{self.path / job / LATEST} is no link")
            return os.readlink(LATEST, dir_fd=folder)
        return None

    def point(self, job: str, run: str) -> None:
        """Let a job's `latest` lead to a run, by one rename."""
        with edge("link", self.path / job / LATEST):
            draft = f"{LATEST}.{secrets.token_hex(4)}"
            os.symlink(run, draft, dir_fd=self._ours)
            try:
                with opened(self._root, job) as folder:
                    os.replace(draft, LATEST, src_dir_fd=self._ours, dst_dir_fd=folder)
                    os.fsync(folder)
            except BaseException:
                os.unlink(draft, dir_fd=self._ours)
                raise

    def remove(self, job: str, run: str) -> None:
        """Remove a job of a run: out of sight by one rename, then from the disk."""
        with (
            edge("remove", self.folder_of(job, run)),
            opened(self._ours, TRASH, make=True) as trash,
        ):
            name = f"{job}.{run}.{secrets.token_hex(4)}"
            with opened(self._root, job) as folder:
                os.rename(run, name, src_dir_fd=folder, dst_dir_fd=trash)
            shutil.rmtree(name, dir_fd=trash)

    def sweep(self, runs: Collection[str]) -> None:
        """Remove what earlier pulls left behind: what was being removed, and stagings of other runs than these."""
        with edge("sweep", self.path / OURS):
            for place, keep in ((TRASH, ()), (STAGING, runs)):
                with suppress(FileNotFoundError), opened(self._ours, place) as folder:
                    for name in _names(folder):
                        if name not in keep or not stat.S_ISDIR(_mode(folder, name)):
                            _discard(folder, name)
            for name in _names(self._ours):
                if name.startswith(f"{LATEST}."):  # the draft of a pull that was killed
                    os.unlink(name, dir_fd=self._ours)


@contextmanager
def new_file(root: int, path: str) -> Iterator[int]:
    """Yield a descriptor of a new file below a folder, to be written; the folders on its way are made.

    Raises:
        FileExistsError: Something has the name, be it a link.
        NotADirectoryError: Something that is no folder has the name of one on its way.
        OSError: It cannot be made.
    """
    *above, name = path.split("/")
    with opened(root, *above, make=True) as parent:
        descriptor = os.open(name, _NEW, 0o644, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_below(folder: Path, path: str) -> IO[bytes]:
    """Open a file below a folder for reading.

    Raises:
        OSError: It cannot be opened, is no regular file, or a link is on its way.
    """
    *above, name = path.split("/")
    with opened(folder, *above) as parent:
        if not stat.S_ISREG(_mode(parent, name)):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        return os.fdopen(os.open(name, _READ, dir_fd=parent), "rb")


def walk(folder: int, prefix: str = "") -> Iterator[tuple[str, int, str, int]]:
    """Yield `(path, parent's descriptor, name, mode)` of everything below a folder that is no folder."""
    for name in _names(folder):
        mode = _mode(folder, name)
        if not stat.S_ISDIR(mode):
            yield f"{prefix}{name}", folder, name, mode
            continue
        with opened(folder, name) as inner:
            yield from walk(inner, f"{prefix}{name}/")


@contextmanager
def edge(action: str, path: Path | str) -> Iterator[None]:
    """Turn what the system says of a path into a `FolderError`."""
    try:
        yield
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "a link or a file is in the way" if link else error.strerror or str(error)
        raise FolderError(
            f"could not {action} {path}: {why}",
            remedy="check the folder's owner, mode and free space, and what else is in it",
            whole=error.errno in _WHOLE_DISK,
        ) from error


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _folders(folder: int, is_wanted: Callable[[str], object]) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_wanted(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def _mode(parent: int, name: str) -> int:
    return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode


def _discard(parent: int, name: str) -> None:
    if stat.S_ISDIR(_mode(parent, name)):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)
