"""A job's small memory: packed when it succeeded, unpacked before its next attempt.

The archive's content is the job's own, so it is treated as hostile: plain files and folders only, within a limit.
"""

import shutil
import tarfile
from pathlib import Path

from agent.core.layout import path_problem
from agent.core.units import show_size
from agent.steps.durable import sync_directory


def pack(state: Path, archive: Path, limit: int) -> str:
    """Write what is in `state` to `archive`; an empty folder writes none.

    Args:
        state: The job's state folder.
        archive: The file to write (gzip), replaced atomically.
        limit: Bytes of all files together.

    Returns:
        Why nothing was written although there is something; empty otherwise.
    """
    files = sorted(path for path in state.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.lstat().st_size for path in files)
    if size > limit:
        return f"its state has {show_size(size)}, over the limit of {show_size(limit)}: not kept"
    if not files:
        return ""
    draft = archive.with_name(f".{archive.name}.tmp")
    with tarfile.open(draft, "w:gz", compresslevel=6) as tar:
        for path in files:
            tar.add(path, path.relative_to(state).as_posix(), recursive=False)
    draft.replace(archive)
    sync_directory(archive.parent)
    return ""


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
                if not member.isreg() or path_problem(member.name):
                    raise tarfile.TarError(f"{member.name!r} is not a plain file")  # noqa: TRY301
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
