"""The folder at home: the only module of a pull that touches it.

    DEST/<job>/<run_id>/...          a job of a run; appears whole, by one rename
    DEST/<job>/latest -> <run_id>    replaced by one rename
    DEST/.mayfly/                    lock, state, and what is still being fetched or removed

Everything is opened relative to a descriptor of the folder above it, and no link is followed below DEST: neither a
name from the bucket nor a link that somebody left in DEST leads anywhere else.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self

from agent.core.ids import is_run_id

from agent.base.errors import MayflyError, UsageError
from agent.config.jobsfile import is_job_name
from consumer.pull.state import State, read_state

OURS = ".mayfly"
LATEST = "latest"
STAGING = "staging"
TRASH = "trash"
LOCK = "lock"
STATE = "state.json"

LOCK_SECONDS = 300.0
"""How long a pull waits for another that works on the same folder; one that only watches holds no lock."""
LOCK_LOOK_SECONDS = 0.1
MAX_STATE_BYTES = 64 * 1024**2
SPARE_BYTES = 64 * 1024**2
"""What a pull leaves free on the disk."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PlaceError(MayflyError):
    """The folder at home does not let us: full, read-only, or something stands in the way."""


class Destination:
    """A folder into which runs are pulled. All methods raise `PlaceError` when it fails them.

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
        """Open a folder, which is made when it is not there.

        One with runs that no pull put there, such as a bucket, is refused: `--keep` would remove them.
        """
        path = path.absolute()
        with _edge("use", path):
            path.mkdir(parents=True, exist_ok=True)
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _refuse_what_is_not_ours(path, root)
            with _edge("use", path / OURS):
                ours = open_folder(root, OURS, make=True)
        except BaseException:
            os.close(root)
            raise
        try:
            yield cls(path, root, ours)
        finally:
            os.close(ours)
            os.close(root)

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
        with _edge("lock", self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(LOCK, flags, 0o644, dir_fd=self._ours)
        try:
            told = False
            while not _lock(descriptor):
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                if time.monotonic() - began > seconds:
                    raise UsageError(
                        f"another pull (process {holder or 'unknown'}) is working on {self.path}",
                        remedy="wait for it, or pull into another folder",
                    )
                if not told:
                    waiting(holder or "unknown")
                    told = True
                await asyncio.sleep(LOCK_LOOK_SECONDS)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> tuple[State, str]:
        """Return what is remembered; what cannot be read is put aside, and the problem returned with a new state."""
        with _edge("read the state of", self.path):
            try:
                text = _read(self._ours, STATE, MAX_STATE_BYTES)
            except FileNotFoundError:
                return State(), ""
            state = read_state(text)
            if state is not None:
                return state, ""
            os.replace(STATE, f"{STATE}.unreadable", src_dir_fd=self._ours, dst_dir_fd=self._ours)
        aside = f"{OURS}/{STATE}.unreadable"
        return State(), f"the state could not be read, is now {aside}, and begins anew"

    def save(self, state: State) -> None:
        """Remember."""
        with _edge("write the state of", self.path):
            draft = f"{STATE}.{secrets.token_hex(4)}"
            descriptor = new_file(self._ours, draft)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(state.model_dump_json(indent=1).encode())
                stream.flush()
                os.fsync(descriptor)
            os.replace(draft, STATE, src_dir_fd=self._ours, dst_dir_fd=self._ours)
            os.fsync(self._ours)

    def jobs(self) -> list[str]:
        """Return the jobs that have a folder."""
        with _edge("list", self.path):
            return _folders(self._root, is_job_name)

    def runs(self, job: str) -> list[str]:
        """Return the runs of a job that are in place, oldest first."""
        with _edge("list", self.path / job):
            try:
                folder = open_folder(self._root, job)
            except FileNotFoundError:
                return []
            with _closing(folder):
                return _folders(folder, is_run_id)

    def has(self, job: str, run: str) -> bool:
        """Tell whether a job of a run is in place."""
        with _edge("look into", self.path / job):
            try:
                folder = open_folder(self._root, job)
            except FileNotFoundError:
                return False
            with _closing(folder):
                try:
                    mode = os.stat(run, dir_fd=folder, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    return False
        if not stat.S_ISDIR(mode):
            raise PlaceError(f"{self.path / job / run} is in the way")
        return True

    def folder_of(self, job: str, run: str) -> Path:
        """Return where a job of a run is, or will be."""
        return self.path / job / run

    def room_for(self, size: int) -> bool:
        """Tell whether the disk has room for `size` more bytes, and something to spare."""
        with _edge("measure", self.path):
            disk = os.fstatvfs(self._root)
        return disk.f_bavail * disk.f_frsize > size + SPARE_BYTES

    @contextmanager
    def staging(self, run: str, job: str) -> Iterator[int]:
        """Yield a descriptor of the folder in which a job of a run is put together."""
        with _edge("stage", self.folder_of(job, run)):
            staging = open_folder(self._ours, STAGING, make=True)
            with _closing(staging):
                of_run = open_folder(staging, run, make=True)
            with _closing(of_run):
                folder = open_folder(of_run, job, make=True)
        try:
            yield folder
        finally:
            os.close(folder)

    def meeting(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return which pairs of paths this file system takes for one, found by making each path as an empty file."""
        with _edge("try names in", self.path):
            trash = open_folder(self._ours, TRASH, make=True)
            with _closing(trash):
                name = f"names.{secrets.token_hex(4)}"
                with _closing(open_folder(trash, name, make=True)) as folder:
                    made: set[str] = set()
                    found = [pair for pair in pairs if not _all_made(folder, pair, made)]
                shutil.rmtree(name, dir_fd=trash)
        return found

    def clear_staging(self, run: str, job: str) -> None:
        """Throw away what is staged of a job of a run."""
        with (
            _edge("clear", self.folder_of(job, run)),
            suppress(FileNotFoundError),
            self._staged(run) as of_run,
        ):
            shutil.rmtree(job, dir_fd=of_run)

    def publish(self, run: str, job: str) -> None:
        """Make a staged job of a run visible, by one rename."""
        with _edge("place", self.folder_of(job, run)):
            folder = open_folder(self._root, job, make=True)
            with _closing(folder), self._staged(run) as of_run:
                # Nothing but an empty folder can be replaced by this.
                os.rename(job, run, src_dir_fd=of_run, dst_dir_fd=folder)
                os.fsync(folder)
            os.fsync(self._root)

    def finish(self, run: str) -> None:
        """Forget what is staged of a run."""
        with _edge("clear", self.path / OURS), suppress(FileNotFoundError):
            staging = open_folder(self._ours, STAGING)
            with _closing(staging):
                shutil.rmtree(run, dir_fd=staging)

    def latest(self, job: str) -> str | None:
        """Return where a job's `latest` leads; None without one."""
        with _edge("look into", self.path / job):
            folder = open_folder(self._root, job)
            with _closing(folder):
                try:
                    return os.readlink(LATEST, dir_fd=folder)
                except FileNotFoundError:
                    return None
                except OSError as error:
                    if error.errno == errno.EINVAL:
                        raise PlaceError(f"{self.path / job / LATEST} is no link") from error
                    raise

    def point(self, job: str, run: str) -> None:
        """Let a job's `latest` lead to a run, by one rename."""
        with _edge("link", self.path / job / LATEST):
            draft = f"{LATEST}.{secrets.token_hex(4)}"
            os.symlink(run, draft, dir_fd=self._ours)
            try:
                folder = open_folder(self._root, job)
                with _closing(folder):
                    os.replace(draft, LATEST, src_dir_fd=self._ours, dst_dir_fd=folder)
                    os.fsync(folder)
            except BaseException:
                os.unlink(draft, dir_fd=self._ours)
                raise

    def remove(self, job: str, run: str) -> None:
        """Remove a job of a run: out of sight by one rename, then from the disk."""
        with _edge("remove", self.folder_of(job, run)):
            trash = open_folder(self._ours, TRASH, make=True)
            with _closing(trash):
                name = f"{job}.{run}.{secrets.token_hex(4)}"
                folder = open_folder(self._root, job)
                with _closing(folder):
                    os.rename(run, name, src_dir_fd=folder, dst_dir_fd=trash)
                shutil.rmtree(name, dir_fd=trash)

    def sweep(self, runs: frozenset[str]) -> None:
        """Remove what earlier pulls left behind: what was being removed, and stagings of other runs than these."""
        with _edge("sweep", self.path / OURS):
            for place, keep in ((TRASH, frozenset[str]()), (STAGING, runs)):
                with suppress(FileNotFoundError):
                    folder = open_folder(self._ours, place)
                    with _closing(folder):
                        for name in _names(folder):
                            if name not in keep or not _is_folder(folder, name):
                                _discard(folder, name)
            for name in _names(self._ours):
                # Drafts of a pull that was killed.
                if name.startswith((f"{LATEST}.", f"{STATE}.")) and not name.endswith("unreadable"):
                    os.unlink(name, dir_fd=self._ours)

    @contextmanager
    def _staged(self, run: str) -> Iterator[int]:
        staging = open_folder(self._ours, STAGING)
        with _closing(staging):
            of_run = open_folder(staging, run)
        with _closing(of_run):
            yield of_run


def _refuse_what_is_not_ours(path: Path, root: int) -> None:
    with _edge("use", path):
        if OURS in _names(root):
            return
        for job in _folders(root, is_job_name):
            with _closing(open_folder(root, job)) as folder:
                runs = _folders(folder, is_run_id)
            if runs:
                raise PlaceError(
                    f"{path / job / runs[0]} is there, and no pull has used {path} before",
                    remedy=f"pull into another folder; if pulls made this one, make {path / OURS}",
                )


def open_folder(parent: int, name: str, *, make: bool = False) -> int:
    """Return a descriptor of a folder in a folder; links are not followed.

    Raises:
        OSError: It is not there and shall not be made, or is no folder.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


def _all_made(folder: int, paths: Iterable[str], made: set[str]) -> bool:
    """Make empty files with their folders, those that are not made yet; tell whether no other was in the way."""
    for path in paths:
        if path in made:
            continue
        *above, name = path.split("/")
        with ExitStack() as stack:
            parent = folder
            try:
                for part in above:
                    parent = open_folder(parent, part, make=True)
                    stack.callback(os.close, parent)
                os.close(new_file(parent, name))
            except (FileExistsError, NotADirectoryError):
                return False
        made.add(path)
    return True


def new_file(parent: int, name: str) -> int:
    """Return a descriptor of a new file, to be written.

    Raises:
        FileExistsError: Something has the name, be it a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o644, dir_fd=parent)


def _names(folder: int) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _folders(folder: int, is_wanted: Callable[[str], bool]) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_wanted(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _discard(parent: int, name: str) -> None:
    if _is_folder(parent, name):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _read(parent: int, name: str, limit: int) -> bytes:
    descriptor = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
    )
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(limit)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _edge(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        why = "a link or a file is in the way" if link else error.strerror or str(error)
        raise PlaceError(
            f"could not {action} {path}: {why}",
            remedy="check the folder's owner, mode and free space, and what else is in it",
        ) from error
