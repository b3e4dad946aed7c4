"""A file system in memory that takes names for one that differ in case, as those of macOS and Windows do, or ext4's.

The kernel of a test's machine may have none of these, so this is a file system in user space: the kernel's side is
`/dev/fuse`, whose requests and answers are in <linux/fuse.h>. It runs as a process of its own, because a process that
waits for its own file system waits for ever.
"""

import ctypes
import errno
import itertools
import os
import stat
import struct
import sys
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.parts.missing import MissingPartError
from tests.parts.program import Program

DEVICE = Path("/dev/fuse")
START_SECONDS = 20.0
ROOT = 1
HEADER = struct.Struct("<IIQQIIIHH")
ANSWER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
INITIAL = struct.Struct("<4IHHIIHHI28x")
STATISTICS = struct.Struct("<5Q4I24x")
PROTOCOL = (7, 31)
WRITE_BYTES = 128 * 1024
REQUEST_BYTES = 1024**2
FREE_BLOCKS = 1024**2
SIZE_CHANGES = 8
MODE_CHANGES = 1


class Request(IntEnum):
    """The kernel's requests that are used here."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    RENAME2 = 45
    SYNCFS = 50


UNANSWERED = {Request.FORGET, Request.BATCH_FORGET, Request.INTERRUPT}
NOTHING_TO_DO = {
    Request.RELEASE,
    Request.RELEASEDIR,
    Request.FLUSH,
    Request.FSYNC,
    Request.FSYNCDIR,
    Request.SYNCFS,
    Request.DESTROY,
}
OPENED = bytes(16)
"""No file has a handle."""

FOLDS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "casefold": lambda name: unicodedata.normalize(
        "NFC", unicodedata.normalize("NFD", name).casefold()
    ),
}
"""What names are compared by: `lower` is like NTFS and exFAT, `casefold` like APFS and ext4."""


class FoldingDisk:
    """The file system, mounted; a context manager.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path, fold: str, log: Path) -> None:
        command = [sys.executable, "-m", "tests.parts.folding_disk", str(path), fold]
        self.path = path
        self._program = Program(command, log=log)

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or not DEVICE.exists():
            raise MissingPartError("a disk that ignores case", "mounting one needs root and fuse")
        self.path.mkdir(parents=True)
        self._program.start(lambda: os.path.ismount(self.path), seconds=START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First, while it still answers. Lazily: something may have a file open there.
        _system("umount2", str(self.path).encode(), 2)
        self._program.stop()


@dataclass
class _Node:
    number: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    children: dict[str, tuple[bytes, "_Node"]] = field(default_factory=dict)


class _Refusal(Exception):  # noqa: N818 -- it becomes an error number
    pass


class _Disk:
    """Answers requests."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._numbers = itertools.count(ROOT)
        self._nodes: dict[int, _Node] = {}
        self._new(stat.S_IFDIR | 0o755)  # ROOT
        self._requests: dict[int, Callable[[_Node, bytes], bytes]] = {
            Request.INIT: lambda _node, _: INITIAL.pack(
                *PROTOCOL, 0, 0, 16, 12, WRITE_BYTES, 1, 0, 0, 0
            ),
            Request.STATFS: lambda _node, _: STATISTICS.pack(
                *(FREE_BLOCKS,) * 5, 4096, 255, 4096, 0
            ),
            Request.LOOKUP: lambda node, body: self._entry(self._child(node, body[:-1])),
            Request.GETATTR: lambda node, _: self._attributes(node),
            Request.SETATTR: self._set_attributes,
            Request.READLINK: lambda node, _: bytes(node.content),
            Request.SYMLINK: self._symlink,
            Request.MKDIR: self._mkdir,
            Request.CREATE: self._create,
            Request.UNLINK: self._remove,
            Request.RMDIR: self._remove,
            Request.RENAME: lambda node, body: self._rename(node, body, 8),
            Request.RENAME2: lambda node, body: self._rename(node, body, 16),
            Request.OPEN: lambda _node, _: OPENED,
            Request.OPENDIR: lambda _node, _: OPENED,
            Request.READ: self._read,
            Request.WRITE: self._write,
            Request.READDIR: self._list,
        }
        self._requests |= dict.fromkeys(NOTHING_TO_DO, lambda _node, _: b"")

    def answer(self, request: bytes) -> bytes:
        """Return the answer to a request; nothing when there is none."""
        _, kind, unique, number, *_ = HEADER.unpack_from(request)
        if kind in UNANSWERED:
            return b""
        error, said = errno.ENOSYS, b""
        if kind in self._requests:
            try:
                said = self._requests[kind](self._nodes[number or ROOT], request[HEADER.size :])
                error = 0
            except _Refusal as refusal:
                error = refusal.args[0]
        return ANSWER.pack(ANSWER.size + len(said), -error, unique) + said

    def _new(self, mode: int) -> _Node:
        node = _Node(next(self._numbers), mode)
        self._nodes[node.number] = node
        return node

    def _key(self, name: bytes) -> str:
        return self._fold(name.decode("utf-8", "surrogateescape"))

    def _child(self, node: _Node, name: bytes) -> _Node:
        found = node.children.get(self._key(name))
        if found is None:
            raise _Refusal(errno.ENOENT)
        return found[1]

    def _add(self, node: _Node, name: bytes, mode: int) -> _Node:
        if self._key(name) in node.children:
            raise _Refusal(errno.EEXIST)
        child = self._new(mode)
        node.children[self._key(name)] = (name, child)
        return child

    def _status(self, node: _Node) -> bytes:
        now, size = int(time.time()), len(node.content)
        times = (now, now, now, 0, 0, 0)
        return ATTRIBUTES.pack(
            node.number, size, size // 512 + 1, *times, node.mode, 1, 0, 0, 0, 4096, 0
        )

    def _attributes(self, node: _Node) -> bytes:
        return bytes(16) + self._status(node)

    def _entry(self, node: _Node) -> bytes:
        # Nothing is valid for any time: the kernel asks again.
        return struct.pack("<Q32x", node.number) + self._status(node)

    def _set_attributes(self, node: _Node, body: bytes) -> bytes:
        changes, _, _, size = struct.unpack_from("<IIQQ", body)
        if changes & SIZE_CHANGES:
            node.content = node.content[:size].ljust(size, b"\0")
        if changes & MODE_CHANGES:
            (mode,) = struct.unpack_from("<I", body, 68)
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return self._attributes(node)

    def _symlink(self, node: _Node, body: bytes) -> bytes:
        name, target, _ = body.split(b"\0")
        link = self._add(node, name, stat.S_IFLNK | 0o777)
        link.content = bytearray(target)
        return self._entry(link)

    def _mkdir(self, node: _Node, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("<I", body)
        return self._entry(self._add(node, body[8:-1], stat.S_IFDIR | stat.S_IMODE(mode)))

    def _create(self, node: _Node, body: bytes) -> bytes:
        _, mode = struct.unpack_from("<II", body)
        made = self._add(node, body[16:-1], stat.S_IFREG | stat.S_IMODE(mode))
        return self._entry(made) + bytes(16)

    def _remove(self, node: _Node, body: bytes) -> bytes:
        if self._child(node, body[:-1]).children:
            raise _Refusal(errno.ENOTEMPTY)
        del node.children[self._key(body[:-1])]
        return b""

    def _rename(self, node: _Node, body: bytes, start: int) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        name, new_name, _ = body[start:].split(b"\0")
        moved, above = self._child(node, name), self._nodes[number]
        there = above.children.get(self._key(new_name))
        if there is not None and there[1] is not moved and there[1].children:
            raise _Refusal(errno.ENOTEMPTY)
        del node.children[self._key(name)]
        above.children[self._key(new_name)] = (new_name, moved)
        return b""

    def _read(self, node: _Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(node.content[offset : offset + size])

    def _write(self, node: _Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        node.content = node.content.ljust(offset, b"\0")
        node.content[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def _list(self, node: _Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        found = b""
        for place, (name, child) in enumerate(list(node.children.values())[offset:], offset + 1):
            row = struct.pack("<QQII", child.number, place, len(name), child.mode >> 12) + name
            row = row.ljust(-(-len(row) // 8) * 8, b"\0")
            if len(found) + len(row) > size:
                break
            found += row
        return found


def _system(call: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, call)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def main(path: str, fold: str) -> None:
    """Mount a file system, and answer the kernel until it is unmounted."""
    disk = _Disk(FOLDS[fold])
    device = os.open(DEVICE, os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    _system("mount", b"folding", path.encode(), b"fuse", 0, options.encode())
    while True:
        try:
            request = os.read(device, REQUEST_BYTES)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR):  # taken back, or interrupted
                continue
            raise
        if answer := disk.answer(request):
            os.write(device, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
