"""File systems of a test's own, which fill up, run out of inodes, or become read-only when the test says so."""

import os
from pathlib import Path
from typing import Self

from tests.parts.command import CommandError, completed, output_of
from tests.parts.missing import MissingPartError, program

PAGE = 4096
"""Bytes that a tmpfs counts in."""
ROOMY_BYTES = 256 * 1024**2
ROOMY_INODES = 100_000
IMAGE_BYTES = 64 * 1024**2
SECONDS = 30.0


class _Mounted:
    """A mounted file system, as a context manager.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise MissingPartError("a file system to break", "mounting one needs root")
        self.path.mkdir(parents=True, exist_ok=True)
        self._begin()
        return self

    def __exit__(self, *raised: object) -> None:
        # Lazily: a process of the test that still has a file open there ends with the test.
        _call("umount", "--lazy", str(self.path))

    def _begin(self) -> None:
        raise NotImplementedError


class SmallDisk(_Mounted):
    """A tmpfs: it can be resized while it is in use, and fails writes as a disk does (ENOSPC, EROFS)."""

    def _begin(self) -> None:
        options = f"size={ROOMY_BYTES},nr_inodes={ROOMY_INODES}"
        _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path))

    def leave_pages(self, pages: int) -> None:
        """Leave room for so many pages of 4096 bytes more."""
        status = os.statvfs(self.path)
        used = status.f_blocks - status.f_bfree
        # A size of 0 would be no limit.
        self._remount(f"size={max(1, used + pages) * PAGE}")

    def leave_inodes(self, count: int) -> None:
        """Leave so many more names to give: files, folders, links."""
        status = os.statvfs(self.path)
        self._remount(f"nr_inodes={status.f_files - status.f_ffree + count}")

    def read_only(self) -> None:
        """Refuse every change from now on; nothing may be open for writing."""
        self._remount("ro")

    def give_back(self) -> None:
        """Make it roomy and writable again; what is in it stays."""
        self._remount(f"rw,size={ROOMY_BYTES},nr_inodes={ROOMY_INODES}")

    def _remount(self, options: str) -> None:
        _call("mount", "-o", f"remount,{options}", str(self.path))


class FailingDisk(_Mounted):
    """An ext4 file system in an image, which its kernel gives up in the middle, as it does after an I/O error."""

    def __init__(self, path: Path, image: Path) -> None:
        super().__init__(path)
        self._image = image

    def _begin(self) -> None:
        with self._image.open("wb") as stream:
            stream.truncate(IMAGE_BYTES)
        _call("mke2fs", "-q", "-t", "ext4", str(self._image))
        self._mount()

    def abort(self) -> None:
        """End its journal: read-only from now on, for files that are open as well."""
        _call("mount", "-o", "remount,abort", str(self.path))

    def mend(self) -> None:
        """Do what a person, or the next boot, does: check it and mount it again."""
        _call("umount", str(self.path))
        command = [program("e2fsck"), "-f", "-y", str(self._image)]
        done = completed(command, seconds=SECONDS)
        if done.returncode not in (0, 1):  # 1: errors were corrected
            raise CommandError(done.stdout + done.stderr)
        self._mount()

    def _mount(self) -> None:
        _call("mount", "-o", "loop", str(self._image), str(self.path))


def _call(name: str, *arguments: str) -> None:
    output_of([program(name), *arguments], seconds=SECONDS)
