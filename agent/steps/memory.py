"""A job's small memory: packed when it succeeded, unpacked before its next attempt.

The archive's content is the job's own, so it is treated as hostile: plain files and folders only, within a limit.
"""

import shutil
import tarfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from agent.core.units import show_size
from agent.steps.durable import sync_directory
from agent.steps.seal import open_result

NAMED = 3
"""Files that a note names."""


def pack(state: Path, archive: Path, limit: int) -> str:
    """Write what is in `state` to `archive`; an empty folder writes none.

    Args:
        state: The job's state folder.
        archive: The file to write (gzip), replaced atomically.
        limit: Bytes of all files together.

    Returns:
        Why nothing was written although there is something, or what was left out; empty otherwise.
    """
    draft = archive.with_name(f".{archive.name}.tmp")
    try:
        with tarfile.open(draft, "w:gz", compresslevel=6) as tar:
            left_out = _add_all(tar, state, limit)
            empty = not tar.getmembers()
    except (tarfile.TarError, OSError, ValueError) as error:
        draft.unlink(missing_ok=True)
        return f"its state was not kept: {error}"
    if empty:
        draft.unlink()
    else:
        draft.replace(archive)
        sync_directory(archive.parent)
    if not left_out:
        return ""
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    names = ", ".join(ascii(name) for name in left_out[:NAMED])
    return f"left out of its state, as links or unreadable: {names}{more}"


def _add_all(tar: tarfile.TarFile, state: Path, limit: int) -> list[str]:
    """Add the plain files of a folder to an archive, and return the names of what else is in it.

    Raises:
        ValueError: They have more than `limit` bytes.
    """
    left_out: list[str] = []
    size = 0
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state).as_posix()
        with ExitStack() as held:
            try:
                if path.is_dir() and not path.is_symlink():
                    continue
                stream, mark = held.enter_context(open_result(state, name))
            except FileNotFoundError:
                continue
            except OSError:
                left_out.append(name)
                continue
            size += mark.size
            if size > limit:
                raise ValueError(f"it has more than {show_size(limit)}")
            tar.addfile(tar.gettarinfo(arcname=name, fileobj=stream), stream)
    return left_out


def unpack(archive: Path, state: Path, limit: int) -> str:
    """Extract a memory into an empty folder.

    Returns:
        Why it was not (fully) extracted; empty when it was. The folder is empty again then: half a memory is worse
        than none.
    """
    size = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not member.isreg() or not _stays_inside(member.name):
                    raise tarfile.TarError(f"{member.name!a} is not a plain file")  # noqa: TRY301
                size += member.size
                if size > limit:
                    raise tarfile.TarError(f"more than {show_size(limit)}")  # noqa: TRY301
                target = state / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is not None:
                    with source, target.open("xb") as sink:
                        shutil.copyfileobj(source, sink)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        shutil.rmtree(state)
        state.mkdir()
        return f"its state could not be restored: {error}"
    return ""


def _stays_inside(name: str) -> bool:
    """Tell whether a path leads below where it starts; the names themselves are the job's business."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
