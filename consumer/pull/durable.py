"""Makes what was fetched durable: with one call of the kernel where that is known to suffice, else file by file."""

import os

_KEPT_WHOLE = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0xF2F52010,  # F2FS
        0x01021994,  # tmpfs, which keeps nothing anyway
    }
)
"""File systems (statfs(2), `f_type`) on which syncfs(2) ends when all is on the disk. Those on a network or in user
space may only have handed it to a server or a program by then, which nobody has asked to write it down."""
_TELLS_ERRORS = (5, 8)
"""The Linux since which syncfs(2) tells that something could not be written (syncfs(2), "VERSIONS")."""
_STATFS_BYTES = 256
"""More than a `struct statfs` has anywhere."""


def make_durable(folder: int) -> None:
    """Make all files below a folder, and their names, survive a power cut.

    Args:
        folder: A descriptor that was opened before the first of them was written: what could not be written since then
            is told to it, even if the kernel tried it long before this.

    Raises:
        OSError: Something could not be written.
    """
    if not _sync_at_once(folder):
        for _, _, files, inner in os.fwalk(".", dir_fd=folder):
            for name in files:
                _sync_file(inner, name)
            os.fsync(inner)


def _sync_file(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_at_once(folder: int) -> bool:
    """Sync a whole file system, if its kind and the kernel can be relied on; tell whether that was done."""
    import ctypes  # noqa: PLC0415 -- 5 ms, and only a pull with something to place needs it

    library = ctypes.CDLL(None, use_errno=True)
    if not (hasattr(library, "syncfs") and tells_errors(os.uname().release)):
        return False
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if library.fstatfs(folder, answer) != 0:
        return False
    kind = ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF
    if kind not in _KEPT_WHOLE:
        return False
    if library.syncfs(folder) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def tells_errors(release: str) -> bool:
    """Tell whether a kernel (`uname -r`) tells the caller of syncfs(2) what could not be written."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    if not (release.isascii() and major.isdecimal() and minor.isdecimal()):
        return False
    return (int(major), int(minor)) >= _TELLS_ERRORS
